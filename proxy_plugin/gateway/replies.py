"""Replies on their way back: ids that the path already holds are renamed, and the message is collected.

LiteLLM's response and chunk objects are handled by their attributes and changed in place: an id, nothing
else. Chunks are neither held back nor merged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NameOf = Callable[[str], str]


def take_reply(response: Any, name_of: NameOf) -> dict[str, Any] | None:
    """Renames the ids of a whole chat reply and gives its first choice as a wire message; None if there
    is none."""
    choices = getattr(response, "choices", None) or []
    for choice in choices:
        for call in getattr(choice.message, "tool_calls", None) or []:
            if isinstance(call.id, str) and call.id:
                new = name_of(call.id)
                if new != call.id:
                    call.id = new
    if not choices:
        return None
    wire: dict[str, Any] = choices[0].message.model_dump(exclude_none=True)
    return {"role": "assistant", "content": None, **wire}


class StreamedReply:
    """Renames ids in the chunks of a streamed chat reply and collects its first choice."""

    def __init__(self, name_of: NameOf) -> None:
        self._name_of = name_of
        self._names: dict[tuple[int, int, str], str] = {}
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._newest: dict[int, dict[str, Any]] = {}  # index of a tool call -> the newest call under it
        self.finished = False

    def see(self, chunk: Any) -> None:
        for choice in getattr(chunk, "choices", None) or []:
            delta = choice.delta
            first = choice.index == 0
            for call in getattr(delta, "tool_calls", None) or []:
                self._see_call(call, choice.index, first)
            if first:
                if getattr(delta, "content", None):
                    self._text.append(delta.content)
                if getattr(delta, "reasoning_content", None):
                    self._reasoning.append(delta.reasoning_content)
                if choice.finish_reason:
                    self.finished = True

    def _see_call(self, call: Any, choice: int, collect: bool) -> None:
        fresh = False
        if isinstance(call.id, str) and call.id:
            key = (choice, call.index, call.id)
            fresh = key not in self._names
            if fresh:
                self._names[key] = self._name_of(call.id)
            if self._names[key] != call.id:
                call.id = self._names[key]
        if not collect:
            return
        if fresh or call.index not in self._newest:
            made = {"id": call.id, "type": "function", "function": {"name": "", "arguments": ""}}
            self._newest[call.index] = made
            self._calls.append(made)
        if call.function is not None:
            function = self._newest[call.index]["function"]
            function["name"] += call.function.name or ""
            function["arguments"] += call.function.arguments or ""

    def message(self) -> dict[str, Any] | None:
        """The reply as a wire message; None before anything came."""
        if not self._text and not self._calls and not self.finished:
            return None
        wire: dict[str, Any] = {"role": "assistant", "content": "".join(self._text) or None}
        if self._calls:
            wire["tool_calls"] = self._calls
        if self._reasoning:
            wire["reasoning_content"] = "".join(self._reasoning)
        return wire
