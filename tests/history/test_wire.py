"""The codecs: lossless, the same meaning in every wire form, and what each form alone asks of an edit."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin import Context, Settings, rewrite_history
from proxy_plugin.history.model import ASSISTANT, OTHER, ROOT, TOOL, USER, Message, node_id
from proxy_plugin.history.path import Memo, Path
from proxy_plugin.history.plan import NO_RESULT, ORPHAN, TURN_CLOSED
from proxy_plugin.history.summary import is_summary
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.convert import convert
from proxy_plugin.settings import Collapse
from tests.history.test_promises import bytes_of, relaxed
from tests.strategies import (
    broken_chats,
    broken_messages,
    broken_responses,
    junk,
    valid_chats,
    valid_messages,
    valid_responses,
)
from tests.validators import judge

Wire = list[dict[str, Any]]
APIS = ("chat", "messages", "responses")
REPAIR_ONLY = Settings(collapse=Collapse(policy="never"))
LONG = json.dumps([{"id": f"ord_{n:04}", "owner": f"user{n}@example.com"} for n in range(60)])

anything_on = {
    "chat": st.one_of(valid_chats(), broken_chats(), junk()),
    "messages": st.one_of(valid_messages(), broken_messages(), junk(), st.deferred(lambda: soups["messages"])),
    "responses": st.one_of(valid_responses(), broken_responses(), junk(), st.deferred(lambda: soups["responses"])),
}


def path_ids(messages: list[Message]) -> list[str]:
    ids, parent = [], ROOT
    for message in messages:
        parent = node_id(parent, message)
        ids.append(parent)
    return ids


# What lists are made of


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def says(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def use(call_id: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "find", "input": {"q": "x"}, **more}


def result(call_id: str, content: Any = "ok", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def served(call_id: str) -> list[dict[str, Any]]:
    return [
        {"type": "server_tool_use", "id": call_id, "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": call_id, "content": []},
    ]


CACHE = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


def item(role: str, value: str, **more: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": value}], **more}


def call(call_id: str, **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "find", "arguments": "{}", **more}


def output(call_id: str, value: Any = "ok", **more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": value, **more}


def reasoning(number: int) -> dict[str, Any]:
    return {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "ZW5j"}


SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}


# Lists out of everything that a form has, in any order

_ids = st.sampled_from(["a", "b", "c"])
_served_ids = st.sampled_from(["srvtoolu_1", "srvtoolu_2"])
_text = st.sampled_from(["one", "two", "x" * 400]).map(text)
_server_use = st.builds(lambda i: served(i)[0], _served_ids)
_server_result = st.builds(lambda i: served(i)[1], _served_ids)
_odd = st.just({"type": "from_the_future", "x": [1, None]})
_said = st.lists(st.one_of(_text, st.just(THOUGHT), _ids.map(use), _server_use, _server_result, _odd), max_size=5)
_given = st.lists(st.one_of(_text, _ids.map(lambda i: result(i, LONG)), _odd), min_size=1, max_size=4)
_turns = st.one_of(
    _given.map(lambda blocks: user(*blocks)),
    st.sampled_from(["q", "go on"]).map(user),
    _said.map(lambda blocks: {"role": "assistant", "content": [*blocks, text("end")]}),
    st.just(says("done")),
)
_items = st.one_of(
    st.integers(1, 99).map(reasoning),
    st.just(SEARCH),
    st.sampled_from([call("a"), call("b"), output("a", LONG), output("b", LONG)]),
    st.sampled_from(
        [
            {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": LONG},
            {"type": "function_call_output", "output": "lost"},
        ]
    ),
    st.sampled_from(["q", "go on"]).map(lambda value: item("user", value)),
    st.just(item("assistant", "done")),
    st.sampled_from(["msg_1", "msg_2", "rs_100", "fc_7", "odd"]).map(lambda i: {"type": "item_reference", "id": i}),
    st.sampled_from(
        [
            {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f"},
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
            {"type": "from_the_future", "x": 1},
        ]
    ),
)
soups = {
    "messages": st.lists(_turns, min_size=1, max_size=10),
    "responses": st.lists(_items, min_size=1, max_size=14),
}
others = st.sampled_from(["messages", "responses"])
some_providers = st.sampled_from(["openai", "deepseek", "anthropic", "mistral", "hosted_vllm"])


@relaxed
@given(st.data(), others, some_providers)
def test_any_mixture_leaves_valid(data: st.DataObject, api: str, provider: str) -> None:
    wire = data.draw(soups[api])
    out = rewrite_history(wire, api=api, provider=provider)
    assert out.limited == "", out.error
    hidden = any(i.get("type") == "item_reference" for i in wire)  # what it stands for, and so where outputs belong
    for fault in judge(out.messages, provider, api):
        assert any("srvtoolu" in i for i in fault.ids) or (hidden and fault.rule == "adjacent")


@relaxed
@given(st.data(), others, some_providers)
def test_no_mixture_is_torn(data: st.DataObject, api: str, provider: str) -> None:
    """What only a form knows stays: server tools, built-in items, references, unknown ones. A referenced text
    or reasoning goes with its round."""
    wire = data.draw(soups[api])
    out = rewrite_history(wire, api=api, provider=provider).messages
    repaired = rewrite_history(wire, api=api, provider=provider, settings=REPAIR_ONLY).messages

    def opaque(items: Any) -> list[Any]:
        if api == "messages":
            blocks = [b for i in items if isinstance(i["content"], list) for b in i["content"]]
            return [b for b in blocks if b["type"] not in ("text", "thinking", "tool_use", "tool_result")]
        others = [i for i in items if not i["type"].startswith(("message", "reasoning", "function_", "custom_"))]
        return [i for i in others if not i.get("id", "").startswith(("msg_", "rs_"))]

    assert opaque(out) == opaque(repaired)


@relaxed
@given(st.data(), others, some_providers)
def test_rewriting_a_mixture_again_changes_nothing(data: st.DataObject, api: str, provider: str) -> None:
    once = rewrite_history(data.draw(soups[api]), api=api, provider=provider).messages
    assert bytes_of(rewrite_history(once, api=api, provider=provider).messages) == bytes_of(once)


@relaxed
@given(st.data(), others, some_providers)
def test_a_memo_changes_no_answer_whatever_comes_next(data: st.DataObject, api: str, provider: str) -> None:
    memo: dict[str, Any] = {}
    wire: Wire = []
    for _ in range(4):
        wire = wire[: data.draw(st.integers(0, len(wire)))] + data.draw(soups[api])
        with_memo = rewrite_history(wire, api=api, provider=provider, memo=memo)
        path = Path(wire, api, Memo.of(memo))
        assert list(path.node_ids) == list(Path(wire, api, None).node_ids)
        assert bytes_of(with_memo.messages) == bytes_of(rewrite_history(wire, api=api, provider=provider).messages)


# Lossless


@relaxed
@given(st.data(), st.sampled_from(APIS))
def test_the_plan_of_all_messages_gives_the_very_same_objects(data: st.DataObject, api: str) -> None:
    wire = data.draw(anything_on[api])
    if not isinstance(wire, list) or not all(isinstance(item, dict) for item in wire):
        return
    codec = CODECS[api]
    messages = codec.parse(wire)
    out = codec.render(wire, messages, list(range(len(messages))))
    assert [id(item) for item in out] == [id(item) for item in wire]


@relaxed
@given(st.data(), st.sampled_from(APIS))
def test_a_list_is_rebuilt_byte_for_byte_from_its_fragments(data: st.DataObject, api: str) -> None:
    wire = data.draw(anything_on[api])
    try:
        before = orjson.dumps(wire)
    except (TypeError, ValueError, RecursionError):
        return  # no JSON, so that no client can have sent it
    wire = orjson.loads(before)
    if not isinstance(wire, list) or not all(isinstance(item, dict) for item in wire):
        return
    path = Path(wire, api, None)
    fragments = [orjson.loads(path.fragment(index)) for index in range(len(path.messages))]
    assert orjson.dumps(path.codec.join(fragments)) == before


@relaxed
@given(st.data(), st.sampled_from(["messages", "responses"]))
def test_what_is_parsed_from_the_middle_is_what_the_whole_list_says(data: st.DataObject, api: str) -> None:
    wire = data.draw(soups[api])
    path = Path(wire, api, None)
    for index in range(len(path.messages)):
        start = path.wire_start(index)
        if start is not None:
            assert path.codec.parse(wire, start) == path.messages[index:]


# The same meaning


def _plain(messages: list[Message]) -> bool:
    """Whether every form can say it: no participant's name, no calls beside what one form alone has, and no
    reply that another form would read as part of the one before it."""
    pairs = itertools.pairwise(messages)
    mixed = any(m.calls and "item_reference" in str(m.content) for m in messages)
    return (
        not mixed
        and not any(m.name for m in messages)
        and not any(a.role is b.role is ASSISTANT and (a.calls or b.calls) for a, b in pairs)
    )


@relaxed
@given(st.data(), st.sampled_from(APIS), st.sampled_from(APIS))
def test_a_conversation_has_the_same_node_ids_in_every_form(data: st.DataObject, source: str, target: str) -> None:
    valid: Any = {"chat": valid_chats, "messages": valid_messages, "responses": valid_responses}[source]
    messages = CODECS[source].parse(data.draw(valid()))
    if _plain(messages):
        again = CODECS[target].parse(convert(messages, target))
        assert path_ids(again) == path_ids(messages)


PIXEL = base64.b64encode(b"\x89PNG").decode()
SAME: dict[str, Wire] = {
    "chat": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is on these?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PIXEL}", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I look.",
            "refusal": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "read", "arguments": '{"path": "/a",  "n": 1234567890123456789}'},
                },
                {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
        {
            "role": "tool",
            "tool_call_id": "call_2",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Thanks"},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is on these?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PIXEL},
                    "title": "a.pdf",
                    "cache_control": {"type": "ephemeral"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "read", "input": {"n": 1234567890123456789, "path": "/a"}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "x"}]},
                {
                    "type": "tool_result",
                    "tool_use_id": "call_2",
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                },
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Done."}]},
        {"role": "user", "content": "Thanks"},
    ],
    "responses": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is on these?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
                {"type": "input_image", "image_url": "https://example.com/a.png"},
                {"type": "input_file", "file_data": f"data:application/pdf;base64,{PIXEL}", "filename": "a.pdf"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "read",
            "arguments": '{"path":"/a","n":1234567890123456789}',
        },
        {"type": "function_call", "call_id": "call_2", "name": "now", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "call_1", "output": "x"},
        {
            "type": "function_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"role": "assistant", "content": "Done."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Thanks"}]},
    ],
}


@pytest.mark.parametrize("api", ["messages", "responses"])
def test_what_clients_send_means_the_same_in_every_form(api: str) -> None:
    assert path_ids(CODECS[api].parse(SAME[api])) == path_ids(CODECS["chat"].parse(SAME["chat"]))


@pytest.mark.parametrize("change", [{"n": 1234567890123456788}, {"path": "/b"}])
def test_other_arguments_mean_something_else(change: dict[str, Any]) -> None:
    wire = orjson.loads(orjson.dumps(SAME["messages"]))
    before = path_ids(CODECS["messages"].parse(wire))
    wire[1]["content"][2]["input"] |= change
    assert path_ids(CODECS["messages"].parse(wire))[1] != before[1]


@pytest.mark.parametrize("api", APIS)
def test_an_echoed_null_makes_no_other_node(api: str) -> None:
    """Client libraries write the fields that are not set, or leave them out."""
    said = {"type": "from_the_future", "x": {"y": 1, "z": [{"a": None}, None]}}
    again = {"type": "from_the_future", "x": {"y": 1, "z": [{}, None], "more": None}, "also": None}
    wires = [[{**item("user", "q"), "content": [part]}] for part in (said, again)]
    if api == "responses":
        wires += [[said], [again]]
    ids = [path_ids(CODECS[api].parse(wire)) for wire in wires]
    assert ids[0] == ids[1] and ids[2:3] == ids[3:]


def test_a_null_in_an_argument_or_a_place_in_a_list_counts() -> None:
    def of(part: Any, arguments: str) -> list[str]:
        call_ = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
        wire = [{"role": "user", "content": [part]}, {"role": "assistant", "content": None, "tool_calls": [call_]}]
        return path_ids(CODECS["chat"].parse(wire))

    first = of({"type": "odd", "x": [1]}, "{}")
    assert of({"type": "odd", "x": [1, None]}, "{}")[0] != first[0]
    assert of({"type": "odd", "x": [1]}, '{"n": null}') != first


@pytest.mark.parametrize("api", APIS)
def test_a_summary_stands_behind_a_note_that_opens_the_subtask(api: str) -> None:
    """A result of no call, in front of the first round, is a user message by then."""
    lost: Wire = [
        {"role": "user", "content": "q"},
        {"role": "tool", "tool_call_id": "gone", "content": "what was found"},
    ]
    function = {"name": "find", "arguments": "{}"}
    asks = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]}
    done = [{"role": "assistant", "content": "done"}, {"role": "user", "content": "next"}]
    wire = [*lost, asks, {"role": "tool", "tool_call_id": "a", "content": LONG}, *done]
    sent = convert(CODECS["chat"].parse(wire), api)
    result_ = rewrite_history(sent, api=api, provider="anthropic")
    assert result_.report.subtasks_collapsed == result_.report.orphans_moved == 1
    left = json.dumps(result_.messages)
    assert "what was found" in left and "ord_0059" in left and judge(result_.messages, "anthropic", api) == []
    assert rewrite_history(result_.messages, api=api, provider="anthropic").messages is result_.messages


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(KeyError):
        convert([], "completions")


# Anthropic Messages


def claude(wire: Wire, provider: str = "anthropic", **options: Any) -> Wire:
    out = rewrite_history(wire, api="messages", provider=provider, **options).messages
    assert judge(out, provider, "messages") == []
    return list(out)


def test_results_are_tool_messages_and_text_beside_them_is_the_users() -> None:
    wire = [says(use("a"), use("b")), user(result("a"), result("b", is_error=True), text("and?"), text("so?"))]
    messages = CODECS["messages"].parse(wire)
    assert [m.role for m in messages] == [ASSISTANT, TOOL, TOOL, USER]
    assert [m.failed for m in messages] == [False, False, True, False]


def test_a_summary_is_a_block_of_the_message_that_opened_the_subtask() -> None:
    wire = [user("q"), says(THOUGHT, use("a")), user(result("a", LONG)), says(THOUGHT, text("done")), user("next")]
    out = claude(wire)
    assert [m["role"] for m in out] == ["user", "assistant", "user"]
    assert out[0]["content"][0] == text("q")
    assert is_summary(out[0]["content"][1]["text"])
    assert out[1] is wire[3] and out[2] is wire[4]


def test_text_that_the_user_put_beside_results_survives_their_collapse() -> None:
    wire = [user("q"), says(use("a")), user(result("a", LONG), text("be quick", **CACHE)), says("done"), user("next")]
    out = claude(wire)
    assert [m["role"] for m in out] == ["user", "user", "assistant", "user"]
    assert out[1] == user(text("be quick", **CACHE))


@pytest.mark.parametrize(
    "round_",
    [
        [says(use("a", **HOUR)), user(result("a", LONG))],
        [says(use("a")), user(result("a", LONG, **HOUR))],
        [says(use("a")), user(result("a", [text(LONG, **HOUR)]))],
        [says(use("a", **HOUR)), user(result("a", LONG, **CACHE))],
    ],
)
def test_a_breakpoint_inside_collapsed_rounds_moves_to_the_summary(round_: Wire) -> None:
    wire = [user(text("q", **HOUR)), *round_, says(text("done", **CACHE)), user("next")]
    out = claude(wire)
    assert [block.get("cache_control") for block in out[0]["content"]] == [HOUR["cache_control"]] * 2
    assert out[1] is wire[3]


def test_an_orphans_breakpoint_moves_to_its_note() -> None:
    out = claude([user("q"), user(result("gone", "found", **HOUR)), says("ok"), user("next")])
    assert [block.get("cache_control") for block in out[0]["content"]] == [None, HOUR["cache_control"]]


def cached_chat(where: str) -> Wire:
    """A completed subtask on chat completions, with a breakpoint inside its round."""
    call_: dict[str, Any] = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    asks: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call_]}
    answer: dict[str, Any] = {"role": "tool", "tool_call_id": "a", "content": LONG}
    if where == "part":
        answer["content"] = [text(LONG, **HOUR)]
    else:
        {"call": call_, "reply": asks, "result": answer}[where].update(HOUR)
    opening = {"role": "user", "content": "q", **HOUR}
    return [
        opening,
        asks,
        answer,
        {"role": "assistant", "content": "done", **CACHE},
        {"role": "user", "content": "next"},
    ]


@pytest.mark.parametrize("where", ["call", "reply", "result", "part"])
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_breakpoint_inside_collapsed_rounds_of_a_chat_moves_to_the_summary(provider: str, where: str) -> None:
    wire = cached_chat(where)
    out = rewrite_history(wire, provider=provider).messages
    assert rewrite_history(out, provider=provider).messages is out
    if provider == "anthropic":  # a block of the user's message, whose own breakpoint stays with its text
        assert out[0] == {"role": "user", "content": [text("q", **HOUR), text(out[0]["content"][1]["text"], **HOUR)]}
    else:
        assert out[0] is wire[0]
        assert out[1] == {"role": "system", "content": out[1]["content"], **HOUR}
    assert out[-2] is wire[-2] and out[-1] is wire[-1]


@relaxed
@given(st.data(), st.sampled_from(["chat", "messages"]), st.sampled_from(["anthropic", "bedrock", "openai"]))
def test_no_breakpoint_is_added_and_those_of_kept_messages_stay(data: st.DataObject, api: str, provider: str) -> None:
    wire = data.draw(broken_messages(provider) if api == "messages" else broken_chats(provider))
    before, after = (marks(w) for w in (wire, rewrite_history(wire, api=api, provider=provider).messages))
    assert len(after) <= max(len(before), 4) and len(after) <= len(before)
    kept = rewrite_history(wire, api=api, provider=provider, settings=REPAIR_ONLY)
    lost = len(before) - len(marks(kept.messages))
    assert 0 <= lost <= kept.report.orphans_dropped  # what goes takes its own along, and is counted


def marks(value: Any) -> list[Any]:
    """Every breakpoint of a list, wherever it stands."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value["cache_control"]] if isinstance(value, dict) and value.get("cache_control") else []
    return own + [mark for part in inner for mark in marks(part)]


