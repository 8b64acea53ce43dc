"""Would the provider refuse this history? The rules of pairs and ids, by wire form and provider.

Each function names its rules' sources. Which ids a provider takes, and whether a user message may follow a
tool message, stands in `history/dialects.py` with the source of each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from proxy_plugin.history.dialects import Dialect, dialect_of

_ITEM_ID = 64  # "Expected a string with maximum length 64" for ids of Responses items


def refusals(wire: Any, api: str, provider: str, *, continued: bool = False) -> list[str]:
    """The rules that a wire list breaks, one name a fault; empty if nothing in it would be refused.
    `continued`: the provider holds what came before, so that results may answer calls that are not here."""
    if not isinstance(wire, list):
        return []
    items = [item if isinstance(item, dict) else {} for item in wire]
    dialect = dialect_of(provider, api)
    if api == "responses":
        return list(_responses(items, dialect, continued))
    return list((_messages if api == "messages" else _chat)(items, dialect))


class _Calls:
    """The ids that calls have used, and those of the last turn that wait for their result."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._used: set[str] = set()
        self.waiting: list[str] = []

    def call(self, call_id: Any) -> Iterator[str]:
        if not isinstance(call_id, str) or not call_id:
            yield "call_without_id"
            return
        if call_id in self._used:
            yield "reused_id"
        if not self._dialect.ids.accepts(call_id):
            yield "refused_id"
        self._used.add(call_id)
        self.waiting.append(call_id)

    def result(self, call_id: Any) -> Iterator[str]:
        if call_id in self.waiting:
            self.waiting.remove(call_id)
        else:
            yield "orphan_result"

    def over(self) -> Iterator[str]:
        """The place where results may stand has ended."""
        if self.waiting:
            yield "unanswered_call"
        self.waiting = []


def _chat(items: Sequence[dict[str, Any]], dialect: Dialect) -> Iterator[str]:
    """OpenAI: "An assistant message with 'tool_calls' must be followed by tool messages responding to each
    'tool_call_id'"; "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'";
    "Duplicate value for 'tool_call_id'". Mistral: "Unexpected role 'user' after role 'tool'"."""
    calls = _Calls(dialect)
    before = None
    for item in items:
        role = item.get("role")
        if role == "tool":
            yield from calls.result(item.get("tool_call_id"))
        else:
            yield from calls.over()
            if role == "user" and before == "tool" and not dialect.user_after_tool:
                yield "user_after_tool"
            asked = item.get("tool_calls") if role == "assistant" else None
            for call in asked if isinstance(asked, list) else ():
                yield from calls.call(call.get("id") if isinstance(call, dict) else None)
        before = role
    yield from calls.over()


def _messages(items: Sequence[dict[str, Any]], dialect: Dialect) -> Iterator[str]:
    """Anthropic: "`tool_use` ids must be unique" (over the whole history); "`tool_use` ids were found without
    `tool_result` blocks immediately after"; "unexpected `tool_use_id` found in `tool_result` blocks"; "each
    tool_use must have a single result"; results stand first in their turn. Messages of one role that follow
    one another are one turn."""
    calls = _Calls(dialect)
    for role, turn in groupby(items, key=lambda item: item.get("role")):
        contents = [item.get("content") for item in turn]
        blocks = [block for content in contents if isinstance(content, list) for block in content]
        typed = [block for block in blocks if isinstance(block, dict)]
        if role == "user":
            results = [block.get("type") == "tool_result" for block in typed]
            for block in (block for block, is_result in zip(typed, results, strict=True) if is_result):
                yield from calls.result(block.get("tool_use_id"))
            if results != sorted(results, reverse=True):
                yield "results_not_first"
        yield from calls.over()
        if role == "assistant":
            for block in typed:
                if block.get("type") == "tool_use":
                    yield from calls.call(block.get("id"))
    yield from calls.over()


def _responses(items: Sequence[dict[str, Any]], dialect: Dialect, continued: bool) -> Iterator[str]:
    """OpenAI: "No tool output found for function call"; "No tool call found for function call output with
    call_id"; "Duplicate item found with id". An `item_reference` stands for what the provider holds, so that
    any call or result may be behind it. DeepSeek: outputs directly behind their calls."""
    calls = _Calls(dialect)
    seen: set[str] = set()
    lenient = continued or any(item.get("type") == "item_reference" for item in items)
    before = ""
    for item in items:
        kind = item.get("type")
        kind = kind if isinstance(kind, str) else "message"
        item_id = item.get("id")
        if isinstance(item_id, str) and kind != "item_reference":
            if item_id in seen or len(item_id) > _ITEM_ID:
                yield "item_id"
            seen.add(item_id)
        if "call_id" in item or kind in ("function_call", "function_call_output"):
            if kind.endswith("_output"):
                if not lenient or item.get("call_id") in calls.waiting:
                    yield from calls.result(item.get("call_id"))
            else:
                if not dialect.late_results and before.endswith("_output"):
                    yield from calls.over()
                yield from calls.call(item.get("call_id"))
        elif not dialect.late_results and kind == "message":
            yield from calls.over()
        before = kind
    if not lenient:
        yield from calls.over()
