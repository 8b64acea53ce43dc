"""/v1/messages and /v1/responses through a real proxy, with the official clients and a strict provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import openai
import pytest

from proxy_plugin.history.model import ROOT, node_id
from proxy_plugin.history.wire import CODECS
from tests.agent import PLAN, TOOLS, Agent, rows
from tests.fake_provider import FakeProvider, Reply, _Messages, one_id
from tests.proxy import Proxy, eventually

Item = dict[str, Any]


@dataclass
class Conversation:
    """An agent on one endpoint. `wire`: its history; `ids`: the calls' as the client saw them."""

    client: Any
    model: str
    stream: bool
    options: Item = field(default_factory=dict)
    wire: list[Item] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def run(self, task: str) -> None:
        self.wire.append({"role": "user", "content": task})
        while calls := self.ask():
            self.ids += [call_id for call_id, _, _ in calls]
            self.give([(call_id, rows(name, arguments)) for call_id, name, arguments in calls])

    def ask(self) -> list[tuple[str, str, str]]:
        """One request; the reply goes into the history, and its calls come back as (id, name, arguments)."""
        raise NotImplementedError

    def give(self, results: list[tuple[str, str]]) -> None:
        raise NotImplementedError

    @property
    def session(self) -> str:
        return self.headers[-1]["x-proxy-plugin-session"]

    def answered(self, headers: Any) -> None:
        self.headers.append({name: value for name, value in headers.items() if name.startswith("x-proxy-plugin")})


class Messages(Conversation):
    api = "messages"

    def ask(self) -> list[tuple[str, str, str]]:
        tools = [{"name": tool["function"]["name"], "input_schema": {"type": "object"}} for tool in TOOLS]
        ask = {"model": self.model, "max_tokens": 500, "tools": tools, "messages": self.wire, **self.options}
        if self.stream:
            with self.client.messages.stream(**ask) as stream:
                self.answered(stream.response.headers)
                message = stream.get_final_message()
        else:
            raw = self.client.messages.with_raw_response.create(**ask)
            self.answered(raw.headers)
            message = raw.parse()
        content = [block.model_dump(exclude_none=True) for block in message.content]
        self.wire.append({"role": "assistant", "content": content})
        calls = [block for block in content if block["type"] == "tool_use"]
        return [(call["id"], call["name"], json.dumps(call["input"])) for call in calls]

    def give(self, results: list[tuple[str, str]]) -> None:
        blocks = [{"type": "tool_result", "tool_use_id": call_id, "content": text} for call_id, text in results]
        self.wire.append({"role": "user", "content": blocks})


class Responses(Conversation):
    api = "responses"

    def ask(self) -> list[tuple[str, str, str]]:
        tools = [{"type": "function", "strict": False, **tool["function"]} for tool in TOOLS]
        ask = {"model": self.model, "tools": tools, "input": self.wire, **self.options}
        raw = self.client.responses.with_raw_response.create(**ask, stream=self.stream)
        self.answered(raw.headers)
        response = raw.parse()
        if self.stream:
            events = list(response)
            response = events[-1].response
            agree(events)
        output = [item.to_dict() for item in response.output]
        self.wire += output
        calls = [item for item in output if item["type"] == "function_call"]
        return [(call["call_id"], call["name"], call["arguments"]) for call in calls]

    def give(self, results: list[tuple[str, str]]) -> None:
        self.wire += [{"type": "function_call_output", "call_id": call_id, "output": text} for call_id, text in results]


def agree(events: list[Any]) -> None:
    """Every event names the calls by the ids that the last one gives them."""
    calls = {item.id: item.call_id for item in events[-1].response.output if item.type == "function_call"}
    for event in events:
        item = getattr(event, "item", None)
        if item is not None and item.type == "function_call":
            assert calls[item.id] == item.call_id
        if event.type.startswith("response.function_call_arguments"):
            assert event.item_id in calls


ENDPOINTS = {"messages": Messages, "responses": Responses}