def test_there_is_no_system_role_of_ours() -> None:
    wire = [user("q"), says(use("a")), user(result("a", LONG)), says("done"), user("next")]
    for role in ("auto", "system"):
        for provider in ("openai", "anthropic", "nobody-knows"):
            chosen = Settings(collapse=Collapse(summary_role=role))  # type: ignore[arg-type]
            result_ = rewrite_history(wire, api="messages", provider=provider, settings=chosen)
            assert result_.report.subtasks_collapsed == 1
            assert {m["role"] for m in result_.messages} == {"user", "assistant"}


def test_a_system_message_of_the_client_stays_where_it_is() -> None:
    note = {"role": "system", "content": "be brief"}
    wire = [user("q"), note, says(use("a")), user(result("a", LONG)), says("done"), user("next")]
    out = rewrite_history(wire, api="messages", provider="anthropic").messages
    assert out[1] is note and out[2] is wire[4]


def test_a_missing_result_goes_in_front_of_the_next_user_message() -> None:
    wire = [user("q"), says(use("a"), use("b")), user(text("stop")), says("ok"), user("next")]
    out = claude(wire, settings=REPAIR_ONLY)
    assert out[2] == user(result("a", NO_RESULT), result("b", NO_RESULT), text("stop"))


def test_a_missing_result_stands_behind_the_one_that_is_there() -> None:
    out = claude([user("q"), says(use("a"), use("b")), user(result("a"), text("go on"))])
    assert out[2] == user(result("a"), result("b", NO_RESULT), text("go on"))


