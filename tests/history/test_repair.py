"""Repair, case by case: each malformed history that is seen in the wild, and what leaves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from proxy_plugin import Settings, rewrite_history
from proxy_plugin.history.dialects import dialect_of, strictest
from proxy_plugin.history.plan import EMPTY_RESULT, NO_RESULT, ORPHAN, TURN_CLOSED
from proxy_plugin.history.rewrite import read, rewrite
from proxy_plugin.history.subtasks import NOTHING_SAID
from proxy_plugin.history.wire import CODECS
from proxy_plugin.settings import Collapse
from tests.strategies import ORIGINS, Called, Got, Invocation, Said, as_chat, as_messages, as_responses
from tests.validators import PROVIDERS, judge

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


WRITERS = {"chat": as_chat, "messages": as_messages, "responses": as_responses}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("api", WRITERS)
def test_ids_of_every_provider_go_to_every_other(api: str, provider: str, origin: str) -> None:
    made = [Invocation(call_id, "find", f'{{"n": {n}}}') for n, call_id in enumerate(ORIGINS[origin])]
    got = [Got(call.id, f"found by {n}") for n, call in enumerate(made)]
    talk = [Said("user", "go"), Called(None, made[:2]), got[1], got[0]]
    talk += [event for n in (2, 3) for event in (Called(None, [made[n]]), got[n])]
    wire = WRITERS[api](talk)

    out = rewrite_history(wire, api=api, provider=provider).messages
    assert judge(out, provider, api) == []
    messages = CODECS[api].parse(out)
    answers = {message.answers: message.content for message in messages}
    left = [(call.id, call.arguments) for message in messages for call in message.calls]
    assert [answers[call_id][-1] for call_id, _ in left] == [arguments.strip("}")[-1] for _, arguments in left]
    assert rewrite_history(out, api=api, provider=provider).messages is out
    dotted = api == "messages" and origin == "kimi"  # legal for some, but not as LiteLLM passes it on
    if judge(wire, provider, api) == [] and not dotted:
        assert out is wire
    if origin == "gemini" and provider in ("gemini", "vertex_ai"):
        signatures = [call_id.partition("__thought__")[2] for call_id in ORIGINS[origin]]
        assert [call_id.partition("__thought__")[2] for call_id, _ in left] == signatures


def test_an_id_signed_anew_is_the_same_id() -> None:
    """LiteLLM takes the signature off, so both would reach the provider under one name."""
    ids = ["call_1__thought__QUJD", "call_1__thought__REVG"]
    out = shape(repaired([user(), *[m for i in ids for m in (calls(i), result(i))]], "gemini"))
    assert out[1] == ids[:1]
    assert out[3][0].startswith("call_1_") and out[3][0].endswith("__thought__REVG")


def test_a_signature_survives_beside_a_fallback_that_has_no_use_for_it() -> None:
    call_id = "call_" + "0a" * 14 + "__thought__" + "QUJD" * 20
    wire = [user(), calls(call_id), result(call_id)]
    both = strictest([dialect_of("gemini"), dialect_of("openai")])
    path = read(wire, "chat")
    assert path is not None
    assert rewrite(path, both, REPAIR_ONLY, NOTHING_SAID).messages is wire
    beside = strictest([dialect_of("gemini", "responses"), dialect_of("openai", "responses")])
    assert not beside.ids.accepts(call_id)  # OpenAI's own /responses gets ids as they are


@pytest.mark.parametrize("pair", list(itertools.combinations(["openai", "anthropic", "bedrock", "mistral"], 2)))
@pytest.mark.parametrize("api", WRITERS)
def test_what_suits_a_group_of_two_providers_suits_each(api: str, pair: tuple[str, str]) -> None:
    both = strictest(dialect_of(provider, api) for provider in pair)
    for ids in ORIGINS.values():
        talk = [Said("user", "go")]
        talk += [event for i in ids for event in (Called(None, [Invocation(i, "find", "{}")]), Got(i, ""))]
        path = read(WRITERS[api](talk), api)
        assert path is not None
        out = rewrite(path, both, REPAIR_ONLY, NOTHING_SAID).messages
        assert [judge(out, provider, api) for provider in pair] == [[], []]


@pytest.mark.parametrize("nothing", ["", None, [], [{"type": "text", "text": ""}]])
def test_a_result_that_says_nothing_gets_a_text_where_the_target_drops_it(nothing: Any) -> None:
    wire = [user(), calls("D681PevKs"), {**result("D681PevKs"), "content": nothing, "extra": 1}]
    done = rewrite_history(wire, provider="mistral")
    assert done.messages == [*wire[:2], {**wire[2], "content": EMPTY_RESULT}]
    assert done.report.repairs == {**dict.fromkeys(done.report.repairs, 0), "results_added": 1}
    assert rewrite_history(done.messages, provider="mistral").messages is done.messages
    for provider in PROVIDERS.keys() - {"mistral"}:
        assert rewrite_history(wire, provider=provider).messages is wire


@pytest.mark.parametrize("api", WRITERS)
def test_an_empty_result_gets_its_text_and_its_id_in_every_form(api: str) -> None:
    talk = [Said("user", "go"), Called(None, [Invocation("call_1", "find", "{}")]), Got("call_1", "")]
    out = rewrite_history(WRITERS[api](talk), api=api, provider="mistral").messages
    (answer,) = [message for message in CODECS[api].parse(out) if message.role == "tool"]
    assert answer.content == EMPTY_RESULT and judge(out, "mistral", api) == []


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


@pytest.mark.parametrize(
    ("provider", "own"), [("openai", 64), ("hosted_vllm", 64), ("deepseek", 40), ("custom_openai", 40)]
)
def test_lengths_of_ids_are_those_of_the_endpoint_that_litellm_calls(provider: str, own: int) -> None:
    ids = dialect_of(provider, "responses").ids
    assert ids.accepts("x" * own) and not ids.accepts("x" * (own + 1))
