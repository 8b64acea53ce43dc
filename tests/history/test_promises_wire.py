"""The promises P2-P5 and P7 on the wire forms beside chat, for every provider behind them."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin import Settings, rewrite_history
from proxy_plugin.history.subtasks import completed
from proxy_plugin.history.wire import CODECS
from proxy_plugin.settings import Collapse
from tests.history.test_promises import CLIENTS_OWN, NEVER, PROVIDERS, bytes_of, relaxed
from tests.strategies import (
    ITEM_DAMAGES,
    broken_messages,
    broken_responses,
    junk,
    prefixes,
    valid_messages,
    valid_responses,
)
from tests.validators import judge

APIS = ("messages", "responses")
VALID = {"messages": valid_messages, "responses": valid_responses}
BROKEN = {"messages": broken_messages, "responses": broken_responses}
roles = st.sampled_from(["auto", "system", "user", "assistant"])
targets = st.sampled_from([(api, provider) for api in APIS for provider in PROVIDERS])


def faults(wire: Any, api: str, provider: str) -> list[str]:
    """Broken rules. The ids of Anthropic's own servers are what they are, whoever the history goes to."""
    return [fault.rule for fault in judge(wire, provider, api) if not any(i.startswith("srvtoolu") for i in fault.ids)]


def ends(wire: list[Any], api: str) -> list[int]:
    """Where in the wire list its completed subtasks end."""
    messages = CODECS[api].parse(wire)
    return [messages[end - 1].source[1] for end in completed(messages)]


def rewritten(wire: list[Any], api: str, provider: str, **options: Any) -> list[Any]:
    result = rewrite_history(wire, api=api, provider=provider, **options)
    assert result.limited == "", result.error
    return list(result.messages)


@relaxed
@given(st.data(), targets, roles)
def test_p2_every_history_leaves_valid(data: st.DataObject, target: tuple[str, str], role: Any) -> None:
    api, provider = target
    wire = data.draw(BROKEN[api]())
    out = rewritten(wire, api, provider, settings=Settings(collapse=Collapse(summary_role=role)))
    before, after = faults(wire, api, provider), faults(out, api, provider)
    assert [rule for rule in after if rule not in CLIENTS_OWN] == []
    assert sum(rule in CLIENTS_OWN for rule in after) <= sum(rule in CLIENTS_OWN for rule in before)


@relaxed
@given(st.data(), targets)
def test_p2_a_valid_history_with_nothing_to_collapse_leaves_byte_for_byte(
    data: st.DataObject, target: tuple[str, str]
) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider))
    result = rewrite_history(wire, api=api, provider=provider, settings=NEVER)
    assert result.messages is wire
    assert result.report.repaired == 0
    single = wire[: next(iter(ends(wire, api)), len(wire))]
    assert rewrite_history(single, api=api, provider=provider).messages is single


@relaxed
@given(st.data(), targets)
def test_p3_the_running_subtask_is_untouched(data: st.DataObject, target: tuple[str, str]) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider))
    running = wire[(ends(wire, api) or [0])[-1] :]
    out = rewritten(wire, api, provider)
    assert [id(item) for item in out[len(out) - len(running) :]] == [id(item) for item in running]


@relaxed
@given(st.data(), targets)
def test_p4_each_request_of_a_running_subtask_is_a_prefix_of_the_next(
    data: st.DataObject, target: tuple[str, str]
) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider, min_rounds=2))
    previous: tuple[list[Any], int] | None = None
    for request in prefixes(wire, api):
        out, closed = rewritten(request, api, provider), len(ends(request, api))
        if previous is not None and previous[1] == closed:
            assert bytes_of(out[: len(previous[0])]) == bytes_of(previous[0])
        previous = out, closed


BAD_IDS = ["reused", "always-the-same", "repeated-round", "orphan", "long-ids", "foreign-ids", "odd-ids"]


