"""The context of a subtask that needs the results of others: valid for every provider, and stable."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from proxy_plugin.history.dependencies import LEFT_OUT, NO_TEXT, TITLE, Result, dependent, note, text_of_stored
from proxy_plugin.history.dialects import DIALECTS, dialect_of
from proxy_plugin.history.model import dump
from proxy_plugin.history.rewrite import read
from proxy_plugin.history.wire.convert import convert
from tests.validators import PROVIDERS, judge

RESULTS = [Result("a", "find boats", "finder", "three boats"), Result("b", None, None, "")]
NOTE = f"{TITLE}\n\nSubtask a: find boats\nAgent: finder\nResult: three boats\n\nSubtask b\nResult: {NO_TEXT}"


def called(call_id: str, text: str | None = None) -> list[dict[str, Any]]:
    function = {"name": "find", "arguments": "{}"}
    return [
        {
            "role": "assistant",
            "content": text,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call_id, "content": "found"},
    ]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


PAST = [{"role": "system", "content": "be brief"}, user("u1"), *called("call00001", "I look"), said("a1")]
OWN = [user("u2"), *called("call00002")]


def made(
    wire: list[Any], begins: int, provider: str = "openai", api: str = "chat", results: Any = RESULTS
) -> list[Any]:
    path = read(wire, api)
    assert path is not None
    before = copy.deepcopy(wire)
    out = dependent(path, begins, results, dialect_of(provider, api))
    assert wire == before
    again = read(out.wire, api)
    assert again is not None and len(again.messages) == len(out.nodes)
    return out.wire


def test_the_note_names_each_result_once() -> None:
    assert note(RESULTS) == NOTE
    assert note([]) == ""


def test_a_system_message_stands_between_the_past_and_the_subtask() -> None:
    wire = made([*PAST, *OWN], len(PAST))
    assert wire == [PAST[0], user("u1"), said("a1"), {"role": "system", "content": NOTE}, *OWN]


def test_messages_keep_the_nodes_that_they_are() -> None:
    path = read([*PAST, *OWN], "chat")
    assert path is not None
    out = dependent(path, len(PAST), RESULTS, dialect_of("openai"))
    ids = path.node_ids
    assert out.nodes == ("", ids[1], ids[4], "", *ids[5:])
    assert out.cleared == 1


@pytest.mark.parametrize("content", ["u2", [{"type": "text", "text": "u2"}]])
def test_elsewhere_it_is_text_in_front_of_what_the_user_says(content: Any) -> None:
    (asked,) = made([*PAST, user(content)], len(PAST), "gemini")[3:]
    expected = f"{NOTE}\n\nu2" if content == "u2" else [{"type": "text", "text": NOTE}, *content]
    assert asked == user(expected)


def test_a_subtask_without_a_user_message_gets_one() -> None:
    wire = made([*PAST, said("on my own")], len(PAST), "anthropic")
    assert wire[3:] == [user(NOTE), said("on my own")]


def test_without_results_there_is_no_note() -> None:
    assert made([*PAST, *OWN], len(PAST), results=[]) == [PAST[0], user("u1"), said("a1"), *OWN]


def test_two_user_messages_stay_in_turn_where_a_target_wants_that() -> None:
    past = [user("u1"), *called("c1"), user("u2"), said("a2"), user("u3"), *called("c3")]
    wire = made([*past, user("u4")], len(past), "hosted_vllm")
    assert [message["content"] for message in wire[:-1]] == ["u1", LEFT_OUT, "u2", "a2", "u3", LEFT_OUT]
    assert [message["content"] for message in made([*past, user("u4")], len(past), "anthropic")[:-1]] == [
        *("u1", "u2", "a2", "u3")
    ]


@pytest.mark.parametrize("provider", sorted(DIALECTS))
@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_what_leaves_is_valid_and_a_prefix_of_what_follows(provider: str, api: str) -> None:
    path = read([*PAST, *OWN], "chat")
    assert path is not None
    skipped = 1 if api == "messages" else 0  # its system prompt stands beside the list
    whole = convert(path.messages[skipped:], api)
    begins = len(PAST) - skipped
    longer = made(whole, begins, provider, api)
    short = convert(path.messages[skipped : begins + skipped + 1], api)
    first = made(short, begins, provider, api)
    assert longer[: len(first)] == first
    assert str(longer).count(TITLE) == 1
    judged = {"messages": "anthropic", "responses": "openai"}.get(api, provider)
    if judged in PROVIDERS:
        assert judge(longer, judged, api) == []


def test_a_result_and_the_question_in_one_message_are_told_apart() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "find", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
    wire = [user("u1"), {"role": "assistant", "content": [use]}, user([result, {"type": "text", "text": "u2"}])]
    path = read(wire, "messages")
    assert path is not None and len(path.messages) == 4
    out = made(wire, 3, "anthropic", "messages")
    assert out == [user("u1"), user([{"type": "text", "text": NOTE}, {"type": "text", "text": "u2"}])]


def test_the_text_of_what_is_stored() -> None:
    assert text_of_stored(b'{"api":"chat","wire":{"role":"assistant","content":"done"}}') == "done"
    content = [{"type": "output_text", "text": "x"}]
    item = dump({"api": "responses", "wire": [{"type": "message", "role": "assistant", "content": content}]})
    assert text_of_stored(item) == "x"
    for damaged in (None, b"", b"{", b"[]", b'{"api":"none"}'):
        assert text_of_stored(damaged) == ""