def test_a_missing_result_at_the_end_is_a_user_message_of_its_own() -> None:
    wire = [user("q"), says(use("a"))]
    assert claude(wire) == [*wire, user(result("a", NO_RESULT))]


def test_results_behind_text_come_first() -> None:
    out = claude([user("q"), says(use("a"), use("b")), user(text("here"), result("b"), result("a"))])
    assert out[2] == user(result("b"), result("a"), text("here"))


@pytest.mark.parametrize(
    "turn",
    [
        [says(use("a"), use("b")), user(result("a")), user(result("b"), text("go on"))],
        [says(use("a")), says(use("b")), user(result("a"), result("b"))],
        [says(use("a")), says("and now"), user(result("a"))],
    ],
)
def test_one_turn_in_several_messages_is_legal_and_stays(turn: Wire) -> None:
    wire = [user("q"), *turn]
    assert judge(wire, "anthropic", "messages") == []
    assert rewrite_history(wire, api="messages", provider="anthropic").messages is wire


def test_a_turn_in_several_messages_collapses_whole() -> None:
    wire = [user("q"), says(use("a")), says(use("b")), user(result("a", LONG)), user(result("b", LONG)), says("done")]
    out = claude([*wire, user("next")])
    assert [m["role"] for m in out] == ["user", "assistant", "user"]


