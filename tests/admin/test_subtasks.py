"""The routes of subtasks on a real proxy: their answers, refusals, and who may use them."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import httpx
import openai
import pytest

from tests.agent import Agent
from tests.proxy import Proxy

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_names = count()


@pytest.fixture
def session(alice: openai.OpenAI) -> str:
    name = f"lifecycle-{next(_names)}"
    agent = Agent(alice, extra_headers={"x-litellm-session-id": name})
    agent.run("hello")
    return name


def post(proxy: Proxy, session: str, path: str = "", key: str = "sk-alice", **body: Any) -> httpx.Response:
    address = f"{proxy.root}/api/v1/sessions/{session}/subtasks{path}"
    return httpx.post(address, json=body, headers={"authorization": f"Bearer {key}"}, timeout=20)


def listed(proxy: Proxy, session: str, **query: Any) -> Any:
    return proxy.get(f"/sessions/{session}/subtasks", key="sk-alice", **query).json()


def test_a_subtask_in_json(proxy: Proxy, session: str) -> None:
    said = {"id": "s", "description": "do it", "agent": "coder", "metadata": {"step": 1}}
    begun = post(proxy, session, **said)
    assert begun.status_code == 201
    subtask = begun.json()
    head = proxy.get(f"/sessions/{session}/tree", key="sk-alice").json()["head"]
    assert TIME.fullmatch(subtask.pop("started_at"))
    assert subtask.pop("snapshot_id") in {
        one["snapshot_id"] for one in proxy.get(f"/sessions/{session}/snapshots", key="sk-alice").json()["snapshots"]
    }
    assert subtask == {
        **said,
        "state": "in_progress",
        "depends_on": [],
        "attempts": 1,
        "max_attempts": 3,
        "error_message": None,
        "result": None,
        "result_node": None,
        "base_node": head,
        "ended_at": None,
        "explicit": True,
    }
    again = post(proxy, session, id="s", description="another")
    assert (again.status_code, again.json()) == (200, begun.json())
    done = post(proxy, session, "/s/complete", result="done ü")
    assert done.status_code == 200
    assert (done.json()["state"], done.json()["result"]) == ("completed", "done ü")
    assert TIME.fullmatch(done.json()["ended_at"])


def test_unnamed_subtasks_are_listed_with_their_results(proxy: Proxy, session: str, alice: openai.OpenAI) -> None:
    (subtask,) = listed(proxy, session)["subtasks"]
    assert (subtask["state"], subtask["explicit"], subtask["base_node"]) == ("completed", False, None)
    messages = proxy.get(f"/sessions/{session}/history", key="sk-alice").json()["messages"]
    assert subtask["result"] == messages[-1]["content"]


def test_lists_are_paged_and_filtered(proxy: Proxy, session: str) -> None:
    for name in ("a", "b", "c"):
        post(proxy, session, id=name)
    post(proxy, session, "/b/fail", error_message="x")
    whole = listed(proxy, session)
    assert (whole["total"], whole["cursor"]) == (4, None)
    names: list[str] = []
    page: dict[str, Any] = {"cursor": "0"}
    while page["cursor"] is not None:
        page = listed(proxy, session, limit=3, cursor=page["cursor"])
        names += [subtask["id"] for subtask in page["subtasks"]]
    assert names == [subtask["id"] for subtask in whole["subtasks"]]
    assert [subtask["id"] for subtask in listed(proxy, session, state="failed")["subtasks"]] == ["b"]


def test_what_does_not_go_is_refused_in_litellms_shape(proxy: Proxy, session: str) -> None:
    post(proxy, session, id="done")
    post(proxy, session, "/done/complete")
    for _ in range(3):
        assert post(proxy, session, id="broken").status_code == 201
        post(proxy, session, "/broken/fail")
    refusals = [
        (409, post(proxy, session, id="done")),
        (409, post(proxy, session, id="broken")),
        (409, post(proxy, session, id="new", depends_on=["unknown"])),
        (409, post(proxy, session, id="new", depends_on=["done", "broken"])),
        (409, post(proxy, session, "/done/complete", result="another")),
        (409, post(proxy, session, "/done/fail")),
        (409, post(proxy, session, "/done/rollback")),
        (404, post(proxy, session, "/unknown/complete")),
        (404, post(proxy, session, "/unknown/fail")),
        (404, post(proxy, session, "/unknown/rollback")),
        (400, post(proxy, session)),
        (400, post(proxy, session, id=" ")),
        (400, post(proxy, session, id=7)),
        (400, post(proxy, session, id="x" * 1001)),
        (400, post(proxy, session, id="new", depends_on="done")),
        (400, post(proxy, session, id="new", depends_on=[1])),
        (400, post(proxy, session, id="new", metadata={"x": "y" * 20_000})),
        (400, post(proxy, session, id="new", other=1)),
        (400, post(proxy, session, "/done/complete", result=["x"])),
        (404, post(proxy, "no-such-session", id="new")),
    ]
    for status, answer in refusals:
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "'broken'" in refusals[3][1].json()["error"]["message"]
    assert {one["id"] for one in listed(proxy, session)["subtasks"]} & {"new"} == set()


def test_a_rollback_takes_the_session_back_and_loses_nothing(proxy: Proxy, session: str, alice: openai.OpenAI) -> None:
    before = proxy.get(f"/sessions/{session}/history", key="sk-alice").json()["messages"]
    restored = proxy.metric("proxy_plugin_snapshot_restored_total")
    states = proxy.metric("proxy_plugin_subtasks_total", state="rolled_back")
    assert post(proxy, session, id="s").status_code == 201
    agent = Agent(alice, extra_headers={"x-litellm-session-id": session, "x-subtask-id": "s"}, messages=list(before))
    agent.messages.append({"role": "user", "content": 'call find {"x": 1}'})
    agent.messages.append(agent.ask())
    assert post(proxy, session, "/s/rollback").json()["state"] == "rolled_back"
    assert proxy.get(f"/sessions/{session}/history", key="sk-alice").json()["messages"] == before
    main = proxy.get(f"/sessions/{session}/history", key="sk-alice", branch="main").json()["messages"]
    assert main[: len(before) + 1] == agent.messages[: len(before) + 1]
    assert proxy.metric("proxy_plugin_snapshot_restored_total") == restored + 1
    assert proxy.metric("proxy_plugin_subtasks_total", state="rolled_back") == states + 1
    retried = post(proxy, session, id="s")
    assert (retried.status_code, retried.json()["attempts"]) == (201, 2)


def test_ids_may_hold_anything(proxy: Proxy, session: str) -> None:
    for name, path in (
        ("step 1/2", "step%201%2F2"),
        ("ünïcode", "ünïcode"),
        ("complete", "complete"),
        ("a?b", "a%3Fb"),
    ):
        assert post(proxy, session, id=name).json()["id"] == name
        ended = post(proxy, session, f"/{path}/complete", result="r")
        assert (ended.status_code, ended.json()["id"]) == (200, name), ended.text


def test_other_tenants_and_strangers_see_nothing(proxy: Proxy, session: str) -> None:
    post(proxy, session, id="mine")
    for path in ("", "/mine/complete", "/mine/fail", "/mine/rollback"):
        body = {} if path else {"id": "mine"}
        assert post(proxy, session, path, key="sk-bob", **body).status_code == 404
        assert post(proxy, session, path, key="sk-wrong", **body).status_code == 401
    assert proxy.get(f"/sessions/{session}/subtasks", key="sk-bob").status_code == 404
    assert post(proxy, session, "/mine/complete", key=proxy.key, result="by the admin").status_code == 200
