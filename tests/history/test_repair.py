"""Repair, case by case: each malformed history that is seen in the wild, and what leaves."""

from __future__ import annotations

from typing import Any

import pytest

from proxy_plugin import Settings, rewrite_history
from proxy_plugin.history.plan import NO_RESULT, ORPHAN, TURN_CLOSED
from proxy_plugin.settings import Collapse
from tests.validators import judge

Wire = list[dict[str, Any]]
REPAIR_ONLY = Settings(collapse=Collapse(policy="never"))


def user(text: str = "go on") -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str = "done") -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def calls(*ids: Any) -> dict[str, Any]:
    function = {"name": "read_file", "arguments": "{}"}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": function, **({} if i is None else {"id": i})} for i in ids],
    }


def result(call_id: Any, text: str = "ok") -> dict[str, Any]:
    return {"role": "tool", "content": text, **({} if call_id is None else {"tool_call_id": call_id})}


def shape(wire: Wire) -> list[Any]:
    """Roles with ids and tool texts: what repair is about."""
    out: list[Any] = []
    for message in wire:
        if message.get("tool_calls"):
            out.append([call.get("id") for call in message["tool_calls"]])
        elif message["role"] == "tool":
            out.append((message["tool_call_id"], message["content"]))
        else:
            out.append(message["role"])
    return out


def repaired(wire: Wire, provider: str = "openai") -> Wire:
    out = rewrite_history(wire, provider=provider, settings=REPAIR_ONLY).messages
    assert judge(out, provider) == []
    return list(out)


def test_an_id_reused_by_a_later_turn_is_renamed_with_its_own_result() -> None:
    out = shape(repaired([user(), calls("a"), result("a", "first"), calls("a"), result("a", "second")]))
    (later,) = out[3]
    assert out == ["user", ["a"], ("a", "first"), [later], (later, "second")]
    assert later != "a" and later.startswith("a_")


def test_the_third_use_differs_from_the_second() -> None:
    out = shape(repaired([user(), *[m for n in range(3) for m in (calls("a"), result("a", str(n)))]]))
    assert len({out[1][0], out[3][0], out[5][0]}) == 3


def test_two_calls_with_one_id_in_one_message_keep_their_own_results() -> None:
    out = shape(repaired([user(), calls("a", "a"), result("a", "first"), result("a", "second")]))
    first, second = out[1]
    assert first == "a" and second != "a"
    assert out[2:] == [("a", "first"), (second, "second")]


def test_an_unanswered_call_gets_one_neutral_result() -> None:
    assert shape(repaired([user(), calls("a", "b"), result("b"), user()])) == [
        "user",
        ["a", "b"],
        ("b", "ok"),
        ("a", NO_RESULT),
        "user",
    ]


def test_an_aborted_turn_does_not_stop_the_session() -> None:
    assert shape(repaired([user(), calls("a"), user("stop, do something else"), says(), user()])) == [
        "user",
        ["a"],
        ("a", NO_RESULT),
        "user",
        "assistant",
        "user",
    ]


def test_calls_at_the_very_end_are_answered() -> None:
    assert shape(repaired([user(), calls("a")])) == ["user", ["a"], ("a", NO_RESULT)]


def test_an_orphan_becomes_a_note() -> None:
    out = repaired([user(), result("gone", "the temperature is 21"), user()])
    assert [m["role"] for m in out] == ["user", "user", "user"]
    assert out[1]["content"] == f"{ORPHAN} (gone):\nthe temperature is 21"


def test_an_orphan_note_does_not_tear_a_round_apart() -> None:
    out = shape(repaired([user(), calls("a", "b"), result("a"), result("x", "stray"), result("b")]))
    assert out == ["user", ["a", "b"], ("a", "ok"), ("b", "ok"), "user"]


def test_a_second_answer_of_the_same_text_goes() -> None:
    assert shape(repaired([user(), calls("a"), result("a", "same"), result("a", "same"), says()])) == [
        "user",
        ["a"],
        ("a", "same"),
        "assistant",
    ]


def test_a_second_answer_of_another_text_becomes_a_note() -> None:
    out = repaired([user(), calls("a"), result("a", "first"), result("a", "second")])
    assert shape(out) == ["user", ["a"], ("a", "first"), "user"]
    assert "second" in out[3]["content"]