def test_an_orphan_becomes_a_text_block() -> None:
    out = claude([user("q"), says("a"), user(result("gone", "21 degrees"), text("go on"))])
    assert out[2] == user(text(f"{ORPHAN} (gone):\n21 degrees"), text("go on"))


def test_an_orphans_note_does_not_hang_on_what_follows() -> None:
    wire = [user(result("gone", "same")), says("a"), user("q"), says(use("a")), user(result("a", "same"))]
    assert claude(wire)[0] == claude(wire[:1])[0] == user(text(f"{ORPHAN} (gone):\nsame"))


def test_an_orphan_with_an_image_keeps_it() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    out = claude([user("q"), says("a"), user(result("gone", [image]))])
    assert out[2]["content"][1] == image


def test_a_reused_id_is_renamed_with_its_own_result_and_thinking_stays() -> None:
    wire = [user("q")]
    for number in "12":
        wire += [says(THOUGHT, use("a", **CACHE)), user(result("a", number, **CACHE), text("!"))]
    out = claude(wire)
    new = out[3]["content"][1]["id"]
    assert new != "a"
    assert out[:3] == wire[:3]
    assert out[3] == says(THOUGHT, use(new, **CACHE))
    assert out[4] == user(result(new, "2", **CACHE), text("!"))


def test_server_tools_in_front_of_a_call_outlive_the_round() -> None:
    mixed = says(THOUGHT, text("I search."), *served("srvtoolu_1"), text("Now I look."), use("a"))
    out = claude([user("q"), mixed, user(result("a", LONG)), says("done"), user("next")])
    assert is_summary(out[0]["content"][-1]["text"])
    assert out[1] == says(THOUGHT, text("I search."), *served("srvtoolu_1"))


