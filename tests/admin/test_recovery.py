"""GET /recovery: to whom it says what."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import redis

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.embedded import Embedded
from proxy_plugin.sessions.identity import address
from tests.agent import Agent
from tests.fake_provider import FakeProvider, fail
from tests.proxy import Proxy, eventually


def ask(client: openai.OpenAI, session: str) -> None:
    body = {"metadata": {"subtask_id": f"task of {session}"}}
    client.chat.completions.create(
        model="gpt",
        messages=[{"role": "user", "content": 'call find {"a": 1}'}],
        extra_headers={"x-litellm-session-id": session},
        extra_body=body,
    )


def listed(proxy: Proxy, key: str | None = None, **params: str) -> dict[str, dict[str, object]]:
    known = proxy.get("/recovery", key=key, **params).json()
    return {session["session_id"]: session for session in known["sessions"]}


def test_the_report_is_walled_and_an_admin_sees_all(proxy: Proxy, alice: openai.OpenAI, bob: openai.OpenAI) -> None:
    ask(alice, "open-alice")
    ask(bob, "open-bob")
    mine = eventually(lambda: listed(proxy, "sk-alice").get("open-alice"))
    assert (mine["subtask"], mine["state"]) == ("task of open-alice", "in_progress")
    assert (mine["interrupted"], mine["incomplete"], mine["iteration_count"]) == (False, 1, 1)
    assert "open-bob" not in proxy.get("/recovery", key="sk-alice").text
    everything = eventually(lambda: "open-bob" in (all_of := listed(proxy)) and all_of)
    assert "open-alice" in everything
    assert set(listed(proxy, tenant=str(mine["tenant"]))) == set(listed(proxy, "sk-alice"))
    assert set(listed(proxy, "sk-bob", tenant=str(mine["tenant"]))) == set(listed(proxy, "sk-bob"))


def test_starts_are_known_and_a_proxy_that_runs_was_never_lost(proxy: Proxy) -> None:
    known = proxy.get("/recovery", key="sk-alice").json()
    assert known["last_start"].endswith("Z") and known["unclean_stops"] == 0
    assert set(known["totals"]) == {"pending", "in_progress", "completed", "failed", "rolled_back"}
    assert proxy.get("/recovery", key="").status_code == 401
    assert proxy.get("/recovery", key="sk-alice", limit="none").status_code == 400


def test_the_report_is_paged(proxy: Proxy, alice: openai.OpenAI) -> None:
    for number in range(3):
        ask(alice, f"paged-recovery-{number}")
    eventually(lambda: "paged-recovery-2" in listed(proxy, "sk-alice"))
    seen: list[str] = []
    params: dict[str, str] = {"limit": "1"}
    while True:
        known = proxy.get("/recovery", key="sk-alice", **params).json()
        seen += [session["session_id"] for session in known["sessions"]]
        if known["cursor"] is None:
            break
        params["cursor"] = known["cursor"]
    assert len(seen) == len(set(seen)) and {f"paged-recovery-{number}" for number in range(3)} <= set(seen)


def test_a_call_that_failed_interrupts_nothing(proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI) -> None:
    provider.next(fail(400, "no such thing"))
    with pytest.raises(openai.BadRequestError):
        ask(alice, "refused-call")
    found = eventually(lambda: listed(proxy, "sk-alice").get("refused-call"))
    assert (found["state"], found["interrupted"]) == ("in_progress", False)


@pytest.mark.parametrize(
    ("place", "part", "value"),
    [
        (0, "nodes", None),
        (2, "nodes", b"1u0"),
        (-1, "nodes", b"\xff" * 120),
        (0, "bodies", b"10{"),
        (2, "bodies", b'10"x"'),
        (-1, "bodies", None),
    ],
    ids=[
        "lost root",
        "truncated node",
        "tip of nonsense",
        "truncated body",
        "body of another kind",
        "tip without body",
    ],
)
def test_damage_is_named_never_an_error_and_healed_by_the_next_request(
    proxy: Proxy, alice: openai.OpenAI, place: int, part: str, value: bytes | None
) -> None:
    session = f"damaged-{part}-{place}-{value[:3].hex() if value else ''}"
    agent = Agent(alice, extra_headers={"x-litellm-session-id": session})
    for task in ('call find {"a": 1}', 'call report {"b": 2}'):
        agent.run(task)
    whole = eventually(lambda: history(proxy, session, len(agent.messages)))
    nodes = [node["id"] for node in proxy.get(f"/sessions/{session}/tree", key="sk-alice").json()["nodes"]]
    node = nodes[place]
    damage(proxy, session, part, node, value)

    shown = proxy.get(f"/sessions/{session}/history", key="sk-alice").json()
    assert shown["missing_nodes"] == [node]
    rest = list(whole["messages"])
    del rest[place]
    assert shown["messages"] == rest
    for path in (
        "",
        "/tree",
        "/branches",
        "/snapshots",
        "/subtasks",
        f"/nodes/{node}",
        f"/nodes/{nodes[1]}",
        "/requests",
    ):
        assert proxy.get(f"/sessions/{session}{path}", key="sk-alice").status_code in (200, 404), path
    for path in ("/sessions", "/recovery", f"/agents/{session}/current"):
        assert proxy.get(path, key="sk-alice").status_code == 200, path

    agent.run("thanks")
    healed = eventually(lambda: history(proxy, session, len(agent.messages)))
    assert healed["missing_nodes"] == []
    assert healed["messages"][: len(whole["messages"])] == whole["messages"]
    assert len(proxy.get(f"/sessions/{session}/branches", key="sk-alice").json()["branches"]) == 1


def history(proxy: Proxy, session: str, count: int) -> Any:
    answer = proxy.get(f"/sessions/{session}/history", key="sk-alice")
    known = answer.json() if answer.status_code == 200 else {"messages": []}
    return known if len(known["messages"]) == count else None


def damage(proxy: Proxy, session: str, part: str, node: str, value: bytes | None) -> None:
    tenant = proxy.get(f"/sessions/{session}", key="sk-alice").json()["tenant"]
    name = getattr(keys.of_session(address(tenant, session)), part)
    store = Embedded(proxy.folder / "store", proxy.store_port).ensure()  # the one that the proxy started
    with redis.Redis(host=store.host, port=store.port, password=store.password) as there:
        if value is None:
            there.hdel(name, node)
        else:
            there.hset(name, node, value)