@pytest.fixture
def begin(proxy: Proxy, alice: openai.OpenAI) -> Iterator[Any]:
    """Begins a conversation: (api, model, stream) -> Conversation."""
    clients: list[Any] = []

    def conversation(api: str, model: str, stream: bool, **options: Any) -> Conversation:
        client: Any = alice
        if api == "messages":
            client = anthropic.Anthropic(base_url=proxy.root, api_key="sk-alice", max_retries=0)
            clients.append(client)
        return ENDPOINTS[api](client, model, stream, options)

    yield conversation
    for client in clients:
        client.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", ["gpt", "claude"])
@pytest.mark.parametrize("api", ENDPOINTS)
def test_a_plan_survives_reused_ids_and_collapses(
    proxy: Proxy, provider: FakeProvider, begin: Any, api: str, model: str, stream: bool
) -> None:
    agent = begin(api, model, stream)
    for number, task in enumerate(PLAN):
        agent.run(f"{number} {api} {model} {stream}\n\n{task}")
    assert provider.refused() == []
    assert len(set(agent.ids)) == len(agent.ids) == 5
    assert agent.ids[0].endswith("_abc123")
    assert [h["x-proxy-plugin-collapsed"] for h in agent.headers] == ["0", "0", "0", "1", "1", "2", "2"]
    assert len({h["x-proxy-plugin-session"] for h in agent.headers}) == 1
    before, after = map(int, agent.headers[-1]["x-proxy-plugin-bytes"].split(","))
    assert before > 1.5 * after
    meant = CODECS[api].parse(agent.wire)
    stored = eventually(lambda: _with(proxy, agent.session, len(meant)))
    assert [message.calls for message in CODECS[api].parse(stored)] == [message.calls for message in meant]


def _with(proxy: Proxy, session: str, count: int) -> Any:
    answer = proxy.get(f"/sessions/{session}/history", key="sk-alice").json()
    return answer["messages"] if answer.get("message_count") == count else None


@pytest.mark.parametrize("api", ENDPOINTS)
def test_a_reply_is_the_message_that_comes_again(proxy: Proxy, begin: Any, api: str) -> None:
    """One that was stored under another id than the next request gives it would be a branch of its own."""
    for stream in (False, True):
        agent = begin(api, "gpt", stream)
        agent.run(f"{api} {stream} again\n\n{PLAN[1]}")
        agent.run(PLAN[2])
        eventually(lambda: _with(proxy, agent.session, len(CODECS[api].parse(agent.wire))))  # noqa: B023
        info = proxy.get(f"/sessions/{agent.session}", key="sk-alice").json()
        assert info["branches"] == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", ["gpt", "claude"])
@pytest.mark.parametrize("api", ENDPOINTS)
def test_two_calls_with_one_id_in_one_reply_reach_the_client_with_two(
    provider: FakeProvider, begin: Any, api: str, model: str, stream: bool
) -> None:
    provider.next(one_id)
    agent = begin(api, model, stream)
    agent.run(f'{stream} twice\n\ncall a {{"n": 1}}\ncall b {{"n": 2}}')
    assert len(set(agent.ids)) == 2
    assert provider.refused() == []


def test_a_stream_of_messages_comes_byte_for_byte(proxy: Proxy, provider: FakeProvider) -> None:
    client = httpx.Client(base_url=proxy.root, headers={"authorization": "Bearer sk-alice"}, timeout=30)
    ask = {"model": "claude", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "say"}]}
    reply = Reply(text="é" * 50, reasoning="so", calls=[("toolu_1", "a", '{"x": "é"}')], chunks=9)
    provider.next(reply)
    content = client.post("/v1/messages", json=ask).content
    said = b"".join(_Messages(provider.requests[-1], reply).events())
    first = b"event: content_block_start"  # in front of it LiteLLM writes the name of the model
    assert content[content.index(first) :] == said[said.index(first) :]


