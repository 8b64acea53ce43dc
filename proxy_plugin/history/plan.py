"""The edits that make one history out of another.

A plan lists the output, message by message: a plain integer is the input message at that index as it
came, an `Edit` is anything else. Codecs turn a plan into the wire form; a stored plan explains a request.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy_plugin.history.model import Message

NO_RESULT = "This call was not answered: no result was recorded."
TURN_CLOSED = "(The results above end this turn.)"
EMPTY_RESULT = "(The tool returned no output.)"
ORPHAN = "Result of a tool call that is not part of this conversation"
"""Texts of the plugin's own messages; the first two are recognised when they come back."""


class Edit(NamedTuple):
    """One output message that differs from its input message, or (`source` None) is the plugin's own."""

    source: int | None
    added: Message | None = None  # the plugin's own message
    call_ids: tuple[str, ...] | None = None  # new ids of the message's calls, in order
    answers: str | None = None  # new id of the call that the result answers
    result: str | None = None  # a text for the result that had none
    summary: str | None = None  # a text block at the end of the user message
    instead_of: tuple[int, ...] = ()  # the input messages that a text of the plugin's stands for


Plan = list[int | Edit]


def source_of(step: int | Edit) -> int | None:
    """Index of the input message that a step of a plan puts out; None for one of the plugin's own."""
    return step if isinstance(step, int) else step.source
