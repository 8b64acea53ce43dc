"""The judge of histories: examples for each rule, refused and accepted; and the strategies against it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import strategies
from tests.strategies import (
    DAMAGES,
    ILLEGAL_DAMAGES,
    ILLEGAL_MESSAGES_DAMAGES,
    ILLEGAL_RESPONSES_DAMAGES,
    LEGAL_DAMAGES,
    LEGAL_RESPONSES_DAMAGES,
    as_chat,
    as_messages,
    as_responses,
    broken_chats,
    broken_messages,
    broken_responses,
    junk,
    prefixes,
    talks,
    valid_chats,
    valid_messages,
    valid_responses,
)
from tests.validators import PROVIDERS, alternates, judge, violations

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "go"}
DONE = {"role": "assistant", "content": "done"}

quick = settings(deadline=None, max_examples=30)


def calls(*ids: Any, **more: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    made = [{"id": i, "type": "function", "function": function} for i in ids]
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def result(call_id: Any, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def rules(messages: Any, provider: str = "openai", api: str = "chat", **options: Any) -> list[str]:
    return [fault.rule for fault in judge(messages, provider, api, **options)]


CHAT_ACCEPTED = {
    "no tools": [SYSTEM, USER, DONE, USER],
    "one round": [USER, calls("a"), result("a"), DONE],
    "parallel, results out of order": [USER, calls("a", "b"), result("b"), result("a")],
    "rounds in a row": [USER, calls("a"), result("a"), calls("b"), result("b"), DONE],
    "system after results": [USER, calls("a"), result("a"), SYSTEM, DONE],
    "user after results": [USER, calls("a"), result("a"), USER],
    "40 characters": [USER, calls("x" * 40), result("x" * 40)],
    "any characters": [USER, calls("a b.é"), result("a b.é")],
    "legacy echo": [USER, {**DONE, "tool_calls": None}],
}

CHAT_REFUSED = {
    "unanswered at the end": ([USER, calls("a")], ["unanswered"]),
    "unanswered, then user": ([USER, calls("a"), USER], ["unanswered"]),
    "half answered": ([USER, calls("a", "b"), result("b"), DONE], ["unanswered"]),
    "user between": ([USER, calls("a"), USER, result("a")], ["unanswered", "orphan"]),
    "system between": ([USER, calls("a"), SYSTEM, result("a")], ["unanswered", "orphan"]),
    "between results": ([USER, calls("a", "b"), result("a"), USER, result("b")], ["unanswered", "orphan"]),
    "calls split": ([USER, calls("a"), calls("b"), result("a"), result("b")], ["unanswered", "orphan"]),
    "orphan": ([USER, result("a"), DONE], ["orphan"]),
    "orphan of another id": ([USER, calls("a"), result("a"), result("b")], ["orphan"]),
    "second answer": ([USER, calls("a"), result("a"), result("a")], ["second-answer"]),
    "late second answer": ([USER, calls("a"), result("a"), DONE, result("a")], ["orphan"]),
    "one id twice": ([USER, calls("a", "a"), result("a"), result("a")], ["duplicate-id"]),
    "one id twice, one result": ([USER, calls("a", "a"), result("a")], ["duplicate-id", "unanswered"]),
    "reused": ([USER, calls("a"), result("a"), DONE, USER, calls("a"), result("a")], ["reused-id"]),
    "too long": ([USER, calls("x" * 41), result("x" * 41)], ["id-length"]),
    "result without id": ([USER, {"role": "tool", "content": "r"}], ["result-without-id"]),
    "result with a number": ([USER, calls("1"), result(1)], ["unanswered", "result-without-id"]),
    "call without id": ([USER, calls(None), DONE], ["call-without-id"]),
    "call with an empty id": ([USER, calls(""), result("")], ["call-without-id", "result-without-id"]),
}

PER_PROVIDER = [
    ("anthropic", [USER, calls("a.b"), result("a.b")], ["id-alphabet"]),
    ("bedrock", [USER, calls("a.b:c"), result("a.b:c")], []),
    ("bedrock", [USER, calls("a b"), result("a b")], ["id-alphabet"]),
    ("anthropic", [USER, calls("x" * 64), result("x" * 64)], []),
    ("anthropic", [USER, calls("x" * 65), result("x" * 65)], ["id-length"]),
    ("bedrock", [USER, calls("x" * 65), result("x" * 65)], ["id-length"]),
    ("azure", [USER, calls("x" * 41), result("x" * 41)], ["id-length"]),
    ("gemini", [USER, calls("é" * 500), result("é" * 500)], []),
    ("vertex_ai", [USER, calls("a"), result("a"), USER, calls("a"), result("a")], ["reused-id"]),
    ("mistral", [USER, calls("abcDEF123"), result("abcDEF123")], []),
    ("mistral", [USER, calls("abcDEF12"), result("abcDEF12")], ["id-length"]),
    ("mistral", [USER, calls("abc_EF123"), result("abc_EF123")], ["id-alphabet"]),
    ("mistral", [USER, calls("abcDEF123"), result("abcDEF123"), USER], ["user-after-tool"]),
    ("mistral", [USER, calls("abcDEF123"), result("abcDEF123"), SYSTEM], ["system-place"]),
    ("mistral", [SYSTEM, SYSTEM, USER, SYSTEM, DONE, USER], []),
    ("mistral", [USER, DONE, SYSTEM, USER], ["system-place"]),
    ("hosted_vllm", [SYSTEM, USER, calls("x" * 99), result("x" * 99)], []),
    ("hosted_vllm", [SYSTEM, SYSTEM, USER], ["system-place"]),
    ("hosted_vllm", [USER, SYSTEM], ["system-place"]),
    ("anthropic", [USER, DONE, SYSTEM, USER], []),
    ("deepseek", [USER, DONE, SYSTEM, USER], []),
]

STRICT = [
    ("openai", [{"role": "user", "content": None}], ["null-content"]),
    ("openai", [USER, {"role": "assistant", "content": None}], ["null-content"]),
    ("openai", [USER, calls(content="x")], ["empty-tool-calls"]),
    ("openai", [{"role": "robot", "content": "x"}], ["role"]),
    ("openai", ["hello"], ["shape"]),
    ("openai", [{"role": "user", "content": 7}], ["shape"]),
    ("mistral", [USER, calls("abcDEF123"), result("abcDEF123", "")], ["empty-result"]),
    ("mistral", [USER, DONE], ["last-role"]),
    ("mistral", [DONE, USER], ["first-role"]),
]


@pytest.mark.parametrize("messages", CHAT_ACCEPTED.values(), ids=CHAT_ACCEPTED)
def test_accepts(messages: list[Any]) -> None:
    assert violations(messages, strict=True) == []


@pytest.mark.parametrize(("messages", "expected"), CHAT_REFUSED.values(), ids=CHAT_REFUSED)
def test_refuses(messages: list[Any], expected: list[str]) -> None:
    assert rules(messages) == expected


@pytest.mark.parametrize(("provider", "messages", "expected"), PER_PROVIDER)
def test_provider(provider: str, messages: list[Any], expected: list[str]) -> None:
    assert rules(messages, provider) == expected


@pytest.mark.parametrize(("provider", "messages", "expected"), STRICT)
def test_only_the_strict_judge_refuses_what_only_a_client_gets_wrong(
    provider: str, messages: list[Any], expected: list[str]
) -> None:
    assert rules(messages, provider) == []
    assert rules(messages, provider, strict=True) == expected


@pytest.mark.parametrize(("name", "accepted"), [("get-order_2", True), ("get order", False), ("f" * 65, False)])
def test_function_names(name: str, accepted: bool) -> None:
    made = calls("a")
    made["tool_calls"][0]["function"] = {"name": name, "arguments": "not JSON"}
    assert rules([USER, made, result("a")], strict=True) == ([] if accepted else ["name"])


def test_a_line_names_index_rule_and_id() -> None:
    assert violations([USER, calls("a", "b"), result("b")]) == ["messages[1]: unanswered: 'a'"]


def test_what_is_no_list_is_one_fault() -> None:
    assert rules({"role": "user"}) == ["shape"]


def test_an_unknown_api_or_provider_is_an_error_of_the_test() -> None:
    with pytest.raises(ValueError, match="smoke"):
        violations([], api="smoke")
    with pytest.raises(KeyError):
        violations([], "nobody")


def test_alternation() -> None:
    assert alternates([SYSTEM, USER, calls("a"), result("a"), DONE, USER])
    assert not alternates([USER, USER])
    assert not alternates([USER, DONE, SYSTEM, DONE])


@pytest.mark.parametrize("provider", PROVIDERS)
@quick
@given(data=st.data())
def test_valid_chats_are_valid_and_so_is_every_request_on_the_way(provider: str, data: st.DataObject) -> None:
    chat = data.draw(valid_chats(provider))
    assert violations(chat, provider, strict=True) == []
    requests = prefixes(chat)
    assert requests[-1] == chat
    assert [violations(request, provider, strict=True) for request in requests] == [[]] * len(requests)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("damage", sorted(ILLEGAL_DAMAGES))
@settings(deadline=None, max_examples=6)
@given(data=st.data())
def test_each_damage_is_seen(provider: str, damage: str, data: st.DataObject) -> None:
    chat = data.draw(broken_chats(provider, [damage], at_most=1))
    assert violations(chat, provider) != []


@pytest.mark.parametrize("damage", sorted(LEGAL_DAMAGES))
@quick
@given(data=st.data())
def test_what_is_odd_but_legal_passes(damage: str, data: st.DataObject) -> None:
    assert violations(data.draw(broken_chats("openai", [damage])), strict=True) == []


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
@settings(deadline=None, max_examples=60)
@given(value=junk())
def test_junk_is_judged_without_an_error(api: str, value: Any) -> None:
    for provider in PROVIDERS:
        assert all(isinstance(line, str) for line in violations(value, provider, api, strict=True))


def test_prefixes_are_the_requests_of_an_agent() -> None:
    chat = [SYSTEM, USER, calls("a"), result("a"), DONE, USER]
    assert prefixes(chat) == [chat[:2], chat[:4], chat]
    assert prefixes([SYSTEM, USER, DONE]) == [[SYSTEM, USER]]
    assert prefixes([]) == []


def test_pools_are_legal() -> None:
    for provider in PROVIDERS:
        pool = strategies.id_pool(provider)
        chat = [USER, *(message for i in pool for message in (calls(i), result(i)))]
        assert violations(chat, provider) == []


# Anthropic messages


def uses(*ids: Any, text: str | None = None) -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": i, "name": "f", "input": {}} for i in ids]
    lead = [{"type": "text", "text": text}] if text is not None else []
    return {"role": "assistant", "content": [*lead, *blocks]}


def answers(*ids: Any, text: str | None = None) -> dict[str, Any]:
    blocks = [{"type": "tool_result", "tool_use_id": i, "content": "r"} for i in ids]
    return {"role": "user", "content": [*blocks, *([{"type": "text", "text": text}] if text is not None else [])]}


def marked(count: int) -> dict[str, Any]:
    block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    return {"role": "user", "content": [block] * count}


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
TEXT = {"type": "text", "text": "x"}


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


MESSAGES_ACCEPTED = {
    "one round": [USER, uses("a"), answers("a"), DONE],
    "text behind results": [USER, uses("a", "b"), answers("b", "a", text="and?")],
    "results split over user messages": [USER, uses("a", "b"), answers("a"), answers("b", text="x"), USER],
    "consecutive assistant messages are one turn": [USER, DONE, uses("a"), uses("b"), answers("a", "b")],
    "text behind the calls of its turn": [USER, uses("a"), DONE, answers("a")],
    "four breakpoints": [marked(4)],
    "server tool": [USER, assistant(SEARCH, FOUND, TEXT), USER],
    "paused server tool": [USER, assistant(TEXT, SEARCH)],
    "thinking first": [USER, {"role": "assistant", "content": [THOUGHT, TEXT]}, USER],
    "empty result": [USER, uses("a"), {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}],
}

MESSAGES_REFUSED = {
    "unanswered at the end": ([USER, uses("a")], ["unanswered"]),
    "unanswered, then text": ([USER, uses("a"), USER, DONE], ["unanswered"]),
    "half answered": ([USER, uses("a", "b"), answers("a"), DONE], ["unanswered"]),
    "text first": ([USER, uses("a"), USER, answers("a")], ["results-first"]),
    "text between": ([USER, uses("a", "b"), answers("a", text="x"), answers("b")], ["results-first"]),
    "late": ([USER, uses("a"), USER, DONE, answers("a")], ["unanswered", "orphan"]),
    "orphan": ([USER, answers("a"), DONE], ["orphan"]),
    "orphan behind a turn": ([USER, uses("a"), answers("a"), DONE, answers("a")], ["orphan"]),
    "second answer": ([USER, uses("a"), answers("a", "a")], ["second-answer"]),
    "second answer in the next message": ([USER, uses("a"), answers("a"), answers("a")], ["second-answer"]),
    "one id twice": ([USER, uses("a", "a"), answers("a", "a")], ["duplicate-id"]),
    "reused": ([USER, uses("a"), answers("a"), DONE, USER, uses("a"), answers("a")], ["reused-id"]),
    "alphabet": ([USER, uses("a.b"), answers("a.b")], ["id-alphabet"]),
    "length": ([USER, uses("x" * 65), answers("x" * 65)], ["id-length"]),
    "call without id": ([USER, uses(None), USER], ["call-without-id", "unanswered"]),
    "result without id": ([USER, uses("a"), answers("a", None)], ["result-without-id"]),
    "system": ([USER, SYSTEM, DONE, USER], ["system-place"]),
    "five breakpoints": ([marked(3), DONE, marked(2)], ["cache-control"]),
    "blank text": ([{"role": "user", "content": [TEXT, {"type": "text", "text": " "}]}], ["empty-text"]),
    "empty content": ([{"role": "user", "content": []}, DONE, USER], ["empty-content"]),
    "thinking last": ([USER, assistant(TEXT, THOUGHT), USER], ["thinking-place"]),
    "server tool without its result": ([USER, assistant(SEARCH, TEXT), USER], ["unanswered"]),
    "result in the assistant's turn": ([USER, assistant(answers("a")["content"][0]), USER], ["orphan"]),
}


@pytest.mark.parametrize("messages", MESSAGES_ACCEPTED.values(), ids=MESSAGES_ACCEPTED)
def test_messages_accepts(messages: list[Any]) -> None:
    assert violations(messages, "anthropic", "messages", strict=True) == []


@pytest.mark.parametrize(("messages", "expected"), MESSAGES_REFUSED.values(), ids=MESSAGES_REFUSED)
def test_messages_refuses(messages: list[Any], expected: list[str]) -> None:
    assert rules(messages, "anthropic", "messages") == expected


def test_bedrock_takes_more_characters() -> None:
    messages = [USER, uses("a.b:c"), answers("a.b:c")]
    assert rules(messages, "bedrock", "messages") == []


def test_a_model_may_take_the_system_role_between_user_and_assistant() -> None:
    between, behind = [USER, SYSTEM, DONE, USER], [USER, DONE, SYSTEM, USER]
    assert rules(between, "anthropic", "messages", allowed={"system"}) == []
    assert rules(behind, "anthropic", "messages", allowed={"system"}) == ["system-place"]


def test_extra_keys_are_the_clients_own_fault() -> None:
    echoed = assistant({**TEXT, "provider_specific_fields": {}})
    assert rules([USER, echoed, USER], "anthropic", "messages") == []
    assert rules([USER, echoed, USER], "anthropic", "messages", strict=True) == ["extra-key"]


@pytest.mark.parametrize("provider", ["anthropic", "bedrock", "openai"])
@pytest.mark.parametrize("system", [False, True])
@quick
@given(data=st.data())
def test_valid_messages_are_valid(provider: str, system: bool, data: st.DataObject) -> None:
    wire = data.draw(valid_messages(provider, system=system))
    allowed = {"system"} if system else set[str]()
    for request in [*prefixes(wire, "messages"), wire]:
        assert violations(request, provider, "messages", strict=True, allowed=allowed) == []


@pytest.mark.parametrize("damage", sorted(ILLEGAL_MESSAGES_DAMAGES))
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_each_damage_is_seen_in_messages(damage: str, data: st.DataObject) -> None:
    wire = data.draw(broken_messages("anthropic", [damage], at_most=1))
    assert violations(wire, "anthropic", "messages") != []


# OpenAI responses


def call(call_id: Any, item_id: str | None = None) -> dict[str, Any]:
    item = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}
    return item if item_id is None else {**item, "id": item_id}


def output(call_id: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "r"}


REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
REFERENCE = {"type": "item_reference", "id": "fc_7"}

RESPONSES_ACCEPTED = {
    "a string": "hello",
    "one round": [USER, call("a"), output("a"), DONE],
    "late output": [USER, call("a"), USER, output("a")],
    "64 characters": [USER, call("x" * 64), output("x" * 64)],
    "item ids": [USER, REASONING, call("a", "fc_1"), output("a")],
    "reasoning in front of a message": [USER, REASONING, DONE],
    "a reference may be the call": [USER, REFERENCE, output("a")],
    "a reference may be the output": [USER, call("a"), REFERENCE],
    "custom tool": [
        {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "r"},
    ],
}

RESPONSES_REFUSED = {
    "unanswered": ([USER, call("a"), USER], ["unanswered"]),
    "orphan": ([USER, output("a")], ["orphan"]),
    "output first": ([USER, output("a"), call("a")], ["orphan", "unanswered"]),
    "second answer": ([USER, call("a"), output("a"), output("a")], ["second-answer"]),
    "reused": ([call("a"), output("a"), call("a"), output("a")], ["reused-id"]),
    "one id twice": ([call("a"), call("a"), output("a")], ["duplicate-id"]),
    "too long": ([call("x" * 65), output("x" * 65)], ["id-length"]),
    "doubled item": ([call("a", "fc_1"), output("a"), call("b", "fc_1"), output("b")], ["duplicate-item"]),
    "long item id": ([call("a", "fc_" + "0" * 64), output("a")], ["item-id"]),
    "foreign item id": ([call("a", "toolu_1"), output("a")], ["item-id"]),
    "reasoning alone": ([USER, REASONING], ["reasoning"]),
    "reasoning without its item": ([USER, REASONING, USER], ["reasoning"]),
    "call without id": ([USER, call(None)], ["call-without-id"]),
    "output without id": ([USER, output(None)], ["result-without-id"]),
    "another kind of output": ([call("a"), {**output("a"), "type": "custom_tool_call_output"}], ["orphan"]),
}


@pytest.mark.parametrize("items", RESPONSES_ACCEPTED.values(), ids=RESPONSES_ACCEPTED)
def test_responses_accepts(items: Any) -> None:
    assert violations(items, "openai", "responses", strict=True) == []


@pytest.mark.parametrize(("items", "expected"), RESPONSES_REFUSED.values(), ids=RESPONSES_REFUSED)
def test_responses_refuses(items: list[Any], expected: list[str]) -> None:
    assert rules(items, "openai", "responses") == expected


def test_a_continued_response_holds_the_call() -> None:
    assert rules([output("a")], "openai", "responses", allowed={"previous"}) == []


def test_deepseek_wants_outputs_beside_their_calls() -> None:
    parallel = [USER, call("a"), call("b"), output("b"), output("a"), USER]
    assert rules(parallel, "deepseek", "responses") == []
    assert rules([USER, call("a"), USER, output("a")], "deepseek", "responses") == ["adjacent"]


@pytest.mark.parametrize("provider", ["openai", "deepseek", "anthropic", "mistral"])
@quick
@given(data=st.data())
def test_valid_responses_are_valid(provider: str, data: st.DataObject) -> None:
    wire = data.draw(valid_responses(provider))
    for request in [*prefixes(wire, "responses"), wire]:
        assert violations(request, provider, "responses", strict=True) == []


@pytest.mark.parametrize("damage", sorted(ILLEGAL_RESPONSES_DAMAGES))
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_each_damage_is_seen_in_responses(damage: str, data: st.DataObject) -> None:
    wire = data.draw(broken_responses("openai", [damage], at_most=1))
    assert violations(wire, "openai", "responses") != []


@pytest.mark.parametrize("damage", sorted(LEGAL_RESPONSES_DAMAGES))
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_late_outputs_are_legal_in_responses(damage: str, data: st.DataObject) -> None:
    assert violations(data.draw(broken_responses("openai", [damage])), "openai", "responses") == []


@quick
@given(data=st.data())
def test_damaged_items_break_no_rule_but_those_of_items(data: st.DataObject) -> None:
    wire = data.draw(broken_responses(damages=["doubled-items", "long-items"]))
    assert set(rules(wire, "openai", "responses")) <= {"duplicate-item", "item-id"}


@quick
@given(talk=talks("anthropic"))
def test_one_talk_has_all_three_forms(talk: strategies.Talk) -> None:
    assert violations(as_chat(talk), "anthropic", strict=True) == []
    assert violations(as_messages(talk), "anthropic", "messages", strict=True) == []
    assert violations(as_responses(talk), "anthropic", "responses", strict=True) == []


def test_the_catalogues_name_only_damages_that_are_there() -> None:
    assert DAMAGES.keys() >= ILLEGAL_DAMAGES | LEGAL_RESPONSES_DAMAGES
    assert not ILLEGAL_DAMAGES & LEGAL_DAMAGES
