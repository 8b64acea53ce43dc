"""A client that lost its history goes on with one message, through a real proxy."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import anthropic
import httpx
import openai
import orjson
import pytest

from proxy_plugin.gateway.resume import behind
from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions.tree import History, StoredNode
from tests.agent import PLAN, TOOLS, Agent
from tests.fake_provider import FakeProvider, fail
from tests.gateway.test_endpoints import Messages, Responses
from tests.proxy import Proxy, eventually

RESUME = {"x-proxy-plugin-resume": "head"}
_names = count()


def named() -> dict[str, str]:
    return {"x-litellm-session-id": f"lost-{next(_names)}"}


def stored(proxy: Proxy, session: str, messages: int) -> Any:
    def found() -> Any:
        answer = proxy.get(f"/sessions/{session}/history", key="sk-alice").json()
        return answer if answer.get("message_count") == messages else None

    return eventually(found)


def ask(client: openai.OpenAI, messages: Any, headers: dict[str, str]) -> Any:
    return client.chat.completions.with_raw_response.create(  # type: ignore[call-overload]
        model="gpt", messages=messages, extra_headers=headers, tools=TOOLS
    )


def test_chat_is_sent_as_if_the_client_had_all_of_it(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    new = {"role": "user", "content": "what was refunded?"}
    bodies, answers = [], []
    for lost in (False, True):
        headers = named()
        agent = Agent(alice, extra_headers=headers, messages=[{"role": "system", "content": "be brief"}])
        for task in PLAN:
            agent.run(task)
        stored(proxy, headers["x-litellm-session-id"], len(agent.messages))
        sends = ([new], headers | RESUME) if lost else ([*agent.messages, new], headers)
        answers.append(ask(alice, *sends).headers)
        bodies.append(provider.requests[-1].body)
    assert bodies[0] == bodies[1]
    assert [answer.get("x-proxy-plugin-resumed") for answer in answers] == [None, "1"]
    assert answers[0]["x-proxy-plugin-collapsed"] == answers[1]["x-proxy-plugin-collapsed"] != "0"
    history = stored(proxy, headers["x-litellm-session-id"], len(agent.messages) + 2)
    assert history["messages"][:-1] == [*agent.messages, new]
    assert proxy.get(f"/sessions/{headers['x-litellm-session-id']}", key="sk-alice").json()["branches"] == 1


def test_the_clients_own_system_text_goes_before_the_stored_one(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    headers = named()
    agent = Agent(alice, extra_headers=headers, messages=[{"role": "system", "content": "be brief"}])
    agent.run("hello")
    own = [{"role": "system", "content": "be long"}, {"role": "user", "content": "go on"}]
    ask(alice, own, {**headers, **RESUME})
    assert provider.requests[-1].messages == [own[0], *agent.messages[1:], own[1]]


def test_a_session_is_resumed_by_the_id_that_was_shown(provider: FakeProvider, alice: openai.OpenAI) -> None:
    agent = Agent(alice)
    agent.run(f"no id {next(_names)}")
    headers = {"x-litellm-session-id": agent.headers[-1]["x-proxy-plugin-session"], **RESUME}
    new = {"role": "user", "content": "go on"}
    answer = ask(alice, [new], headers)
    assert answer.headers["x-proxy-plugin-resumed"] == "1"
    assert answer.headers["x-proxy-plugin-session"] == agent.headers[-1]["x-proxy-plugin-session"]
    assert provider.requests[-1].messages == [*agent.messages, new]


def test_no_other_tenants_session_is_resumed_and_nothing_without_an_id(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, bob: openai.OpenAI
) -> None:
    headers = named()
    Agent(alice, extra_headers=headers).run("a secret")
    new = [{"role": "user", "content": f"what was it {next(_names)}"}]
    before = proxy.metric("proxy_plugin_passthrough_total")
    unknown = {"x-proxy-plugin-resume": "snap-0123456789abcdef"}
    for client, sends in (
        (bob, headers | RESUME),
        (alice, RESUME),
        (alice, named() | RESUME),
        (alice, headers | unknown),
    ):
        answer = ask(client, new, sends)
        assert answer.headers["x-proxy-plugin-resumed"] == "0"
        assert provider.requests[-1].messages == new
    assert proxy.metric("proxy_plugin_passthrough_total") == before + 4


def test_a_resumed_request_that_failed_is_sent_again_once(provider: FakeProvider, alice: openai.OpenAI) -> None:
    headers = {**named(), **RESUME}
    agent = Agent(alice, extra_headers=headers)
    agent.run("hello")
    new = {"role": "user", "content": "go on"}
    provider.next(fail(500), fail(500))
    with pytest.raises(openai.InternalServerError):
        ask(alice, [new], headers)
    ask(alice, [new], headers)
    assert provider.requests[-1].messages == [*agent.messages, new]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", ["messages", "responses"])
def test_the_other_endpoints(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, api: str, stream: bool
) -> None:
    headers = named()
    field = {"messages": "system", "responses": "instructions"}[api]
    kind: Any = {"messages": Messages, "responses": Responses}[api]
    model = {"messages": "claude", "responses": "gpt"}[api]
    client: Any = alice
    if api == "messages":
        client = anthropic.Anthropic(base_url=proxy.root, api_key="sk-alice", max_retries=0)
    agent = kind(client, model, stream, {field: "be brief", "extra_headers": headers})
    for task in PLAN[:2]:
        agent.run(task)
    all_of_it = list(agent.wire)
    lost = kind(client, model, stream, {"extra_headers": {**headers, **RESUME}})
    lost.run("go on")
    assert lost.headers[-1]["x-proxy-plugin-resumed"] == "1"
    resumed = provider.requests[-1].parsed
    agent.wire = all_of_it
    agent.run("go on")
    expected = provider.requests[-1].parsed
    assert resumed.get(field) == expected.get(field)
    name = {"messages": "messages", "responses": "input"}[api]
    assert CODECS[api].parse(resumed[name]) == CODECS[api].parse(expected[name])
    assert provider.refused() == []


def test_a_session_goes_on_at_another_endpoint(proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI) -> None:
    headers = named()
    agent = Agent(alice, extra_headers=headers, messages=[{"role": "system", "content": "be brief"}])
    agent.run(PLAN[0])
    body = {"model": "claude", "max_tokens": 99, "messages": [{"role": "user", "content": "go on"}]}
    bearer = {"authorization": "Bearer sk-alice"}
    answer = httpx.post(f"{proxy.root}/v1/messages", json=body, headers={**bearer, **headers, **RESUME}, timeout=30)
    assert answer.status_code == 200 and answer.headers["x-proxy-plugin-resumed"] == "1"
    upstream = provider.requests[-1].parsed
    assert upstream["system"] in ("be brief", [{"type": "text", "text": "be brief"}])
    assert [message["role"] for message in upstream["messages"]].count("system") == 0
    assert upstream["messages"][-1] == body["messages"][0]
    assert provider.refused() == []


def test_breakpoints_that_moved_on_with_the_conversation_are_not_sent_all_together(
    proxy: Proxy, provider: FakeProvider
) -> None:
    headers = named()
    client = anthropic.Anthropic(base_url=proxy.root, api_key="sk-alice", max_retries=0)
    wire: list[Any] = []
    for turn in range(6):
        newest = {"type": "text", "text": f"question {turn}", "cache_control": {"type": "ephemeral"}}
        sent = [*wire, {"role": "user", "content": [newest]}]
        answer = client.messages.create(model="claude", max_tokens=50, messages=sent, extra_headers=headers)
        plain = {"type": "text", "text": newest["text"]}
        wire += [{"role": "user", "content": [plain]}, answer.to_dict()]
        wire[-1] = {"role": "assistant", "content": wire[-1]["content"]}
    new: Any = {"role": "user", "content": "go on"}
    raw = client.messages.with_raw_response.create(
        model="claude", max_tokens=50, messages=[new], extra_headers={**headers, **RESUME}
    )
    assert raw.headers["x-proxy-plugin-resumed"] == "1"
    assert provider.requests[-1].messages == [*wire, new]


def kept(*messages: Any, lead: bytes | None = None, led: str = "") -> Any:
    """A stored path, as a resume gets it."""
    bodies = [orjson.dumps({"api": "chat", "wire": message}) for message in messages]
    nodes = tuple(
        StoredNode(f"{at:032x}", "", at, message["role"], 0, False, False, "", 0, led, body)
        for at, (message, body) in enumerate(zip(messages, bodies, strict=True))
    )
    return History(cast(Any, None), nodes[-1].id, lead, nodes, len(nodes))


def test_nothing_is_resumed_without_its_system_text() -> None:
    new, asked = [{"role": "user", "content": "go on"}], {"role": "user", "content": "?"}
    assert behind(kept(asked, led="1" * 32), "chat", new, {}) is None
    own = [{"role": "system", "content": "mine"}, *new]
    assert behind(kept(asked, led="1" * 32), "chat", own, {}) is not None
