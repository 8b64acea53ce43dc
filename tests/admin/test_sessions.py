"""Sessions over HTTP, on a real proxy: what is noted of them, filters, deletion, and walls between tenants."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from tests.admin.calls import call, messages, told
from tests.agent import Agent
from tests.proxy import Proxy, eventually

ROUTES = [
    ("GET", "/sessions/{}", None),
    ("PATCH", "/sessions/{}", {"title": "mine now"}),
    ("DELETE", "/sessions/{}", None),
    ("GET", "/sessions/{}/tree", None),
    ("GET", "/sessions/{}/history", None),
    ("GET", "/sessions/{}/branches", None),
    ("POST", "/sessions/{}/branches", {"name": "x"}),
    ("PATCH", "/sessions/{}/branches/main", {"name": "x"}),
    ("DELETE", "/sessions/{}/branches/main", None),
    ("POST", "/sessions/{}/branches/main/switch", None),
    ("GET", "/sessions/{}/snapshots", None),
    ("POST", "/sessions/{}/snapshots", {"name": "x"}),
    ("POST", "/sessions/{}/snapshots/SNAPSHOT/restore", {}),
    ("DELETE", "/sessions/{}/snapshots/SNAPSHOT", None),
    ("GET", "/agents/{}/current", None),
]


def test_a_foreign_session_is_the_same_404_as_an_unknown_one_on_every_route(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "mine-1", "a secret")
    call(proxy, "PATCH", "/sessions/mine-1", {"aliases": ["mine-alias"]})
    (snapshot,) = call(proxy, "GET", "/sessions/mine-1/snapshots").json()["snapshots"]
    before = call(proxy, "GET", "/sessions/mine-1").json()
    for method, path, body in ROUTES:
        path = path.replace("SNAPSHOT", snapshot["snapshot_id"])
        answers = [
            call(proxy, method, path.format(name), body, key="sk-bob") for name in ("mine-1", "mine-alias", "unknown")
        ]
        assert {answer.status_code for answer in answers} == {404}, (method, path)
        assert answers[0].json() == answers[1].json() == answers[2].json()
        for key in ("", "sk-wrong"):
            assert call(proxy, method, path.format("mine-1"), body, key=key).status_code == 401
    assert call(proxy, "GET", "/sessions/mine-1").json() == before
    assert messages(proxy, "mine-1") == agent.messages


def test_what_is_noted_of_a_session(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = Agent(
        alice,
        extra_headers={"x-litellm-session-id": "noted-1"},
        extra_body={"metadata": {"agent": "planner", "agent_reason": "start"}},
    )
    agent.run("hello")
    eventually(lambda: call(proxy, "GET", "/sessions/noted-1").json()["message_count"] == 2)
    noted = {"title": " Refunds ", "description": "what we do", "metadata": {"user": 7}, "aliases": ["user:noted"]}
    answer = call(proxy, "PATCH", "/sessions/noted-1", noted)
    assert answer.status_code == 200
    shown = call(proxy, "GET", "/sessions/user:noted").json()
    assert shown == {**answer.json(), "last_activity": shown["last_activity"]}
    assert (shown["session_id"], shown["title"], shown["metadata"]) == ("noted-1", "Refunds", {"user": 7})
    assert (shown["current_agent"], shown["switch_count"], shown["aliases"]) == ("planner", 1, ["user:noted"])
    assert shown["last_switch_at"] == shown["agent_history"][0]["timestamp"]
    assert 5 < shown["token_estimate"] < 500
    assert messages(proxy, "user:noted") == agent.messages
    current = call(proxy, "GET", "/agents/user:noted/current").json()
    assert (current["session_id"], current["context_metadata"]) == ("noted-1", {"user": 7})
    assert call(proxy, "GET", "/sessions/user:noted", key=proxy.key).json()["session_id"] == "noted-1"
    cleared = call(proxy, "PATCH", "/sessions/user:noted", {"title": "", "metadata": {}, "aliases": []}).json()
    assert (cleared["title"], cleared["metadata"], cleared["aliases"]) == (None, {}, [])
    assert cleared["description"] == "what we do"
    assert call(proxy, "GET", "/sessions/user:noted").status_code == 404


def test_an_alias_is_one_sessions_of_a_tenant(proxy: Proxy, alice: openai.OpenAI, bob: openai.OpenAI) -> None:
    told(proxy, alice, "alias-1", "hello")
    told(proxy, alice, "alias-2", "hello")
    told(proxy, bob, "alias-3", "hello")
    aliases = {"aliases": ["user:one"]}
    assert call(proxy, "PATCH", "/sessions/alias-1", aliases).status_code == 200
    taken = call(proxy, "PATCH", "/sessions/alias-2", aliases)
    assert (taken.status_code, taken.json()["error"]["param"]) == (409, "aliases")
    assert call(proxy, "PATCH", "/sessions/alias-3", aliases, key="sk-bob").status_code == 200
    assert call(proxy, "GET", "/sessions/user:one", key=proxy.key).status_code == 409
    assert call(proxy, "DELETE", "/sessions/user:one").json()["session_id"] == "alias-1"
    assert call(proxy, "PATCH", "/sessions/alias-2", aliases).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"title": 7}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"description": "x" * 4_001}, "description"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"x": "y" * 16_384}}, "metadata"),
        ({"aliases": "user:x"}, "aliases"),
        ({"aliases": [7]}, "aliases"),
        ({"aliases": ["a/b"]}, "aliases"),
        ({"aliases": [""]}, "aliases"),
        ({"aliases": [f"a{n}" for n in range(33)]}, "aliases"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_errors_name_what_is_wrong(proxy: Proxy, alice: openai.OpenAI, body: Any, param: str) -> None:
    if call(proxy, "GET", "/sessions/wrong-1").status_code == 404:
        told(proxy, alice, "wrong-1", "first")
    answer = call(proxy, "PATCH", "/sessions/wrong-1", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_the_list_is_filtered_and_paged(proxy: Proxy, alice: openai.OpenAI, bob: openai.OpenAI) -> None:
    begin = int(time.time() * 1000)
    for number, who in enumerate(["filter-a", "filter-b", "filter-a"]):
        told(proxy, alice, f"filter-{number}", "hello", extra_body={"metadata": {"agent": who}})
    told(proxy, bob, "filter-bob", "hello", extra_body={"metadata": {"agent": "filter-a"}})

    def listed(key: str = "sk-alice", **params: Any) -> list[str]:
        answer = call(proxy, "GET", "/sessions", key=key, **params).json()
        assert answer["total"] == len(answer["sessions"]) or "limit" in params
        return [one["session_id"] for one in answer["sessions"]]

    assert listed(agent="filter-a") == ["filter-2", "filter-0"]
    assert set(listed(active_since=begin)) >= {"filter-0", "filter-1", "filter-2"}
    middle = call(proxy, "GET", "/sessions/filter-1").json()["last_activity"]
    assert listed(active_since=middle, agent="filter-b") == ["filter-1"]
    assert "filter-0" not in listed(active_since=middle)
    assert listed(active_since="2999-01-01T00:00:00Z") == []
    tenant = call(proxy, "GET", "/sessions/filter-bob", key=proxy.key).json()["tenant"]
    assert listed(proxy.key, tenant=tenant, agent="filter-a") == ["filter-bob"]
    assert set(listed(proxy.key, agent="filter-a")) == {"filter-0", "filter-2", "filter-bob"}
    assert call(proxy, "GET", "/sessions", tenant=tenant).status_code == 403
    assert call(proxy, "GET", "/sessions", active_since="yesterday").status_code == 400

    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = call(proxy, "GET", "/sessions", limit=1, active_since=begin, **cursor).json()
        seen += [one["session_id"] for one in page["sessions"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert seen == ["filter-2", "filter-1", "filter-0"]


def test_a_deleted_session_is_gone_with_everything_and_stays_so(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "deleted-1", "hello")
    call(proxy, "PATCH", "/sessions/deleted-1", {"aliases": ["deleted-alias"]})
    answer = call(proxy, "DELETE", "/sessions/deleted-1")
    assert answer.json() == {"session_id": "deleted-1", "deleted": True}
    for name in ("deleted-1", "deleted-alias"):
        assert call(proxy, "GET", f"/sessions/{name}").status_code == 404
        assert call(proxy, "DELETE", f"/sessions/{name}").status_code == 404
    assert "deleted-1" not in call(proxy, "GET", "/sessions", limit=500).text
    agent.run("a late request")  # answered, and kept out by the tombstone
    assert call(proxy, "GET", "/sessions/deleted-1").status_code == 404


def test_a_tenant_is_erased_by_an_admin_only(proxy: Proxy, alice: openai.OpenAI, bob: openai.OpenAI) -> None:
    told(proxy, alice, "erased-alice", "hello")
    for number in range(20):
        told(proxy, bob, f"erased-{number}", "hello")
    Agent(bob).run("no session id")
    call(proxy, "PATCH", "/sessions/erased-0", {"aliases": ["erased-alias"]}, key="sk-bob")
    tenant = call(proxy, "GET", "/sessions/erased-0", key="sk-bob").json()["tenant"]
    total = call(proxy, "GET", "/sessions", key="sk-bob", limit=500).json()["total"]
    assert total >= 21
    assert call(proxy, "DELETE", f"/tenants/{tenant}", key="sk-bob").status_code == 403
    assert call(proxy, "DELETE", "/tenants/bob", key=proxy.key).status_code == 400
    assert call(proxy, "DELETE", f"/tenants/{tenant}", key=proxy.key).json() == {"tenant": tenant, "deleted": total}
    assert call(proxy, "GET", "/sessions", key="sk-bob").json()["sessions"] == []
    assert call(proxy, "GET", "/sessions/erased-alias", key="sk-bob").status_code == 404
    assert call(proxy, "GET", "/sessions/erased-alice").status_code == 200
    assert call(proxy, "DELETE", f"/tenants/{tenant}", key=proxy.key).json()["deleted"] == 0
