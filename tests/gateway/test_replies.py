"""Replies of the three endpoints, as LiteLLM hands them over: ids renamed, the message collected, no byte lost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import anthropic
import httpx
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from proxy_plugin.gateway.replies import Names, Reply, streamed_reply, take_reply
from proxy_plugin.history.dialects import IdRule
from proxy_plugin.history.model import meaning
from proxy_plugin.history.repair import Ids
from proxy_plugin.history.wire import CODECS
from tests import fake_provider
from tests.fake_provider import Request


def beside(*held: str, items: Sequence[str] = ()) -> Names:
    """The names that are free on a path that holds these calls and items."""
    ids = Ids(IdRule())
    for call_id in held:
        ids.assign(call_id)
    return Names.beside(ids, [{"id": item_id} for item_id in items])


def means(api: str, items: Sequence[Any]) -> list[bytes]:
    return [meaning(message) for message in CODECS[api].parse(items)]


def wire_of(api: str, reply: fake_provider.Reply) -> Any:
    """A reply of the fake provider in the wire form of an endpoint."""
    return fake_provider._WIRES[api](Request("/", {}, b"", {"stream": True}, api, 1, "openai"), reply)


class Thing(BaseModel):
    """An object as LiteLLM's are: attributes, unknown ones too, and a dump."""

    model_config = ConfigDict(extra="allow")


def thing(value: Any) -> Any:
    """With objects for the dicts that LiteLLM makes objects of."""
    if isinstance(value, list):
        return [thing(inner) for inner in value]
    return Thing(**{key: thing(inner) for key, inner in value.items()}) if isinstance(value, dict) else value


# /v1/messages, streamed

ids = st.sampled_from(["toolu_abc", 'toolu_é"\\', "toolu_" + "x" * 70, "ids", "a"])
texts = st.text(max_size=12) | st.sampled_from(
    ['{"id": "toolu_abc"}', 'data: {"type":"content_block_start"}\n\n', "é😀"]
)
values = st.recursive(texts | st.integers(-9, 9) | st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=3)
inputs = st.dictionaries(texts | st.just("id"), values, max_size=3)


def pieces(text: str, count: int) -> list[str]:
    return fake_provider._split(text, count) if text else []


@st.composite
def blocks(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """A block as it opens, its deltas, and what they make."""
    kind, count = (
        draw(st.sampled_from(["text", "thinking", "tool_use", "server_tool_use", "web_search_tool_result"])),
        draw(st.integers(1, 3)),
    )
    if kind == "text":
        text = draw(texts)
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(text, count)]
        return {"type": "text", "text": ""}, deltas, {"type": "text", "text": text}
    if kind == "thinking":
        text = draw(texts)
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(text, count)]
        whole = {"type": "thinking", "thinking": text, "signature": "c2ln"}
        signed = {"type": "signature_delta", "signature": "c2ln"}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed], whole
    if kind == "web_search_tool_result":
        found = {
            "type": kind,
            "tool_use_id": "srvtoolu_1",
            "content": [{"type": "web_search_result", "title": draw(texts)}],
        }
        return found, [], found
    caller = draw(st.sampled_from([{}, {"caller": {"id": "toolu_abc"}}]))  # another id in front
    value, opened = draw(inputs), {"type": kind, **caller, "id": draw(ids), "name": draw(texts), "input": {}}
    said = json.dumps(value, ensure_ascii=draw(st.booleans()))
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(said, count)] if value else []
    return opened, deltas, {**opened, "input": value}


