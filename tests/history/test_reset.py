"""Auto-reset: the promises with it under every policy, and what each setting leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin import Context, Settings
from proxy_plugin.history.model import SYSTEM, TOOL
from proxy_plugin.history.path import Path
from proxy_plugin.history.wire import CODECS
from proxy_plugin.settings import Collapse, Limits, Reset
from tests.history.test_policies import BROKEN, VALID, Wire, chosen, faults, rewritten, talk, targets, turn
from tests.history.test_promises import CLIENTS_OWN, bytes_of, relaxed
from tests.strategies import prefixes

KEEPS = ("none", "none", "system", "first:1", "first:4", "first:20", "last:3", "last:6", "last:20")


@st.composite
def resetting(draw: Callable[[st.SearchStrategy[Any]], Any], *, markers: bool = True) -> Settings:
    """A policy with a reset that conversations of the generated size pass, often more than once."""
    reset = Reset(
        max_messages=draw(st.sampled_from([0, 1, 2, 4, 6])),
        max_tokens=draw(st.sampled_from([0, 0, 30, 300, 1500])),
        max_age_s=draw(st.sampled_from([0, 60])),
        keep=draw(st.sampled_from(KEEPS)),
        marker=draw(st.sampled_from(["", "(Earlier messages are left out.)"])) if markers else "",
    )
    return replace(draw(chosen()), reset=reset)


@st.composite
def reset_at(draw: Callable[[st.SearchStrategy[Any]], Any], wire: Wire, api: str) -> Context:
    """A context in which the conversation was reset for its age, wherever."""
    nodes = [node for node in Path(wire, api, None).node_ids if node]
    return Context(resets=frozenset(draw(st.sets(st.sampled_from(nodes), max_size=3)))) if nodes else Context()


@relaxed
@given(st.data(), targets, resetting())
def test_every_history_leaves_valid(data: st.DataObject, target: tuple[str, str], settings: Settings) -> None:
    api, provider = target
    if settings.collapse.summary_role == "system":  # that is put where it was asked for, whoever takes it there
        settings = replace(settings, collapse=replace(settings.collapse, summary_role="auto"))
    wire = data.draw(BROKEN[api]())
    context = data.draw(reset_at(wire, api))
    before = faults(wire, api, provider)
    after = faults(rewritten(wire, api, provider, settings, context=context).messages, api, provider)
    assert [rule for rule in after if rule not in CLIENTS_OWN] == []
    assert sum(rule in CLIENTS_OWN for rule in after) <= sum(rule in CLIENTS_OWN for rule in before)


@relaxed
@given(st.data(), targets, resetting())
def test_a_valid_history_stays_valid_to_the_letter(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    if settings.collapse.summary_role == "system":
        settings = replace(settings, collapse=replace(settings.collapse, summary_role="auto"))
    wire = data.draw(VALID[api](provider, min_rounds=2))
    assert faults(rewritten(wire, api, provider, settings).messages, api, provider) == faults(wire, api, provider)


@relaxed
@given(st.data(), targets, resetting())
def test_the_prefix_breaks_only_where_the_report_says_so(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider, min_rounds=3))
    context = data.draw(reset_at(wire, api))
    previous, resets = None, 0
    for request in prefixes(wire, api):
        result = rewritten(request, api, provider, settings, context=context)
        if previous is not None and not result.report.prefix_break:
            assert bytes_of(result.messages[: len(previous)]) == bytes_of(previous)
        if result.report.resets > resets:
            assert result.report.prefix_break == "reset"
        assert result.report.resets >= resets  # once reset at a message, always reset there
        previous, resets = result.messages, result.report.resets


@relaxed
@given(st.data(), targets, resetting())
def test_a_memo_changes_no_answer(data: st.DataObject, target: tuple[str, str], settings: Settings) -> None:
    api, provider = target
    wire = data.draw(BROKEN[api]() | VALID[api](provider, min_rounds=3))
    context = data.draw(reset_at(wire, api))
    memo: dict[str, Any] = {}
    cut = data.draw(st.integers(1, len(wire)))
    for request in [*prefixes(wire, api), wire, wire[:cut], [*wire[:cut], wire[0]], wire]:
        for said in (context, Context()) if data.draw(st.booleans()) else (context,):
            with_memo = rewritten(copy.deepcopy(request), api, provider, settings, memo=memo, context=said)
            without = rewritten(request, api, provider, settings, context=said)
            assert bytes_of(with_memo.messages) == bytes_of(without.messages)
            assert with_memo.report == without.report


@relaxed
@given(st.data(), targets, resetting(markers=False))
def test_never_larger_than_what_came(data: st.DataObject, target: tuple[str, str], settings: Settings) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider))
    report = rewritten(wire, api, provider, settings, context=data.draw(reset_at(wire, api))).report
    assert report.bytes_after <= report.bytes_before == len(bytes_of(wire))


@relaxed
@given(st.data(), targets, resetting())
def test_rewriting_a_rewritten_history_changes_nothing(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    settings = replace(settings, running=replace(settings.running, window_tokens=0))  # which the marker fills, too
    wire = data.draw(BROKEN[api]() | VALID[api](provider, min_rounds=2))
    once = rewritten(wire, api, provider, settings).messages
    assert bytes_of(rewritten(once, api, provider, settings).messages) == bytes_of(once)


@relaxed
@given(st.data(), targets, resetting())
def test_the_running_subtask_and_the_leading_text_stay(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    settings = replace(settings, collapse=Collapse(policy="never"))
    wire = data.draw(VALID[api](provider, min_rounds=1))
    out = rewritten(wire, api, provider, settings).messages
    path, left = Path(wire, api, None), CODECS[api].parse(out)
    assert [m.content for m in left[: path.lead]] == [m.content for m in path.messages[: path.lead]]
    asked = max(at for at, message in enumerate(path.messages) if message.role == "user")
    behind = path.messages[asked + 1 :]
    assert [m.content for m in left[len(left) - len(behind) :]] == [m.content for m in behind]


# What each setting leaves

LEAD = {"role": "system", "content": "You book flights."}
NEVER = Collapse(policy="never")


def of(**reset: Any) -> Settings:
    return Settings(collapse=NEVER, reset=Reset(**reset))


def texts(wire: Wire) -> list[str]:
    """User texts, answers and system texts of a history; tool rounds as their number of messages."""
    out: list[Any] = []
    for message in wire:
        if message.get("tool_calls") or message["role"] == "tool":
            out.append(out.pop() + 1 if out and isinstance(out[-1], int) else 1)
        else:
            out.append(message["content"])
    return out


def test_what_went_on_since_the_reset_leaves_and_nothing_before_it() -> None:
    wire = [LEAD, *talk(turn(0), turn(1), turn(2))]  # 8 messages a turn
    result = rewritten(wire, "chat", "openai", of(max_messages=16))
    assert texts(result.messages) == ["You book flights.", "Task 2, please.", 6, "Task 2 is done.", "Go on."]
    assert (result.report.resets, result.report.prefix_break) == (1, "")
    first = rewritten([LEAD, *talk(turn(0), turn(1))], "chat", "openai", of(max_messages=16))
    assert texts(first.messages) == ["You book flights.", "Go on."]
    assert (first.report.resets, first.report.prefix_break) == (1, "reset")
    again = rewritten([LEAD, *talk(*[turn(n) for n in range(4)])], "chat", "openai", of(max_messages=16))
    assert texts(again.messages) == ["You book flights.", "Go on."]
    assert again.report.resets == 2


@pytest.mark.parametrize("messages", [15, 16, 17])
def test_one_message_more_than_the_limit_is_too_many(messages: int) -> None:
    wire = talk(turn(0), turn(1))
    assert len(wire) == 17
    resets = rewritten(wire, "chat", "openai", of(max_messages=messages)).report.resets
    assert resets == {15: 1, 16: 1, 17: 0}[messages]


def test_tokens_count_whatever_has_collapsed() -> None:
    wire = talk(turn(0), turn(1), turn(2))
    settings = Settings(reset=Reset(max_tokens=2_000))
    small, large = (rewritten(talk(*[turn(n) for n in range(count)]), "chat", "openai", settings) for count in (1, 2))
    assert (small.report.resets, large.report.resets) == (0, 1)
    assert rewritten(wire, "chat", "openai", settings).report.resets == 1
    assert rewritten(wire, "chat", "openai", Settings(reset=Reset(max_tokens=20_000))).report.resets == 0


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("none", []),
        ("system", ["Mind the budget."]),
        ("first:7", []),
        ("first:8", ["Task 0, please.", 6, "Task 0 is done."]),
        ("first:15", ["Task 0, please.", 6, "Task 0 is done."]),
        ("last:7", []),
        ("last:9", ["Mind the budget.", "Task 2, please.", 6, "Task 2 is done."]),
        ("last:16", ["Mind the budget.", "Task 2, please.", 6, "Task 2 is done."]),
        ("last:17", [
            "Task 1, please.", 6, "Task 1 is done.", "Mind the budget.", "Task 2, please.", 6, "Task 2 is done.",
        ]),
    ],
)  # fmt: skip
def test_whole_subtasks_are_kept(keep: str, kept: list[Any]) -> None:
    remark = [{"role": "system", "content": "Mind the budget."}]
    wire = [LEAD, *talk(turn(0), turn(1), remark, turn(2))]
    settings = of(max_messages=25, keep=keep, marker="(cut)")
    out = rewritten(wire, "chat", "openai", settings).messages
    assert texts(out) == ["You book flights.", *kept, "(cut)", "Go on."]


def test_the_marker_is_text_of_the_user_where_system_text_does_not_stay_in_place() -> None:
    out = rewritten(talk(turn(0)), "chat", "anthropic", of(max_messages=4, marker="(cut)")).messages
    assert out == [{"role": "user", "content": [{"type": "text", "text": "Go on."}, {"type": "text", "text": "(cut)"}]}]


def test_a_user_who_cuts_in_resets_nothing() -> None:
    wire = [*turn(0)[:-1], {"role": "user", "content": "Stop."}]
    assert rewritten(wire, "chat", "openai", of(max_messages=1)).messages is wire


def test_a_pair_across_the_place_keeps_it_whole() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    late = {"type": "function_call_output", "call_id": "c1", "output": "late"}
    wire = [
        {"role": "user", "content": "Look."},
        call,
        {"role": "assistant", "content": "I am looking."},
        {"role": "user", "content": "And?"},
        late,
    ]
    assert rewritten(wire, "responses", "openai", of(max_messages=1)).messages is wire


def test_a_reset_for_its_age_happens_where_the_store_says() -> None:
    wire = talk(turn(0), turn(1))
    node = Path(wire, "chat", None).node_ids[8]
    settings = of(max_age_s=60)
    assert rewritten(wire, "chat", "openai", settings).messages is wire
    context = Context(resets=frozenset([node]))
    assert texts(rewritten(wire, "chat", "openai", settings, context=context).messages)[0] == "Task 1, please."
    # Not where it is switched off.
    assert rewritten(wire, "chat", "openai", Settings(collapse=NEVER), context=context).messages is wire


def test_nothing_is_reset_that_the_provider_continues() -> None:
    wire = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    context = Context(continued=True)
    assert rewritten(wire, "responses", "openai", of(max_messages=1), context=context).messages is wire


def test_a_conversation_too_long_to_collapse_is_reset_all_the_same() -> None:
    wire = talk(turn(0), turn(1))
    settings = replace(of(max_messages=8), limits=Limits(max_messages=10))
    from proxy_plugin import rewrite_history

    result = rewrite_history(wire, settings=settings)
    assert result.limited == "repair_only" and texts(result.messages) == ["Go on."]


def test_ids_that_were_left_out_are_not_given_again() -> None:
    """A reply that reuses one of them is renamed before the client sees it."""
    result = rewritten(talk(turn(0)), "chat", "openai", of(max_messages=4))
    assert all(message["role"] not in ("tool", "assistant") for message in result.messages)
    assert result.ids.fork().assign("c0_0") != "c0_0"


def test_a_summary_leads_to_the_stored_node() -> None:
    wire = talk(turn(0), turn(1), turn(2))
    settings = Settings(reset=Reset(max_messages=9))
    out = rewritten(wire, "chat", "openai", settings).messages
    path = Path(wire, "chat", None)
    results = [at for at, message in enumerate(path.messages) if message.role == TOOL]
    (summary,) = [message["content"] for message in out if message["role"] == SYSTEM]
    assert path.node_ids[max(results)][:12] in summary


@pytest.mark.parametrize("keep", ["all", "first", "first:", "first:x", "last:-1", "none:3", "system:1", "first:²"])
def test_a_bad_keep_is_refused(keep: str) -> None:
    with pytest.raises(ValueError, match="keep"):
        Reset(keep=keep)
