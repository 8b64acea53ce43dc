"""Export and import over HTTP: whose session it becomes, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai

from tests.agent import PLAN, Agent
from tests.proxy import Proxy, eventually


def send(proxy: Proxy, text: bytes, key: str | None = "sk-alice", **params: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {proxy.key if key is None else key}"}
    return httpx.post(f"{proxy.root}/api/v1/sessions/import", content=text, headers=headers, params=params, timeout=30)


def delete(proxy: Proxy, session: str, key: str = "sk-alice") -> None:
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.delete(f"{proxy.root}/api/v1/sessions/{session}", headers=headers, timeout=20).status_code == 200


def a_session(proxy: Proxy, client: openai.OpenAI, name: str) -> bytes:
    agent = Agent(client, extra_headers={"x-litellm-session-id": name})
    for task in PLAN[:2]:
        agent.run(task)
    count = len(agent.messages)
    eventually(lambda: proxy.get(f"/sessions/{name}", key="sk-alice").json()["message_count"] == count)
    answer = proxy.get(f"/sessions/{name}/export", key="sk-alice")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/x-ndjson")
    return answer.content


def test_export_delete_import_gives_the_same_session(proxy: Proxy, alice: openai.OpenAI) -> None:
    text = a_session(proxy, alice, "moved")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["format"] == "litellm-session-plugin" and lines[0]["version"] == 1
    assert {"node", "branch", "snapshot", "subtask", "end"} <= {line.get("type") for line in lines}
    parts = ("tree", "history", "branches", "snapshots", "subtasks")
    before = {part: proxy.get(f"/sessions/moved/{part}", key="sk-alice").json() for part in parts}
    delete(proxy, "moved")
    assert proxy.get("/sessions/moved", key="sk-alice").status_code == 404

    done = send(proxy, text)
    assert done.status_code == 201, done.text
    assert done.json()["session_id"] == "moved" and done.json()["nodes"] == len(before["tree"]["nodes"])
    assert {part: proxy.get(f"/sessions/moved/{part}", key="sk-alice").json() for part in parts} == before
    assert proxy.get("/sessions/moved/export", key="sk-alice").content == text
    assert "moved" in [s["session_id"] for s in proxy.get("/sessions", key="sk-alice", limit=500).json()["sessions"]]


def test_an_import_is_the_callers_own_and_goes_over_nothing(proxy: Proxy, alice: openai.OpenAI) -> None:
    text = a_session(proxy, alice, "kept")
    again = send(proxy, text)
    assert again.status_code == 409 and again.json()["error"]["code"] == "409"
    assert send(proxy, text, replace="true").status_code == 201
    assert send(proxy, text, replace="maybe").status_code == 400

    mine = proxy.get("/sessions/kept", key="sk-alice").json()["tenant"]
    theirs = send(proxy, text, "sk-bob", tenant=mine)  # only an admin may say whose it shall be
    assert theirs.status_code == 201 and theirs.json()["tenant"] != mine
    assert proxy.get("/sessions/kept/history", key="sk-bob").json()["message_count"] > 0
    delete(proxy, "kept", "sk-bob")
    delete(proxy, "kept")
    assert send(proxy, text, None, tenant="x y").status_code == 400
    assert send(proxy, text, None, tenant=mine).json()["tenant"] == mine
    assert proxy.get("/sessions/kept/export", key="sk-alice").content == text


def test_a_broken_line_is_named_and_nothing_is_imported(proxy: Proxy, alice: openai.OpenAI) -> None:
    text = a_session(proxy, alice, "broken")
    delete(proxy, "broken")
    lines = text.splitlines(True)
    spoiled = json.loads(lines[3])
    spoiled["body"]["wire"]["content"] = "something else"
    for body, said in (
        (b"".join([*lines[:3], json.dumps(spoiled).encode() + b"\n", *lines[4:]]), "line 4: "),
        (b"".join(lines[:-1]), "ends before its last line"),
        (b"no json", "line 1: "),
        (b"", "line 1: "),
    ):
        answer = send(proxy, body)
        assert answer.status_code == 400 and said in answer.json()["error"]["message"], answer.text
    assert proxy.get("/sessions/broken", key="sk-alice").status_code == 404


def test_transfer_needs_a_key_and_a_session_of_its_own(proxy: Proxy, alice: openai.OpenAI) -> None:
    text = a_session(proxy, alice, "guarded")
    assert send(proxy, text, "sk-wrong").status_code == 401
    foreign = proxy.get("/sessions/guarded/export", key="sk-bob")
    unknown = proxy.get("/sessions/no-such/export", key="sk-bob")
    assert foreign.status_code == unknown.status_code == 404 and foreign.json() == unknown.json()
