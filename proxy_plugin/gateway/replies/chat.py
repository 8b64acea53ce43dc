"""Chat completions: message objects, and chunks with deltas. Of several choices the first one is collected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy_plugin.gateway.replies.reply import Names, Reply, usable


def take_reply(response: Any, names: Names) -> Reply | None:
    choices = getattr(response, "choices", None) or []
    for choice in choices:
        for call in getattr(choice.message, "tool_calls", None) or []:
            if usable(call.id):
                new = names.call(call.id)
                if new != call.id:
                    call.id = new
    if not choices:
        return None
    wire: dict[str, Any] = choices[0].message.model_dump(exclude_none=True)
    return Reply([{"role": "assistant", "content": None, **wire}], complete=True)


class StreamedChat:
    over = False  # a client goes on with the whole history

    def __init__(self, names: Names) -> None:
        self._name_of = names.call
        self._names: dict[tuple[int, int, str], str] = {}
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._newest: dict[int, dict[str, Any]] = {}  # index of a tool call -> the newest call under it
        self._finished = False

    def see(self, chunk: Any) -> Sequence[Any]:
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
                    self._finished = True
        return (chunk,)

    def _see_call(self, call: Any, choice: int, collect: bool) -> None:
        fresh = False
        if usable(call.id):
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

    def rest(self) -> Sequence[Any]:
        return ()

    def reply(self) -> Reply | None:
        if not self._text and not self._calls and not self._finished:
            return None
        wire: dict[str, Any] = {"role": "assistant", "content": "".join(self._text) or None}
        if self._calls:
            wire["tool_calls"] = self._calls
        if self._reasoning:
            wire["reasoning_content"] = "".join(self._reasoning)
        return Reply([wire], self._finished)