def test_a_stream_of_messages_goes_on_while_the_provider_is_still_writing(proxy: Proxy, provider: FakeProvider) -> None:
    gate = provider.hold(event=5)
    client = httpx.Client(base_url=proxy.root, headers={"authorization": "Bearer sk-alice"}, timeout=30)
    ask = {"model": "claude", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "slowly"}]}
    with client.stream("POST", "/v1/messages", json=ask) as answer:
        text = b""
        for chunk in answer.iter_raw():
            text += chunk
            if b"text_delta" in text and not gate.is_open:
                gate.release()
    assert text.endswith(b"\n\n") and b"message_stop" in text


@pytest.mark.parametrize("api", ENDPOINTS)
def test_a_reply_that_the_client_left_is_stored(proxy: Proxy, provider: FakeProvider, api: str) -> None:
    gate = provider.hold(event={"messages": 4, "responses": 6}[api])  # behind the first piece of the text
    asked = [{"role": "user", "content": "tell me a long story"}]
    ask = {
        "messages": {"messages": asked, "max_tokens": 9, "model": "claude"},
        "responses": {"input": asked, "model": "gpt"},
    }
    headers = {"authorization": "Bearer sk-alice", "x-litellm-session-id": f"left-{api}"}
    client = httpx.Client(base_url=proxy.root, headers=headers, timeout=30)
    with client.stream("POST", f"/v1/{api}", json={**ask[api], "stream": True}) as answer:
        text = b""
        for chunk in answer.iter_raw():
            text += chunk
            if b"I have" in text:
                break
    gate.release()
    stored = eventually(lambda: _with(proxy, f"left-{api}", 2))
    message = CODECS[api].parse(stored)[-1]
    assert message.role == "assistant" and message.content.startswith("I have")


@pytest.mark.parametrize("api", ENDPOINTS)
def test_a_text_as_the_whole_input_passes_as_it_came(provider: FakeProvider, begin: Any, api: str) -> None:
    agent = begin(api, "gpt", False)
    agent.run(f"plain {api}")
    if api == "responses":
        answer = agent.client.responses.create(model="gpt", input="only a text")
        assert provider.requests[-1].parsed["input"] == "only a text"
        assert answer.output_text


def test_a_response_that_goes_on_from_a_stored_one_keeps_its_ids(provider: FakeProvider, alice: openai.OpenAI) -> None:
    tools = [{"type": "function", "strict": False, **tool["function"]} for tool in TOOLS]
    first = alice.responses.create(model="gpt", input=PLAN[1], tools=tools)  # type: ignore[call-overload]
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": rows("refund", "{}")}
    second = alice.responses.create(  # type: ignore[call-overload]
        model="gpt", input=[result], tools=tools, previous_response_id=first.id
    )
    assert second.output_text and provider.refused() == []
    assert provider.requests[-1].parsed["input"] == [result]


