"""Plan tools: how an agent that works for hours under one user message says that a step is done.

A call of such a tool sends the whole plan with the state of each step, as `TodoWrite` (Claude Code),
`update_plan` (Codex), `write_todos` (LangChain, Gemini CLI) and `task_tracker` (OpenHands) do: some
argument is a list of objects with a `status`. A call in which a step is done that was not done in the
call before closes a step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from proxy_plugin.history.model import Call, Message

_DONE = frozenset({"completed", "complete", "done"})
_NAMES = ("id", "content", "step", "title", "description", "task", "text")
"""Keys by which a step is known again, the first that is there."""

Plans = Mapping[str, frozenset[str]]
"""Tool -> the steps that are done in its newest call."""


class PlanCall(NamedTuple):
    """A message with calls of plan tools: where it stands, whether a step is done there that was not done in
    the call before, and what is known behind it."""

    at: int
    closes: bool
    known: Plans


def plan_calls(messages: Sequence[Message], tools: Collection[str], known: Plans) -> list[PlanCall]:
    """The messages that show a plan, in their order. `known`: what was known in front of them."""
    found = []
    for index, message in enumerate(messages):
        calls = [call for call in message.calls if call.name in tools]
        shown = [(call.name, done) for call in calls if (done := _done(call)) is not None]
        if shown:
            closes = any(done - known.get(tool, frozenset()) for tool, done in shown)
            known = {**known, **dict(shown)}
            found.append(PlanCall(index, closes, known))
    return found


def _done(call: Call) -> frozenset[str] | None:
    """The steps that a call shows as done; None if it shows no plan."""
    try:
        arguments = orjson.loads(call.arguments)
    except ValueError:
        return None
    if not isinstance(arguments, dict):
        return None
    for value in arguments.values():
        if isinstance(value, list) and value and all(isinstance(step, dict) and "status" in step for step in value):
            return frozenset([_name(step) for step in value if str(step["status"]).lower() in _DONE])
    return None


def _name(step: dict[str, Any]) -> str:
    return next((str(step[key]) for key in _NAMES if key in step), "")