@pytest.mark.parametrize(
    "mixed",
    [
        says(use("a"), *served("srvtoolu_1")),
        says(served("srvtoolu_1")[0], use("a")),
    ],
)
def test_a_round_with_half_a_pair_or_a_server_tool_among_its_calls_stays(mixed: dict[str, Any]) -> None:
    wire = [user("q"), mixed, user(result("a", LONG)), says(served("srvtoolu_1")[1], text("done")), user("next")]
    assert rewrite_history(wire, api="messages", provider="anthropic").messages is wire


def test_a_server_tool_id_that_is_there_already_is_renamed_with_its_result() -> None:
    wire = [user("q"), says(*served("srvtoolu_1"), text("one")), user("q"), says(*served("srvtoolu_1"), text("two"))]
    out = claude([*wire, user("next")])
    assert out[1] is wire[1]
    call, answer, said = out[3]["content"]
    assert call["id"] == answer["tool_use_id"] != "srvtoolu_1"
    assert said == text("two")


def test_mistral_gets_its_closed_turn_between_results_and_text() -> None:
    wire = [user("q"), says(use("D681PevKs")), user(text("something else"))]
    out = claude(wire, "mistral")
    assert [m["role"] for m in out] == ["user", "assistant", "user", "assistant", "user"]
    assert out[3] == says(text(TURN_CLOSED))


