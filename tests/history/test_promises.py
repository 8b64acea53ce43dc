"""The promises P2-P5 and P7 of the rewriting, as properties over generated conversations.

P1 is the gateway's (tests/gateway), P6 and P8-P9 the store's (tests/sessions).
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_plugin import Settings, rewrite_history
from proxy_plugin.history.subtasks import completed
from proxy_plugin.history.wire import chat
from proxy_plugin.settings import Collapse
from tests import validators
from tests.strategies import broken_chats, junk, prefixes, valid_chats
from tests.validators import judge

PROVIDERS = tuple(validators.PROVIDERS)
NEVER = Settings(collapse=Collapse(policy="never"))
# What a client put where its provider takes none is not the plugin's to move: it must only never add one.
CLIENTS_OWN = {"system-place"}

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
providers = st.sampled_from(PROVIDERS)


def bytes_of(wire: Any) -> bytes:
    return orjson.dumps(wire, default=lambda other: type(other).__name__)


def faults(wire: Any, provider: str) -> list[str]:
    return [fault.rule for fault in judge(wire, provider)]


def boundaries(wire: list[Any]) -> int:
    return len(completed(chat.parse(wire)))


@relaxed
@given(st.data(), providers)
def test_p2_every_history_leaves_valid(data: st.DataObject, provider: str) -> None:
    wire = data.draw(broken_chats())
    before, after = faults(wire, provider), faults(rewrite_history(wire, provider=provider).messages, provider)
    assert [rule for rule in after if rule not in CLIENTS_OWN] == []
    assert sum(rule in CLIENTS_OWN for rule in after) <= sum(rule in CLIENTS_OWN for rule in before)


@relaxed
@given(st.data(), providers)
def test_p2_a_valid_history_with_nothing_to_collapse_leaves_byte_for_byte(data: st.DataObject, provider: str) -> None:
    wire = data.draw(valid_chats(provider))
    before = bytes_of(wire)
    result = rewrite_history(wire, provider=provider, settings=NEVER)
    assert bytes_of(result.messages) == before
    assert result.report.repaired == 0
    single = wire[: next(iter(completed(chat.parse(wire))), len(wire))]
    assert bytes_of(rewrite_history(single, provider=provider).messages) == bytes_of(single)


@relaxed
@given(st.data(), providers)
def test_p3_the_running_subtask_is_untouched(data: st.DataObject, provider: str) -> None:
    wire = data.draw(valid_chats(provider))
    begin = (completed(chat.parse(wire)) or [0])[-1]
    out = rewrite_history(wire, provider=provider).messages
    running = wire[begin:]
    assert bytes_of(out[len(out) - len(running) :]) == bytes_of(running)


@relaxed
@given(st.data(), providers)
def test_p4_each_request_of_a_running_subtask_is_a_prefix_of_the_next(data: st.DataObject, provider: str) -> None:
    wire = data.draw(valid_chats(provider, min_rounds=2))
    previous: tuple[list[Any], int] | None = None
    for request in prefixes(wire):
        out, closed = rewrite_history(request, provider=provider).messages, boundaries(request)
        if previous is not None and previous[1] == closed:
            assert bytes_of(out[: len(previous[0])]) == bytes_of(previous[0])
        previous = out, closed


@relaxed
@given(st.data(), providers)
def test_p4_the_text_of_a_closed_subtask_never_changes(data: st.DataObject, provider: str) -> None:
    wire = data.draw(valid_chats(provider, min_rounds=2))
    closed_parts: list[list[Any]] = []
    for request in prefixes(wire):
        begin = (completed(chat.parse(request)) or [0])[-1]
        out = rewrite_history(request, provider=provider).messages
        closed_parts.append(out[: len(out) - (len(request) - begin)])
    for earlier, later in pairwise(closed_parts):
        assert bytes_of(later[: len(earlier)]) == bytes_of(earlier)


@relaxed
@given(broken_chats(), providers)
def test_p4_a_memo_changes_no_answer(wire: list[Any], provider: str) -> None:
    memo: dict[str, Any] = {}
    for request in [*prefixes(wire), wire, wire[:-1], wire]:
        fresh = copy.deepcopy(request)
        with_memo = rewrite_history(fresh, provider=provider, memo=memo)
        without = rewrite_history(request, provider=provider)
        assert bytes_of(with_memo.messages) == bytes_of(without.messages)
        assert with_memo.report == without.report


def test_p4_a_memo_notices_a_message_that_was_changed_in_place() -> None:
    wire: list[Any] = [{"role": "user", "content": "q"}]
    for number in range(3):
        call = {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        wire += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": f"value-{number} " * 200},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": "next"},
        ]
    memo: dict[str, Any] = {}
    rewrite_history(wire, memo=memo)
    wire[2]["content"] = "changed-9 " * 200
    assert rewrite_history(wire, memo=memo).messages == rewrite_history(wire).messages


def test_p4_the_same_bytes_in_every_process() -> None:
    call = {"id": "call_abc123", "type": "function", "function": {"name": "find", "arguments": '{"q": "x", "n": 3}'}}
    result = json.dumps([{"id": f"row-{n}", "state": "open", "owner": f"u{n % 3}@example.com"} for n in range(30)])
    wire = []
    for number in range(3):
        wire += [
            {"role": "user", "content": f"task {number}"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_abc123", "content": result},
            {"role": "assistant", "content": "done"},
        ]
    wire.append({"role": "user", "content": "more"})
    program = (
        "import sys, orjson; from proxy_plugin import rewrite_history;"
        "sys.stdout.buffer.write(orjson.dumps(rewrite_history(orjson.loads(sys.stdin.buffer.read())).messages))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=orjson.dumps(wire),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert outputs == {orjson.dumps(rewrite_history(wire).messages)}


@relaxed
@given(st.data(), providers)
def test_p5_never_larger_than_what_came(data: st.DataObject, provider: str) -> None:
    wire = data.draw(valid_chats(provider))
    result = rewrite_history(wire, provider=provider)
    assert result.report.bytes_before == len(bytes_of(wire))
    assert result.report.bytes_after == len(bytes_of(result.messages)) <= len(bytes_of(wire))


@relaxed
@given(broken_chats(), providers, st.sampled_from(["auto", "system", "user", "assistant"]))
def test_p5_rewriting_a_rewritten_history_changes_nothing(wire: list[Any], provider: str, role: Any) -> None:
    chosen = Settings(collapse=Collapse(summary_role=role))
    once = rewrite_history(wire, provider=provider, settings=chosen).messages
    assert bytes_of(rewrite_history(once, provider=provider, settings=chosen).messages) == bytes_of(once)


@relaxed
@given(junk(), providers)
def test_p7_no_input_raises_or_is_changed(wire: Any, provider: str) -> None:
    try:
        before = pickle.dumps(wire)
    except Exception:  # too deep, or nothing that can be compared
        before = None
    result = rewrite_history(wire, provider=provider)
    assert result.limited != "internal_error", result.error
    if before is not None:
        assert pickle.dumps(wire) == before


@pytest.mark.parametrize("wire", [None, 7, "text", {}, [], [1], [[]], [{"role": "user"}, None], ({"role": "user"},)])
def test_what_is_no_list_of_objects_comes_back_as_it_came(wire: Any) -> None:
    result = rewrite_history(wire)
    assert result.messages is wire
    assert result.limited == "not_understood"


@relaxed
@given(broken_chats(), providers)
def test_the_input_is_never_changed(wire: list[Any], provider: str) -> None:
    before = bytes_of(wire)
    rewrite_history(wire, provider=provider)
    assert bytes_of(wire) == before