@relaxed
@given(st.data(), targets)
def test_p4_holds_for_repaired_histories_in_which_no_result_is_late(
    data: st.DataObject, target: tuple[str, str]
) -> None:
    api, provider = target
    damages = BAD_IDS if api == "messages" else [*BAD_IDS, *ITEM_DAMAGES]
    wire = data.draw(BROKEN[api](damages=damages))
    previous: tuple[list[Any], Any] | None = None
    for request in prefixes(wire, api):
        result = rewrite_history(request, api=api, provider=provider)
        closed = len(ends(request, api)), result.report.subtasks_collapsed
        if previous is not None and previous[1] == closed:
            assert bytes_of(result.messages[: len(previous[0])]) == bytes_of(previous[0])
        previous = result.messages, closed


@relaxed
@given(st.data(), targets)
def test_p4_the_text_of_a_closed_subtask_never_changes(data: st.DataObject, target: tuple[str, str]) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider, min_rounds=2))
    closed_parts: list[list[Any]] = []
    for request in prefixes(wire, api):
        begin = (ends(request, api) or [0])[-1]
        out = rewritten(request, api, provider)
        closed_parts.append(out[: len(out) - (len(request) - begin)])
    for earlier, later in itertools.pairwise(closed_parts):
        assert bytes_of(later[: len(earlier)]) == bytes_of(earlier)


@relaxed
@given(st.data(), targets)
def test_p4_a_memo_changes_no_answer(data: st.DataObject, target: tuple[str, str]) -> None:
    api, provider = target
    wire = data.draw(BROKEN[api]())
    memo: dict[str, Any] = {}
    cut = data.draw(st.integers(1, len(wire)))
    for request in [*prefixes(wire, api), wire, wire[:cut], [*wire[:cut], wire[0]], wire]:
        with_memo = rewrite_history(copy.deepcopy(request), api=api, provider=provider, memo=memo)
        without = rewrite_history(request, api=api, provider=provider)
        assert bytes_of(with_memo.messages) == bytes_of(without.messages)
        assert with_memo.report == without.report


@relaxed
@given(st.data(), targets)
def test_p5_never_larger_than_what_came(data: st.DataObject, target: tuple[str, str]) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider))
    result = rewrite_history(wire, api=api, provider=provider)
    assert result.report.bytes_before == len(bytes_of(wire))
    assert result.report.bytes_after == len(bytes_of(result.messages)) <= len(bytes_of(wire))


@relaxed
@given(st.data(), targets, roles)
def test_p5_rewriting_a_rewritten_history_changes_nothing(
    data: st.DataObject, target: tuple[str, str], role: Any
) -> None:
    api, provider = target
    chosen = Settings(collapse=Collapse(summary_role=role))
    once = rewritten(data.draw(BROKEN[api]()), api, provider, settings=chosen)
    assert bytes_of(rewritten(once, api, provider, settings=chosen)) == bytes_of(once)


@relaxed
@given(junk(), targets)
def test_p7_no_input_raises_or_is_changed(wire: Any, target: tuple[str, str]) -> None:
    api, provider = target
    try:
        before = pickle.dumps(wire)
    except Exception:  # too deep, or nothing that can be compared
        before = None
    result = rewrite_history(wire, api=api, provider=provider)
    assert result.limited != "internal_error", result.error
    if before is not None:
        assert pickle.dumps(wire) == before


@relaxed
@given(st.data(), targets)
def test_the_input_is_never_changed(data: st.DataObject, target: tuple[str, str]) -> None:
    api, provider = target
    wire = data.draw(BROKEN[api]())
    before = bytes_of(wire)
    rewrite_history(wire, api=api, provider=provider)
    assert bytes_of(wire) == before


@pytest.mark.parametrize("wire", ["text", None, {"role": "user"}])
@pytest.mark.parametrize("api", APIS)
def test_what_is_no_list_comes_back_as_it_came(wire: Any, api: str) -> None:
    assert rewrite_history(wire, api=api).messages is wire