def test_empty_content_of_the_client_gets_nothing_added() -> None:
    wire = [user("q"), says(use("a")), {"role": "user", "content": ""}]
    assert rewrite_history(wire, api="messages", provider="anthropic").messages == [
        *wire[:2],
        user(result("a", NO_RESULT)),
        wire[2],
    ]


def test_unknown_blocks_and_keys_survive_in_their_place() -> None:
    odd = {"type": "from_the_future", "x": [1, None]}
    wire = [user("q"), {**says(use("a")), "extra": 1}, user(result("a")), {**says(use("a")), "extra": 1}]
    wire += [{**user(result("a"), odd), "extra": 2}]
    out = claude(wire)
    assert out[3]["extra"] == 1 and out[4]["extra"] == 2
    assert out[4]["content"][1] is odd


# OpenAI Responses


def openai(wire: Wire, provider: str = "openai", **options: Any) -> Wire:
    out = rewrite_history(wire, api="responses", provider=provider, **options).messages
    assert judge(out, provider, "responses") == []
    return list(out)


def test_items_of_the_model_form_messages_as_chat_has_them() -> None:
    wire = [item("user", "q"), reasoning(1), item("assistant", "I look."), call("a"), call("b")]
    wire += [output("a"), output("b"), reasoning(2), SEARCH, reasoning(3), item("assistant", "done")]
    messages = CODECS["responses"].parse(wire)
    assert [(m.role, len(m.calls)) for m in messages] == [
        (USER, 0),
        (ASSISTANT, 2),
        (TOOL, 0),
        (TOOL, 0),
        (ASSISTANT, 0),
    ]


