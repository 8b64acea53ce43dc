"""Chat completions through a real proxy, with the official client and a strict provider."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import orjson
import pytest

from tests.agent import PLAN, Agent, collect
from tests.fake_provider import FakeProvider, fail, one_id, thought_ids
from tests.proxy import Proxy, eventually


def sent(provider: FakeProvider) -> list[Any]:
    return provider.sent()


def said(messages: list[Any]) -> list[Any]:
    """Without nulls: LiteLLM leaves `"content": null` out on the way to the provider."""
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("session", [None, "plan-7"], ids=["found", "named"])
def test_a_plan_survives_reused_ids_and_collapses(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, stream: bool, session: str | None
) -> None:
    headers = {"x-litellm-session-id": f"{session}-{stream}"} if session else {}
    agent = Agent(alice, stream=stream, extra_headers=headers)
    for number, task in enumerate(PLAN):
        agent.run(f"{number} {stream} {session}\n\n{task}")

    assert provider.refused() == []
    assert len(set(agent.ids)) == len(agent.ids) == 5
    assert agent.ids[0] == "call_abc123"
    assert [h["x-proxy-plugin-collapsed"] for h in agent.headers] == ["0", "0", "0", "1", "1", "2", "2"]
    assert len({h["x-proxy-plugin-session"] for h in agent.headers}) == 1
    before, after = map(int, agent.headers[-1]["x-proxy-plugin-bytes"].split(","))
    last = sent(provider)[-1]
    assert before == len(orjson.dumps(agent.messages[:-1])) > 1.5 * after
    assert [m["role"] for m in last] == [
        "user", "system", "assistant", "user", "system", "assistant", "user", "assistant", "tool",
    ]  # fmt: skip
    assert "find_customer" in last[1]["content"] and "find_customer-11" in last[1]["content"]

    info = eventually(lambda: _complete(proxy, agent))
    assert info["message_count"] == len(agent.messages)


def _complete(proxy: Proxy, agent: Agent) -> Any:
    answer = proxy.get(f"/sessions/{agent.session}/history", key="sk-alice").json()
    stored = [(m["role"], m.get("content"), _calls(m)) for m in answer["messages"]]
    return answer if stored == [(m["role"], m.get("content"), _calls(m)) for m in agent.messages] else None


def _calls(message: Any) -> list[tuple[str, str, str]]:
    return [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]


def test_off_by_one_header(provider: FakeProvider, alice: openai.OpenAI) -> None:
    agent = Agent(alice, extra_headers={"x-proxy-plugin": "off"})
    with pytest.raises(openai.BadRequestError, match="call_abc123"):
        for task in PLAN:
            agent.run(task)
    assert agent.headers[0] == {}
    assert said(sent(provider)[-1]) == said(agent.messages)


def test_audit_computes_and_stores_and_sends_the_original(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    agent = Agent(alice, extra_headers={"x-proxy-plugin": "audit", "x-litellm-session-id": "audited"})
    agent.messages = [
        {"role": "user", "content": "find it"},
        {"role": "assistant", "content": None, "tool_calls": [_call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": json.dumps([{"id": n, "text": "x" * 50} for n in range(20)])},
        {"role": "assistant", "content": "done"},
    ]
    agent.run("thanks")
    assert said(sent(provider)[-1]) == said(agent.messages[:-1])
    assert agent.headers[-1]["x-proxy-plugin-collapsed"] == "1"
    assert eventually(lambda: _complete(proxy, agent))["message_count"] == 6


def _call(call_id: str) -> Any:
    return {"id": call_id, "type": "function", "function": {"name": "find", "arguments": "{}"}}


def test_two_calls_with_one_id_in_one_reply_reach_the_client_with_two(
    provider: FakeProvider, alice: openai.OpenAI
) -> None:
    for stream in (False, True):
        provider.next(one_id)
        agent = Agent(alice, stream=stream)
        agent.run(f'{stream}\n\ncall a {{"n": 1}}\ncall b {{"n": 2}}')
        assert len(set(agent.ids)) == 2
    assert provider.refused() == []


def test_a_signature_in_an_id_reaches_the_client(provider: FakeProvider, alice: openai.OpenAI) -> None:
    provider.next(thought_ids)
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "thoughts"})
    agent.run('call a {"n": 1}')
    assert "__thought__" in agent.ids[0]


def test_a_summary_for_anthropic_is_text_of_the_user(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    agent = Agent(alice, model="claude")
    for task in PLAN[1:]:
        agent.run(task)
    request = provider.requests[-1]
    assert request.api == "messages" and provider.refused() == []
    first = request.messages[0]
    assert first["role"] == "user" and "refund-11" in json.dumps(first["content"])
    assert "system" not in {m["role"] for m in request.messages}


def test_chunks_reach_the_client_while_the_provider_is_still_writing(
    provider: FakeProvider, alice: openai.OpenAI
) -> None:
    gate = provider.hold(event=3)
    stream = alice.chat.completions.create(
        model="gpt", messages=[{"role": "user", "content": "say something"}], stream=True
    )
    chunks = iter(stream)
    first = next(chunks)
    assert not gate.is_open
    gate.release()
    assert first.choices and collect(chunks)["content"]


def test_a_reply_that_the_client_left_is_stored_and_marked(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    gate = provider.hold(event=4)
    stream = alice.chat.completions.create(
        model="gpt",
        messages=[{"role": "user", "content": "tell me a long story"}],
        stream=True,
        extra_headers={"x-litellm-session-id": "left"},
    )
    text = ""
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if text:
            break
    stream.response.close()
    gate.release()
    history = eventually(lambda: _with_reply(proxy, "left"))
    assert history[-1]["content"].startswith(text)
    assert stored(proxy, "left") == 2


def stored(proxy: Proxy, session: str, key: str = "sk-alice") -> int:
    return int(proxy.get(f"/sessions/{session}", key=key).json()["message_count"])


def _with_reply(proxy: Proxy, session: str) -> Any:
    messages = proxy.get(f"/sessions/{session}/history", key="sk-alice").json().get("messages", [])
    return messages if messages and messages[-1]["role"] == "assistant" else None


def test_retries_and_fallbacks_do_not_rewrite_twice(provider: FakeProvider, alice: openai.OpenAI) -> None:
    agent = Agent(alice, model="flaky")
    agent.run(PLAN[1])
    provider.next(fail(500))
    agent.run(PLAN[2])
    bodies = [request.body for request in provider.requests]
    assert bodies[2] == bodies[3]
    assert sent(provider)[3][1]["role"] == "system"
    assert [h["x-proxy-plugin-collapsed"] for h in agent.headers] == ["0", "0", "1", "1"]


def test_everything_else_passes_untouched(proxy: Proxy, provider: FakeProvider) -> None:
    client = httpx.Client(base_url=proxy.root, headers={"authorization": "Bearer sk-alice"}, timeout=30)
    answer = client.post("/v1/embeddings", json={"model": "gpt", "input": ["a", "b"]})
    assert answer.status_code == 200 and provider.requests[-1].parsed["input"] == ["a", "b"]
    assert not [name for name in answer.headers if name.startswith("x-proxy-plugin")]
    answer = client.post("/v1/completions", json={"model": "gpt", "prompt": "once"})
    assert answer.status_code == 200
    assert client.get("/v1/models").status_code == 200


def test_explicit_subtasks_collapse_without_a_final_text(provider: FakeProvider, alice: openai.OpenAI) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "explicit"})
    agent.extra_body = {"metadata": {"subtask_id": "one", "agent": "scout"}}
    agent.messages = [{"role": "user", "content": "start\n\n" + PLAN[1]}]
    agent.messages.append(agent.ask())
    (call,) = agent.messages[-1]["tool_calls"]
    agent.messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(["row"] * 200)})
    agent.extra_body = {"metadata": {"subtask": {"id": "two", "agent": "writer"}}}
    agent.run(PLAN[2])
    assert [h["x-proxy-plugin-collapsed"] for h in agent.headers] == ["0", "1", "1"]
    assert [m["role"] for m in sent(provider)[-1]] == ["user", "system", "user", "assistant", "tool"]


def test_agents_are_recorded(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "switching"})
    for name, reason in (("scout", None), ("writer", "facts are in")):
        agent.extra_body = {"metadata": {"agent": name, **({"agent_reason": reason} if reason else {})}}
        agent.run("go on")
    current = proxy.get("/agents/switching/current", key="sk-alice").json()
    assert current["current_agent"] == "writer"
    assert [(s["from"], s["to"], s["reason"]) for s in current["agent_history"]] == [
        (None, "scout", None),
        ("scout", "writer", "facts are in"),
    ]
    assert current["switch_count"] == 2 and current["last_switch_at"] == current["agent_history"][-1]["timestamp"]


@pytest.mark.parametrize(
    "hostile",
    ["{x}:y", "a b", "../../etc", "x" * 10_000, "%0d%0aset-cookie: a=b", "h_" + "0" * 32, ".", "pp:1:{a}:s:meta"],
)
def test_a_hostile_session_id_is_harmless(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, hostile: str
) -> None:
    agent = Agent(alice, extra_body={"metadata": {"session_id": hostile}})
    agent.run("hello")
    assert agent.session == hostile or agent.session.startswith("h_")
    eventually(lambda: stored(proxy, agent.session) == 2)


def test_a_snapshot_is_made_and_restored_with_each_subtask(proxy: Proxy, alice: openai.OpenAI) -> None:
    def counts() -> tuple[float, float]:
        created = proxy.metric("proxy_plugin_snapshot_created_total")
        return created, proxy.metric("proxy_plugin_snapshot_restored_total")

    before = counts()
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "snapshots"})
    for task in PLAN[1:]:
        agent.run(task)
    eventually(lambda: [now - then for now, then in zip(counts(), before, strict=True)] == [2, 2])