class Written(NamedTuple):
    """One event as it stands in a stream: `call` is the id of the call that it opens, if it opens one."""

    event: dict[str, Any]
    before: bytes
    call: str | None = None
    literal: bytes = b""
    after: bytes = b""

    def __bytes__(self) -> bytes:
        return self.before + self.literal + self.after

    def named(self, new: str | None) -> bytes:
        """With another id and nothing else."""
        return bytes(self) if new == self.call else self.before + orjson.dumps(new) + self.after


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Written], list[dict[str, Any]]]:
    """The events of a stream, in one of the ways to write them, and the blocks that they make."""
    end, space = draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.sampled_from(["", " ", "  "]))
    named, compact, escaped, reordered = [draw(st.booleans()) for _ in range(4)]
    made = draw(st.lists(blocks(), max_size=4))
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "content": []}},
        {"type": "ping"},
    ]
    for index, (opened, deltas, _) in enumerate(made):
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=escaped, separators=(",", ":") if compact else None)

    def write(event: dict[str, Any]) -> Written:
        block, call = event.get("content_block", {}), None
        if block.get("type") == "tool_use":
            call, block = block["id"], {**block, "id": "@here@"}
        shown = {**event, "content_block": block} if block else event
        if reordered:
            shown = {name: shown[name] for name in sorted(shown, reverse=draw(st.booleans()))}
            if block:
                shown["content_block"] = {name: block[name] for name in sorted(block, reverse=draw(st.booleans()))}
        name = f"event:{space}{event['type']}{end}" if named else ""
        before, mark, after = f"{name}data:{space}{text(shown)}{end}{end}".partition('"@here@"')
        return Written(event, before.encode(), call, text(call).encode() if mark else b"", after.encode())

    return [write(event) for event in events], [whole for _, _, whole in made]


def cuts(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, size), max_size=8).map(sorted) | st.just(list(range(size)))  # or byte by byte


@given(streams(), st.lists(ids, unique=True), st.data())
def test_a_split_stream_comes_out_as_it_came_but_for_the_ids(
    stream: tuple[list[Written], list[dict[str, Any]]], held: list[str], data: st.DataObject
) -> None:
    events, made = stream
    names, renamed = beside(*held), {}
    for number, written in enumerate(events):
        if written.call is not None:
            renamed[number] = names.call(written.call)
    assert len({*renamed.values(), *held}) == len(renamed) + len(held)
    came = b"".join(map(bytes, events))
    expected = b"".join(written.named(renamed.get(number)) for number, written in enumerate(events))

    reply = streamed_reply("messages", beside(*held))
    at = data.draw(cuts(len(came)))
    out = b""
    for begin, end in zip([0, *at], [*at, len(came)], strict=True):
        out += b"".join(reply.see(came[begin:end]))
    assert out == expected and reply.rest() == ()
    new = iter(renamed.values())
    wanted = [{**block, "id": next(new)} if block["type"] == "tool_use" else block for block in made]
    assert reply.reply() == Reply([{"role": "assistant", "content": wanted}], True)


@given(streams(), st.data())
def test_what_cannot_be_a_call_goes_on_at_once(
    stream: tuple[list[Written], list[dict[str, Any]]], data: st.DataObject
) -> None:
    reply, sent, came = streamed_reply("messages", Names()), 0, 0
    for written in stream[0]:
        line_start = 0
        for position, byte in enumerate(bytes(written), 1):
            sent += len(b"".join(reply.see(bytes([byte]))))
            came += 1
            line = bytes(written)[line_start:position]
            held = came - sent
            if byte in b"\r\n":
                assert held == 0
                line_start = position
                continue
            assert held in (0, len(line))
            named = bytes(written).startswith(b"event:")
            if named and written.event["type"] != "content_block_start":
                assert held == 0
            said_type = re.match(rb'data: *\{"type": ?"(\w+)"', line)
            if said_type and said_type[1] != b"content_block_start":
                assert held == 0
            said_block = re.search(
                rb'^data: *\{"type": ?"\w+", ?"index": ?\d, ?"content_block": ?\{"type": ?"(\w+)"', line
            )
            if said_block and said_block[1] != b"tool_use":
                assert held == 0
            if not b"data:".startswith(line[:5]):
                assert held == 0


CALLS = [("toolu_a", "find", '{"q": "é"}'), ("toolu_a", "find", '{"q": 2}')]
BOTH = fake_provider.Reply(text="Let me see.", reasoning="I think so", calls=CALLS)