def test_a_summary_is_a_system_message_in_the_place_of_the_first_round() -> None:
    wire = [item("developer", "d"), item("user", "q"), reasoning(1), call("a"), output("a", LONG)]
    wire += [reasoning(2), item("assistant", "done"), item("user", "next")]
    out = openai(wire)
    assert out[:2] == wire[:2] and out[3:] == wire[5:]
    assert out[2]["role"] == "system" and is_summary(out[2]["content"][0]["text"])


def test_a_summary_is_text_of_the_user_for_a_target_that_moves_system_messages() -> None:
    wire = [{"role": "user", "content": "q"}, call("a"), output("a", LONG)]
    wire += [item("assistant", "done"), item("user", "next")]
    out = openai(wire, "anthropic")
    assert out[0]["content"][0] == {"type": "input_text", "text": "q"}
    assert is_summary(out[0]["content"][1]["text"])
    assert out[1:] == wire[3:]


def test_built_in_tools_outlive_the_round_and_keep_their_reasoning() -> None:
    wire = [item("user", "q"), reasoning(1), SEARCH, reasoning(2), call("a"), output("a", LONG)]
    out = openai([*wire, item("assistant", "done"), item("user", "next")])
    assert [i for i in out if i["type"] != "message"] == [reasoning(1), SEARCH]


def test_a_late_result_is_legal_and_stays() -> None:
    wire = [item("user", "q"), call("a"), item("user", "hurry"), output("a"), item("assistant", "done")]
    assert rewrite_history(wire, api="responses").messages is wire


def test_a_late_result_goes_to_its_call_where_it_has_to() -> None:
    wire = [item("user", "q"), call("a"), item("user", "hurry"), output("a"), item("assistant", "done")]
    for provider in ("deepseek", "anthropic"):
        assert openai(wire, provider) == [wire[0], wire[1], wire[3], wire[2], wire[4]]


def test_a_late_result_inside_its_subtask_collapses_with_it() -> None:
    wire = [item("user", "q"), call("a"), item("user", "hurry"), output("a", LONG), item("assistant", "done")]
    out = openai([*wire, item("user", "next")])
    assert [i.get("role") for i in out] == ["user", "system", "user", "assistant", "user"]


def test_a_subtask_whose_pair_crosses_its_boundary_stays_whole() -> None:
    first = [item("user", "q"), call("a"), call("b"), output("b", LONG), item("assistant", "it runs")]
    second = [item("user", "and?"), output("a", LONG), call("c"), output("c", LONG), item("assistant", "done")]
    memo: dict[str, Any] = {}
    for wire in ([*first, *second, item("user", "next")], [*first, item("user", "and?")], [*first, *second]):
        out = openai(wire)
        assert out == rewrite_history(wire, api="responses", memo=memo).messages
    out = openai([*first, *second, item("user", "next")])
    assert out[: len(first) + 2] == [*first, *second[:2]]
    assert is_summary(out[len(first) + 2]["content"][0]["text"])


def test_a_missing_result_stands_right_behind_its_calls() -> None:
    wire = [item("user", "q"), reasoning(1), call("a"), call("b"), output("b"), item("user", "stop")]
    assert openai(wire) == [*wire[:5], output("a", NO_RESULT), wire[5]]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("custom_tool_call", {"type": "custom_tool_call_output", "output": NO_RESULT}),
        ("local_shell_call", {"type": "local_shell_call_output", "output": NO_RESULT}),
        ("apply_patch_call", {"type": "apply_patch_call_output", "output": NO_RESULT, "status": "failed"}),
    ],
)
def test_a_missing_result_has_the_shape_that_its_call_wants(kind: str, answer: dict[str, Any]) -> None:
    out = openai([item("user", "q"), {"type": kind, "call_id": "a", "name": "f", "input": "x"}, item("user", "stop")])
    assert out[2] == {**answer, "call_id": "a"}


def test_a_missing_screenshot_is_an_image() -> None:
    wire = [item("user", "q"), {"type": "computer_call", "call_id": "a", "action": {"type": "click"}}]
    (_, _, added) = openai(wire)
    assert added["output"]["type"] == "computer_screenshot"
    assert base64.b64decode(added["output"]["image_url"].partition(",")[2])[:3] == b"GIF"


