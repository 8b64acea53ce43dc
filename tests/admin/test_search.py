"""Search over HTTP."""

from __future__ import annotations

import openai

from tests.agent import Agent
from tests.proxy import Proxy, eventually


def test_all_branches_are_searched_in_any_case(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "searched"})
    agent.run("what grows in ZÜRICH?")
    kept = list(agent.messages)
    agent.run("and in Москва?")
    agent.messages = kept
    agent.run("and in Oslo?")
    eventually(lambda: proxy.get("/sessions/searched", key="sk-alice").json()["branches"] == 2)

    def search(text: str, **params: int) -> dict[str, object]:
        answer = proxy.get("/sessions/searched/search", key="sk-alice", q=text, **params)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    (hit,) = [r for r in search("москва")["results"] if r["role"] == "user"]  # type: ignore[attr-defined]
    assert set(hit) == {"node", "role", "created_at", "snippet", "branch"}
    assert "Москва" in hit["snippet"] and hit["branch"] == "main"
    assert proxy.get(f"/sessions/searched/nodes/{hit['node']}", key="sk-alice").status_code == 200
    assert search("zürich")["total"] and not search("Bergen")["results"]
    first, all_of_them = search("and in", limit=1), search("AND IN")
    assert first["total"] == all_of_them["total"] and len(first["results"]) == 1  # type: ignore[arg-type]
    assert search("and in", limit=1, offset=1)["results"] == all_of_them["results"][1:2]  # type: ignore[index]


def test_an_empty_search_and_a_foreign_session_are_refused(proxy: Proxy, alice: openai.OpenAI) -> None:
    Agent(alice, extra_headers={"x-litellm-session-id": "not-searched"}).run("hello")
    for params in ({}, {"q": ""}, {"q": "  "}, {"q": "x" * 1001}):
        answer = proxy.get("/sessions/not-searched/search", key="sk-alice", **params)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "q"
    assert proxy.get("/sessions/not-searched/search", key="sk-alice", q="x", limit="no").status_code == 400
    assert proxy.get("/sessions/not-searched/search", key="sk-bob", q="hello").status_code == 404