def test_a_whole_message_is_renamed_in_place() -> None:
    for made in (wire_of("messages", BOTH).whole(), thing(wire_of("messages", BOTH).whole())):
        reply = take_reply("messages", made, beside("toolu_a"))
        seen = orjson.loads(orjson.dumps(made, default=lambda value: value.model_dump()))
        first, second = [block["id"] for block in seen["content"] if block["type"] == "tool_use"]
        assert len({"toolu_a", first, second}) == 3
        assert reply == Reply([{"role": "assistant", "content": seen["content"]}], True)
    assert take_reply("messages", {"type": "error", "error": {}}, Names()) is None


def test_a_turn_that_pauses_is_not_over() -> None:
    assert take_reply("messages", {"content": [], "stop_reason": "pause_turn"}, Names()) == Reply(
        [{"role": "assistant", "content": []}], False
    )


@pytest.mark.parametrize("kind", ["text", "events"])
def test_a_stream_of_messages_may_come_as_text_or_as_events(kind: str) -> None:
    raw = list(wire_of("messages", BOTH).events())
    expected = streamed_reply("messages", beside("toolu_a"))
    as_bytes = b"".join(b"".join(expected.see(event)) for event in raw)
    reply = streamed_reply("messages", beside("toolu_a"))
    if kind == "text":
        assert "".join("".join(reply.see(event.decode())) for event in raw) == as_bytes.decode()
    else:
        assert [out for event in data_of(b"".join(raw)) for out in reply.see(event)] == data_of(as_bytes)
    assert reply.reply() == expected.reply()


def data_of(stream: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line[5:]) for line in stream.splitlines() if line.startswith(b"data: {")]


def test_a_message_that_breaks_off_is_incomplete_and_loses_no_byte() -> None:
    whole = b"".join(wire_of("messages", BOTH).events())
    at = whole.index(b"toolu_a", whole.index(b"toolu_a") + 1)  # inside the id of the second call
    reply = streamed_reply("messages", Names())
    out = b"".join(reply.see(whole[:at]))
    assert out + b"".join(reply.rest()) == whole[:at] and reply.rest() == ()
    collected = reply.reply()
    assert collected is not None and not collected.complete
    assert [block["type"] for block in collected.items[0]["content"]] == ["thinking", "text", "tool_use"]
    assert streamed_reply("messages", Names()).reply() is None


def test_after_an_error_a_stream_of_messages_goes_on_as_it_came() -> None:
    def broken(_: str) -> str:
        raise RuntimeError("no name")

    whole = b"".join(wire_of("messages", BOTH).events())
    for size in (1, 7, 400, len(whole)):
        reply, out, failed = streamed_reply("messages", Names(call=broken)), b"", 0
        for chunk in (whole[at : at + size] for at in range(0, len(whole), size)):
            try:
                out += b"".join(reply.see(chunk))
            except RuntimeError:
                failed += 1
                out += b"".join((*reply.rest(), chunk))
        assert out + b"".join(reply.rest()) == whole
        assert failed == 1 and reply.reply() is None


# /v1/chat/completions


def test_chat_is_renamed_and_collected() -> None:
    made = thing(wire_of("chat", BOTH).whole())
    reply = take_reply("chat", made, beside("toolu_a"))
    first, second = [call.id for call in made.choices[0].message.tool_calls]
    assert len({"toolu_a", first, second}) == 3
    assert reply is not None and [call["id"] for call in reply.items[0]["tool_calls"]] == [first, second]

    streamed = streamed_reply("chat", beside("toolu_a"))
    chunks = [_chunk(data) for data in data_of(b"".join(wire_of("chat", BOTH).events()))]
    assert [out for chunk in chunks for out in streamed.see(chunk)] == chunks
    collected = streamed.reply()
    assert collected is not None and collected.complete
    assert means("chat", collected.items) == means("chat", reply.items)