def test_an_orphan_becomes_a_message_of_the_user() -> None:
    out = openai([item("user", "q"), output("gone", "21 degrees"), item("assistant", "ok")])
    assert out[1] == item("user", f"{ORPHAN} (gone):\n21 degrees")


def test_a_result_that_lost_its_id_gets_that_of_its_call_and_its_type() -> None:
    custom = {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "x"}
    out = openai([item("user", "q"), custom, {"type": "function_call_output", "output": "ok"}])
    assert out[2] == {"type": "custom_tool_call_output", "call_id": "a", "output": "ok"}


def test_call_ids_are_unique_and_at_most_64_long() -> None:
    wire = [item("user", "q"), call("a"), output("a"), call("a"), output("a"), call("x" * 64), output("x" * 64)]
    out = openai([*wire, call("y" * 65), output("y" * 65)])
    assert out[:3] == wire[:3] and out[5:7] == wire[5:7]
    assert len({i["call_id"] for i in out if i["type"] == "function_call"}) == 4


def test_item_ids_are_unique_short_and_begin_as_their_type_wants() -> None:
    ids = ["fc_1", "fc_1", "fc_" + "x" * 62, "toolu_1"]
    wire = [item("user", "q")]
    for number, item_id in enumerate(ids):
        wire += [call(f"c{number}", id=item_id), output(f"c{number}")]
    result_ = rewrite_history(wire, api="responses")
    assert judge(result_.messages, "openai", "responses") == []
    assert result_.report.ids_renamed == 3
    assert result_.report.bytes_before == len(bytes_of(wire))
    assert result_.messages[1] is wire[1]


def test_ids_that_litellm_opens_itself_stay() -> None:
    wrapped = {**reasoning(1), "id": "encitem_" + "x" * 90}
    wire = [item("user", "q"), wrapped, item("assistant", "ok"), item("user", "next")]
    assert rewrite_history(wire, api="responses").messages is wire


def test_reasoning_without_its_item_goes() -> None:
    wire = [item("user", "q"), reasoning(1), item("user", "again"), reasoning(2), item("assistant", "ok"), reasoning(3)]
    assert openai(wire) == [wire[0], wire[2], wire[3], wire[4]]


def test_a_reference_to_what_is_there_goes_and_any_other_stays() -> None:
    reference = {"type": "item_reference", "id": "msg_1"}
    wire = [item("user", "q"), reference, item("user", "q"), reference, item("user", "q")]
    assert openai(wire) == [wire[0], reference, wire[2], wire[4]]


def test_a_text_by_reference_ends_a_subtask() -> None:
    reference = {"type": "item_reference", "id": "msg_1"}
    out = openai([item("user", "q"), call("a"), output("a", LONG), reference, item("user", "next")])
    assert [i["type"] for i in out] == ["message", "message", "item_reference", "message"]


def test_a_subtask_that_may_hide_half_of_a_pair_stays_verbatim() -> None:
    reference = {"type": "item_reference", "id": "fc_1"}
    wire = [item("user", "q"), call("a"), output("a", LONG), reference, output("hidden", LONG)]
    wire += [item("assistant", "done"), item("user", "next")]
    assert rewrite_history(wire, api="responses").messages is wire
    messages = CODECS["responses"].parse(wire)
    assert [m.role for m in messages] == [USER, ASSISTANT, TOOL, ASSISTANT, OTHER, ASSISTANT, USER]


def test_results_of_a_stored_response_are_no_orphans() -> None:
    wire = [output("stored", LONG), call("a"), output("a", LONG), item("assistant", "done"), item("user", "next")]
    stored = Context(continued=True)
    assert rewrite_history(wire, api="responses", context=stored).messages is wire
    repaired = rewrite_history([*wire, call("a")], api="responses", context=stored)
    assert repaired.messages[:5] == wire
    assert repaired.report.ids_renamed == repaired.report.results_added == 1


def test_unknown_items_survive_in_their_place() -> None:
    odd = {"type": "from_the_future", "x": [1, None]}
    wire = [item("user", "q"), odd, reasoning(1), call("a"), output("a", LONG), odd, item("assistant", "done")]
    out = openai([*wire, item("user", "next")])
    assert out[1] is odd and out[3] is odd