@pytest.mark.parametrize("endpoint", ["chat/completions", "messages"])
def test_breakpoints_of_kept_messages_stay_and_one_of_a_collapsed_round_moves(
    proxy: Proxy, provider: FakeProvider, endpoint: str
) -> None:
    """Four are all that the provider takes."""
    mark = {"cache_control": {"type": "ephemeral"}}
    found = rows("find", "{}")
    if endpoint == "messages":
        use: Item = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {}}
        asks: Item = {"role": "assistant", "content": [{**use, **mark}]}
        answer: Item = {"type": "tool_result", "tool_use_id": "toolu_1", "content": found, **mark}
        gives: Item = {"role": "user", "content": [answer]}
    else:
        call = {"id": "toolu_1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        asks = {"role": "assistant", "content": None, "tool_calls": [{**call, **mark}]}
        gives = {"role": "tool", "tool_call_id": "toolu_1", "content": found, **mark}
    history = [
        {"role": "user", "content": [{"type": "text", "text": f"q of {endpoint}", **mark}]},
        asks,
        gives,
        {"role": "assistant", "content": [{"type": "text", "text": "done"}]},
        {"role": "user", "content": [{"type": "text", "text": "and now?", **mark}]},
    ]
    tools: list[Any] = [TOOLS[5]] if endpoint != "messages" else [{"name": "find", "input_schema": {"type": "object"}}]
    ask = {"model": "claude", "max_tokens": 9, "messages": history, "tools": tools}
    headers = {"authorization": "Bearer sk-alice"}
    assert httpx.post(f"{proxy.base_url}/{endpoint}", json=ask, headers=headers, timeout=30).status_code == 200
    opening, _, last = provider.requests[-1].messages
    assert [block.get("cache_control") for block in opening["content"]] == [mark["cache_control"]] * 2
    assert last["content"][0]["cache_control"] == mark["cache_control"]


def test_tokens_are_counted_of_the_history_that_is_sent(provider: FakeProvider, begin: Any) -> None:
    agent = begin("messages", "claude", False)
    for task in PLAN:
        agent.run(f"count\n\n{task}")
    sent = provider.requests[-1].messages
    history = agent.wire[:-1]
    counts = [
        agent.client.messages.count_tokens(model="claude", messages=history, extra_headers=headers).input_tokens
        for headers in ({}, {"x-proxy-plugin": "off"})
    ]
    assert 0 < 1.3 * counts[0] < counts[1]
    counted = [request.messages for request in provider.requests if request.path.endswith("/count_tokens")]
    assert counted in ([sent, history], [])  # older LiteLLMs count by themselves
    assert sent != history


def test_a_session_that_changes_its_endpoint_is_one_session(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, begin: Any
) -> None:
    """Chat completions, then Messages, then Responses: one id, one path. What a client of another endpoint sends
    is its own rendering of the same conversation."""
    sent = {"x-session-id": "one-of-three"}
    chat = Agent(alice, extra_headers=sent)
    chat.run(PLAN[1])
    first, asks, answer, done = chat.messages
    (call,) = asks["tool_calls"]
    name, arguments = call["function"]["name"], call["function"]["arguments"]

    claude = begin("messages", "claude", True, extra_headers=sent)
    claude.wire = [
        {"role": "user", "content": [{"type": "text", "text": first["content"]}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": call["id"], "name": name, "input": json.loads(arguments)}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": answer["content"]}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": done["content"]}]},
    ]
    claude.run(PLAN[2])
    (block,) = claude.wire[-3]["content"]

    codex = begin("responses", "gpt", False, extra_headers=sent)
    codex.wire = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": first["content"]}]},
        {"type": "function_call", "call_id": call["id"], "name": name, "arguments": arguments},
        {"type": "function_call_output", "call_id": call["id"], "output": answer["content"]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": done["content"]}]},
        {"role": "user", "content": PLAN[2]},
        {
            "type": "function_call",
            "call_id": block["id"],
            "name": block["name"],
            "arguments": json.dumps(block["input"], separators=(",", ":")),
        },
        {"type": "function_call_output", "call_id": block["id"], "output": rows(block["name"], '{"order": 3}')},
        {"role": "assistant", "content": claude.wire[-1]["content"][0]["text"]},
    ]
    codex.run(f"again\n\n{PLAN[1]}")

    assert provider.refused() == []
    assert {agent.session for agent in (chat, claude, codex)} == {"one-of-three"}
    collapsed = [agent.headers[-1]["x-proxy-plugin-collapsed"] for agent in (chat, claude, codex)]
    assert collapsed == ["0", "1", "2"]
    wires = {"chat": chat.messages, "messages": claude.wire, "responses": codex.wire}
    paths = [_node_ids(form, wire) for form, wire in wires.items()]
    assert [path == paths[-1][: len(path)] for path in paths] == [True, True, True]
    eventually(lambda: _with(proxy, "one-of-three", len(paths[-1])))
    assert proxy.get("/sessions/one-of-three", key="sk-alice").json()["branches"] == 1
    for node in paths[-1]:
        assert proxy.get(f"/sessions/one-of-three/nodes/{node[:12]}", key="sk-alice").json()["id"] == node
    for form in CODECS:
        history = proxy.get("/sessions/one-of-three/history", key="sk-alice", format=form).json()
        assert history["format"] == form
        assert _node_ids(form, history["messages"]) == paths[-1]


def _node_ids(form: str, wire: list[Item]) -> list[str]:
    ids = [ROOT]
    for message in CODECS[form].parse(wire):
        ids.append(node_id(ids[-1], message))
    return ids[1:]