def _chunk(data: dict[str, Any]) -> Any:
    for choice in data["choices"]:
        for call in choice["delta"].get("tool_calls", ()):
            call.setdefault("id", None)
            call["function"].setdefault("name", None)
            call["function"].setdefault("arguments", None)
    return thing(data)


# /v1/responses


def events_of(reply: fake_provider.Reply) -> list[Any]:
    return [thing(data) for data in data_of(b"".join(wire_of("responses", reply).events()))]


call_ids = st.sampled_from(["call_a", "call_b", "fc_a"])
replies = st.builds(
    fake_provider.Reply,
    text=st.text(max_size=9),
    reasoning=st.none() | st.text(max_size=9),
    calls=st.lists(st.tuples(call_ids, st.sampled_from(["f", "g"]), st.sampled_from(["{}", '{"n": 1}'])), max_size=4),
)


@given(replies, st.lists(call_ids, unique=True), st.lists(st.sampled_from(["fc_a", "fc_b"]), unique=True))
def test_every_event_of_a_response_says_the_same_ids(
    reply: fake_provider.Reply, held: list[str], items: list[str]
) -> None:
    whole, streamed = wire_of("responses", reply).whole(), streamed_reply("responses", beside(*held, items=items))
    events = events_of(reply)
    for event in events:
        assert streamed.see(event) == (event,)
    taken = take_reply("responses", thing(whole), beside(*held, items=items))
    collected = streamed.reply()
    assert collected == (taken or collected)
    if taken is None:
        assert whole["output"] == []
        return
    output = [item.model_dump() for item in events[-1].response.output]
    assert output == collected.items and collected.complete

    by_index: dict[int, set[str]] = {}
    for event in events:
        if hasattr(event, "output_index"):
            by_index.setdefault(event.output_index, set()).add(
                event.item.id if hasattr(event, "item") else event.item_id
            )
    assert by_index == {index: {item["id"]} for index, item in enumerate(output)}
    calls = [item for item in output if item["type"] == "function_call"]
    assert len({*held, *(call["call_id"] for call in calls)}) == len(held) + len(calls)
    assert len({*items, *(call["id"] for call in calls)}) == len(items) + len(calls)
    before = [item for item in whole["output"] if item["type"] == "function_call"]
    unchanged = [{**now, "id": old["id"], "call_id": old["call_id"]} for now, old in zip(calls, before, strict=True)]
    assert unchanged == before
    seen = [
        event.item.call_id
        for event in events
        if event.type == "response.output_item.done" and "call_id" in event.item.model_dump()
    ]
    assert seen == [call["call_id"] for call in calls]


def test_ids_that_are_free_stay() -> None:
    events = events_of(BOTH)[:1] + events_of(fake_provider.Reply(text="a", calls=[("call_a", "f", "{}")]))
    before = [event.model_dump() for event in events]
    streamed = streamed_reply("responses", beside("call_b", items=["fc_b", "msg_" + "0" * 31 + "1"]))
    assert [out.model_dump() for event in events for out in streamed.see(event)] == before


