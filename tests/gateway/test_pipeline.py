"""The way of a request without LiteLLM and without a store: counted pass-throughs and the safety fallback."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from proxy_plugin.events import Event, PassedThrough, RequestHandled
from proxy_plugin.gateway.pipeline import Incoming, Pipeline, Turn
from proxy_plugin.gateway.safety import REFUSALS
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.settings import Limits, Settings
from tests.agent import rows

ROUND: list[dict[str, Any]] = [
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": rows("find", "")},
    {"role": "assistant", "content": "done"},
]


def history(subtasks: int = 1) -> list[Any]:
    """Finished subtasks and a new question."""
    wire: list[Any] = [{"role": "user", "content": "start"}]
    for number in range(subtasks):
        for message in json.loads(json.dumps(ROUND).replace('"c1"', f'"c{number}"')):
            wire.append(message)
        wire.append({"role": "user", "content": f"next {number}"})
    return wire


class Harness:
    def __init__(self, settings: Settings | None = None) -> None:
        self.events: list[Event] = []
        self.pipeline = Pipeline(settings or Settings(), None, self.events.append)

    def send(self, wire: Any, body: dict[str, Any] | None = None, mode: str = "enforce") -> Turn | None:
        headers = {"x-litellm-session-id": "s"}
        incoming = Incoming("chat", wire, headers, body or {}, "tenant", dialect_of("openai"), mode)
        return asyncio.run(self.pipeline.before(incoming))

    def accept(self, wire: Any) -> Turn:
        turn = self.send(wire)
        assert turn is not None
        asyncio.run(self.pipeline.after(turn, [{"role": "assistant", "content": "ok"}], complete=True))
        return turn

    def refuse(self, wire: Any) -> Turn:
        turn = self.send(wire)
        assert turn is not None
        self.pipeline.failed(turn, refused=True)
        return turn

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, PassedThrough)]


def collapsed(turn: Turn) -> str:
    return turn.headers["x-proxy-plugin-collapsed"]


def test_three_refusals_in_a_row_make_a_session_leave_with_repair_alone_until_the_next_subtask() -> None:
    harness = Harness()
    assert [collapsed(harness.refuse(history(1))) for _ in range(REFUSALS)] == ["1"] * REFUSALS
    assert collapsed(harness.refuse(history(1))) == "0"
    assert collapsed(harness.accept(history(1))) == "0"
    assert collapsed(harness.refuse(history(1))) == "0"  # the same subtask still
    assert collapsed(harness.refuse(history(2))) == "0"  # the next one, refused even so
    assert collapsed(harness.accept(history(2))) == "0"  # the next one, accepted
    assert collapsed(harness.accept(history(2))) == "2"
    assert harness.reasons.count("safety_fallback") == 5


def test_a_success_in_between_starts_the_count_anew() -> None:
    harness = Harness()
    for _ in range(REFUSALS - 1):
        harness.refuse(history(1))
    harness.accept(history(1))
    assert [collapsed(harness.refuse(history(1))) for _ in range(REFUSALS)] == ["1"] * REFUSALS


def test_what_is_not_understood_passes_and_is_counted() -> None:
    harness = Harness()
    for wire in (None, "text", [], [1], {"role": "user"}):
        assert harness.send(wire) is None
    assert harness.reasons == ["not_understood"] * 5
    assert {e.outcome for e in harness.events if isinstance(e, RequestHandled)} == {"passed"}


def test_above_the_first_limit_only_repair_runs_and_above_the_second_nothing() -> None:
    wire = history(2)
    wire[1]["tool_calls"][0]["id"] = wire[2]["tool_call_id"] = "c1"  # now used twice
    harness = Harness(Settings(limits=Limits(max_messages=5)))
    turn = harness.send(wire)
    assert turn is not None and (collapsed(turn), turn.headers["x-proxy-plugin-repaired"]) == ("0", "1")
    assert harness.reasons == ["repair_only"]

    harness = Harness(Settings(limits=Limits(repair_max_messages=5)))
    turn = harness.send(wire)
    assert turn is not None and turn.messages is wire
    assert harness.reasons == ["too_large"]


def test_audit_sends_the_original_and_says_what_would_have_been() -> None:
    harness = Harness()
    wire = history(1)
    turn = harness.send(wire, mode="audit")
    assert turn is not None and turn.messages is wire and collapsed(turn) == "1"
    assert harness.pipeline.names(turn).call("c0") == "c0"
    assert [e.outcome for e in harness.events if isinstance(e, RequestHandled)] == ["audited"]


def test_client_set_subtasks_without_a_store_are_counted_as_missing_context() -> None:
    harness = Harness()
    harness.send(history(1), {"metadata": {"subtask_id": "two"}})
    assert harness.reasons == ["context_missing"]


def test_an_id_of_the_reply_that_the_path_holds_is_renamed_and_any_other_is_not() -> None:
    harness = Harness()
    turn = harness.send(history(1))
    assert turn is not None
    renamed = harness.pipeline.names(turn).call("c0")
    assert renamed != "c0" and harness.pipeline.names(turn).call("new") == "new"
    assert harness.pipeline.names(turn).call("new") not in ("new", renamed)  # a second call under one id
