"""The HTTP routes on a real proxy: who may see what, and the errors."""

from __future__ import annotations

import httpx
import openai

from tests.agent import PLAN, Agent
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy, eventually


def test_a_session_belongs_to_the_key_that_made_it(proxy: Proxy, alice: openai.OpenAI, bob: openai.OpenAI) -> None:
    mine = Agent(alice, extra_headers={"x-litellm-session-id": "hers-alone"})
    mine.run("my secret")
    eventually(lambda: proxy.get("/sessions/hers-alone", key="sk-alice").status_code == 200)
    for path in ("", "/history", "/nodes/000000000000"):
        foreign, unknown = (proxy.get(f"/sessions/{name}{path}", key="sk-bob") for name in ("hers-alone", "unknown"))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json() == unknown.json()
    assert proxy.get("/agents/hers-alone/current", key="sk-bob").status_code == 404
    listed = proxy.get("/sessions", key="sk-bob", limit=500).json()["sessions"]
    assert "hers-alone" not in [session["session_id"] for session in listed]

    theirs = Agent(bob, extra_headers={"x-litellm-session-id": "hers-alone"})
    theirs.run("another thing")
    assert "my secret" not in proxy.get("/sessions/hers-alone/history", key="sk-bob").text
    eventually(lambda: proxy.get("/sessions/hers-alone", key="sk-alice").json()["message_count"] == 2)


def test_an_admin_sees_all_tenants_and_must_say_which_when_an_id_is_not_unique(
    proxy: Proxy, alice: openai.OpenAI, bob: openai.OpenAI
) -> None:
    Agent(alice, extra_headers={"x-litellm-session-id": "only-mine"}).run("hello")
    eventually(lambda: proxy.get("/sessions/only-mine/history").json()["message_count"] == 2)
    for client in (alice, bob):
        Agent(client, extra_headers={"x-litellm-session-id": "both"}).run("hello")
    assert proxy.get("/sessions/both").status_code == 409
    tenants = [s["tenant"] for s in proxy.get("/sessions", limit=500).json()["sessions"] if s["session_id"] == "both"]
    assert len(tenants) == 2
    for tenant in tenants:
        assert proxy.get("/sessions/both", tenant=tenant).json()["tenant"] == tenant


def test_keys_are_needed_and_errors_have_litellms_shape(proxy: Proxy) -> None:
    for path in ("/sessions", "/sessions/x", "/sessions/x/history", "/agents/x/current", "/metrics"):
        for key in ("", "sk-wrong"):
            answer = proxy.get(path, key=key)
            assert answer.status_code == 401, (path, key, answer.text)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert proxy.get("/metrics", key="sk-alice").status_code == 403
    assert proxy.get("/sessions", key="sk-alice", limit="many").status_code == 400
    assert proxy.get("/health", key="").json() == {"status": "ok"}


def test_sessions_are_listed_newest_first_and_paged(proxy: Proxy, bob: openai.OpenAI) -> None:
    for number in range(3):
        Agent(bob, extra_headers={"x-litellm-session-id": f"listed-{number}"}).run("hello")
    page = proxy.get("/sessions", key="sk-bob", limit=2).json()
    assert [s["session_id"] for s in page["sessions"]] == ["listed-2", "listed-1"]
    assert page["total"] >= 3
    rest = proxy.get("/sessions", key="sk-bob", limit=1, offset=2).json()
    assert rest["sessions"][0]["session_id"] == "listed-0"


def test_the_reference_of_a_summary_leads_to_the_full_output(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "referenced"})
    for task in PLAN[:2]:
        agent.run(task)
    summary = provider.sent()[-1][1]["content"]
    originals = [m["content"] for m in agent.messages if m["role"] == "tool"]
    references = [word.strip("[];:,.()") for word in summary.split()]
    answers = [
        proxy.get(f"/sessions/referenced/nodes/{word}", key="sk-alice")
        for word in references
        if len(word) == 12 and all(c in "0123456789abcdef" for c in word)
    ]
    (answer,) = [a for a in answers if a.status_code == 200]
    contents = [m["content"] for m in answer.json()["subtask_messages"] if m["role"] == "tool"]
    assert contents == originals[:3]


def test_a_branch_and_a_node_of_the_history(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "branched"})
    agent.messages = [{"role": "system", "content": "be brief"}]
    agent.run("first question")
    kept = list(agent.messages)
    agent.run("second question")
    agent.messages = kept
    agent.run("another second question")
    newest = proxy.get("/sessions/branched/history", key="sk-alice").json()["messages"]
    assert newest[0] == {"role": "system", "content": "be brief"}
    assert newest[3]["content"] == "another second question"
    main = proxy.get("/sessions/branched/history", key="sk-alice", branch="main").json()["messages"]
    assert main[3]["content"] == "second question"
    assert proxy.get("/sessions/branched/history", key="sk-alice", branch="none").status_code == 404


def test_the_metrics_are_in_litellms_own_exposition_too(proxy: Proxy, alice: openai.OpenAI) -> None:
    Agent(alice).run("hello")
    theirs = httpx.get(proxy.root + "/metrics", follow_redirects=True, timeout=20).text
    assert "proxy_plugin_requests_total" in theirs and "litellm_" in theirs
    ours = proxy.get("/metrics").text
    assert "proxy_plugin_store_seconds_count" in ours and "sk-" not in ours