def test_an_orphan_with_an_image_keeps_it() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    out = repaired([user(), {"role": "tool", "tool_call_id": "x", "content": [image]}])
    assert out[1]["content"][1] == image


def test_a_result_without_id_answers_the_open_call() -> None:
    assert shape(repaired([user(), calls("a", "b"), result("a"), result(None, "mine")])) == [
        "user",
        ["a", "b"],
        ("a", "ok"),
        ("b", "mine"),
    ]


@pytest.mark.parametrize("missing", [None, "", "  ", 7])
def test_a_call_without_id_gets_one_and_its_result_too(missing: Any) -> None:
    out = shape(repaired([user(), calls(missing), result(missing, "mine")]))
    (given,) = out[1]
    assert isinstance(given, str) and given.strip()
    assert out[2] == (given, "mine")


def test_a_call_that_lost_its_id_keeps_the_result_that_has_one() -> None:
    out = shape(repaired([user(), calls(None), result("lost", "mine")]))
    assert out[2] == (out[1][0], "mine")


def test_a_user_message_between_call_and_result_moves_behind_it() -> None:
    out = repaired([user(), calls("a"), user("hurry"), result("a", "late"), says()])
    assert shape(out) == ["user", ["a"], ("a", "late"), "user", "assistant"]
    assert out[3]["content"] == "hurry"


def test_results_out_of_call_order_stay_as_they_are() -> None:
    wire = [user(), calls("a", "b"), result("b"), result("a"), says()]
    assert rewrite_history(wire).messages is wire


def test_results_of_split_parallel_calls_come_back_to_their_calls() -> None:
    out = shape(repaired([user(), calls("a"), calls("b"), result("b", "B"), result("a", "A")]))
    assert out == ["user", ["a"], ("a", "A"), ["b"], ("b", "B")]


@pytest.mark.parametrize(
    ("provider", "call_id", "legal"),
    [
        ("openai", "x" * 41, False),
        ("openai", "x" * 40, True),
        ("openai", "functions.find:0", True),
        ("anthropic", "functions.find:0", False),
        ("anthropic", "toolu_01A", True),
        ("bedrock", "functions.find:0", True),
        ("bedrock", "a b", False),
        ("bedrock", "x" * 65, False),
        ("mistral", "call_abc123", False),
        ("mistral", "D681PevKs", True),
        ("gemini", "call_" + "0a" * 14 + "__thought__" + "QUJD" * 200, True),
    ],
)
def test_ids_that_the_target_refuses_are_mapped(provider: str, call_id: str, legal: bool) -> None:
    wire = [user(), calls(call_id), result(call_id), says(), user()]
    out = rewrite_history(wire, provider=provider)
    assert judge(out.messages, provider) == []
    assert (out.report.ids_renamed == 0) is legal


def test_a_renamed_gemini_id_keeps_its_signature() -> None:
    signature = "__thought__" + "QUJD" * 20
    rounds = [m for _ in "12" for m in (calls("c1" + signature), result("c1" + signature))]
    out = shape(repaired([user(), *rounds], "gemini"))
    assert out[3][0] != out[1][0]
    assert out[3][0].endswith(signature)


def test_mistral_gets_a_closed_turn_between_a_result_and_a_user_message() -> None:
    out = repaired([user(), calls("D681PevKs"), user("something else")], "mistral")
    assert [m["role"] for m in out] == ["user", "assistant", "tool", "assistant", "user"]
    assert out[3]["content"] == TURN_CLOSED


def test_unknown_fields_survive_on_messages_that_change() -> None:
    marked = {**calls("a"), "provider_specific_fields": {"x": 1}, "thinking_blocks": [{"signature": "s"}]}
    out = repaired([user(), calls("a"), result("a"), marked, {**result("a"), "extra": True}])
    assert out[3]["provider_specific_fields"] == {"x": 1}
    assert out[3]["thinking_blocks"] == [{"signature": "s"}]
    assert out[4]["extra"] is True


def test_the_clients_other_faults_pass_as_they_came() -> None:
    wire = [user(), {"role": "assistant", "content": None, "tool_calls": []}, {"role": "function", "name": "f"}, user()]
    assert rewrite_history(wire).messages is wire