def test_two_calls_that_litellm_makes_one_of_come_out_as_two() -> None:
    """As LiteLLM streams them when the deployment is Claude's: one place, opened once, ended twice."""
    place = {"output_index": 2, "item_id": "fc_a"}
    item = {"type": "function_call", "id": "fc_a", "call_id": "a", "name": "find"}
    first, second = {**item, "arguments": '{"q":1}'}, {**item, "arguments": '{"q":2}'}
    events = [
        {"type": "response.output_item.added", "output_index": 2, "item": {**item, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", **place, "delta": '{"q":1}'},
        {"type": "response.function_call_arguments.delta", **place, "delta": '{"q":2}'},
        {"type": "response.function_call_arguments.done", **place, "arguments": '{"q":1}'},
        {"type": "response.output_item.done", "output_index": 2, "item": first},
        {"type": "response.function_call_arguments.done", **place, "arguments": '{"q":2}'},
        {"type": "response.output_item.done", "output_index": 2, "item": second},
        {"type": "response.completed", "response": {"status": "completed", "output": [first, second]}},
    ]
    things = [thing(event) for event in events]
    streamed = streamed_reply("responses", beside("a"))
    for event in things:
        streamed.see(event)
    output = things[-1].response.output
    assert len({"a", output[0].call_id, output[1].call_id}) == 3
    assert [things[4].item.call_id, things[6].item.call_id] == [call.call_id for call in output]
    assert (
        [things[3].item_id, things[5].item_id] == [call.id for call in output] == [things[4].item.id, things[6].item.id]
    )


def test_what_a_tool_of_the_provider_gave_stays_with_its_call() -> None:
    output = [
        {"type": "shell_call", "id": "sh_1", "call_id": "a", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "id": "sho_1", "call_id": "a", "output": []},
    ]
    made = thing({"status": "completed", "output": output})
    take_reply("responses", made, beside("a"))
    assert made.output[0].call_id == made.output[1].call_id != "a"


def test_items_that_litellm_opens_later_keep_their_ids() -> None:
    item = {"type": "function_call", "id": "encitem_abc", "call_id": "a", "name": "f", "arguments": "{}"}
    made = thing({"status": "completed", "output": [item, item]})
    take_reply("responses", made, beside(items=["encitem_abc"]))
    assert [call.id for call in made.output] == ["encitem_abc"] * 2


def test_a_response_that_breaks_off_holds_what_came() -> None:
    streamed = streamed_reply("responses", Names())
    for event in events_of(BOTH):
        if event.type == "response.function_call_arguments.done":
            break
        streamed.see(event)
    collected = streamed.reply()
    assert collected is not None and not collected.complete
    thought, text, call = collected.items
    assert (thought["type"], text["content"][0]["text"]) == ("reasoning", "Let me see.")
    assert (call["call_id"], call["arguments"]) == ("toolu_a", '{"q": "é"}')


# The same message when a client sends it again


def answer(stream: bytes, web: Any = httpx) -> Any:
    """A client of `web` (httpx, or what an SDK has in its place) that gets this stream for everything."""
    head = {"content-type": "text/event-stream"}
    return web.Client(transport=web.MockTransport(lambda _: web.Response(200, headers=head, content=stream)))


def test_what_anthropic_python_sends_again_is_the_collected_message() -> None:
    web = import_module(anthropic.DefaultHttpxClient.__base__.__module__.partition(".")[0])
    for said in (BOTH, fake_provider.Reply(text="Done."), fake_provider.Reply(calls=[("toolu_a", "f", "{}")])):
        reply = streamed_reply("messages", beside("toolu_a"))
        stream = b"".join(part for event in wire_of("messages", said).events() for part in reply.see(event))
        client = anthropic.Anthropic(api_key="x", http_client=answer(stream, web))
        ask = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "go"}]}
        with client.messages.stream(**ask) as streamed:
            message = streamed.get_final_message()
        echo = [{"role": "assistant", "content": [block.model_dump() for block in message.content]}]
        collected = reply.reply()
        assert collected is not None and means("messages", echo) == means("messages", collected.items)


def test_what_openai_python_sends_again_are_the_collected_items() -> None:
    for said in (BOTH, fake_provider.Reply(text="Done."), fake_provider.Reply(calls=[("toolu_a", "f", "{}")])):
        reply = streamed_reply("responses", beside("toolu_a", items=["fc_toolu_a"]))
        sent = [part.model_dump() for event in events_of(said) for part in reply.see(event)]
        stream = b"".join(f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode() for data in sent)
        client = openai.OpenAI(api_key="x", http_client=answer(stream))
        with client.responses.stream(model="m", input="go") as streamed:
            output = streamed.get_final_response().output
        collected = reply.reply()
        for echo in ([item.model_dump() for item in output], [item.to_dict() for item in output]):
            assert collected is not None and means("responses", echo) == means("responses", collected.items)
