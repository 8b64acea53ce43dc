"""Chat completions: one wire message is one neutral message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from proxy_plugin.history.model import ASSISTANT, OTHER, SYSTEM, TOOL, USER, Call, Message, dump
from proxy_plugin.history.plan import Edit, Plan
from proxy_plugin.history.wire import parts
from proxy_plugin.history.wire.parts import usable_id

_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL}


def parse(wire: Sequence[Any], start: int = 0, *, continued: bool = False) -> list[Message]:
    """Neutral messages of wire[start:], one each; what is not understood becomes OTHER and passes."""
    messages = []
    for index in range(start, len(wire)):
        item = wire[index]
        role = item.get("role")
        role = _ROLES.get(role, OTHER) if isinstance(role, str) else OTHER
        calls: tuple[Call, ...] = ()
        answers = None
        if role == ASSISTANT:
            raw = item.get("tool_calls")
            if raw and isinstance(raw, list):
                calls = tuple([_call(entry) for entry in raw if isinstance(entry, dict)])
        elif role == TOOL:
            answers = usable_id(item.get("tool_call_id"))
        name = item.get("name") if role in (USER, SYSTEM) else None
        messages.append(
            Message(role, item.get("content"), calls, answers, name if isinstance(name, str) else None, False, index)
        )
    return messages


def settled(wire: Sequence[Any], end: int) -> int:
    """How many wire messages are read alike whatever stands from `end` on: each is read by itself."""
    return end


def _call(entry: Mapping[str, Any]) -> Call:
    function = entry.get("function")
    if not isinstance(function, dict):
        custom = entry.get("custom")  # a custom tool: free text instead of JSON arguments
        function = {"name": custom.get("name"), "arguments": custom.get("input")} if isinstance(custom, dict) else {}
    name, arguments = function.get("name"), function.get("arguments")
    return Call(
        usable_id(entry.get("id")),
        name if isinstance(name, str) else "",
        arguments if isinstance(arguments, str) else "",
    )


def render(wire: Sequence[Any], messages: Sequence[Message], plan: Plan) -> list[Any]:
    """The wire list that the plan describes; untouched messages are the objects of `wire`."""
    return [wire[step] if type(step) is int else _edited(wire, step) for step in plan]  # type: ignore[arg-type]


def _edited(wire: Sequence[Any], edit: Edit) -> dict[str, Any]:
    mark = _breakpoint(wire, edit.instead_of)
    if edit.added is not None:
        item = _own(edit.added, {} if edit.summary is not None else mark)
    else:
        item = dict(wire[edit.source])  # type: ignore[index]
    if edit.call_ids is not None:
        ids = iter(edit.call_ids)
        item["tool_calls"] = [
            {**call, "id": next(ids)} if isinstance(call, dict) else call for call in item["tool_calls"]
        ]
    if edit.answers is not None:
        item["tool_call_id"] = edit.answers
    if edit.result is not None:
        item["content"] = edit.result
    if edit.summary is not None:
        item["content"] = [*_parts(item), {**parts.text(edit.summary), **mark}]
    return item


def _parts(item: dict[str, Any]) -> list[Any]:
    """The content as parts. A breakpoint at the message goes to its text: with parts it would not count."""
    content = item["content"]
    if not isinstance(content, str):
        return list(content)
    mark = {"cache_control": item.pop("cache_control")} if "cache_control" in item else {}
    return [{**parts.text(content), **mark}]


def _breakpoint(wire: Sequence[Any], indices: Iterable[int]) -> dict[str, Any]:
    """The first cache breakpoint of these messages, which what stands instead of them takes over. It may stand
    at a message, at one of its calls or at a part of its content (LiteLLM's additions for Anthropic)."""
    for index in indices:
        message = wire[index]
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and "cache_control" in call and (mark := parts.breakpoint_of(call)):
                return mark
        plain = type(message.get("content")) is str and "cache_control" not in message
        if not plain and (mark := parts.breakpoint_of(message)):
            return mark
    return {}


def _own(message: Message, mark: Mapping[str, Any]) -> dict[str, Any]:
    if message.role == TOOL:
        return {"role": "tool", "tool_call_id": message.answers, "content": message.content}
    content = message.content
    if mark and isinstance(content, list) and content and isinstance(content[-1], dict):
        return {"role": message.role, "content": [*content[:-1], {**content[-1], **mark}]}
    return {"role": message.role, "content": content, **mark}


def weight(items: Sequence[Any], sizes: Mapping[int, int]) -> int:
    """Bytes of the messages, a comma included for each. `sizes`: those of known objects, by identity."""
    return sum(sizes.get(id(item)) or len(dump(item)) for item in items) + len(items)


def mend(wire: list[Any]) -> tuple[list[Any], dict[str, int]]:
    """There is nothing in this form that the neutral messages do not show."""
    return wire, {}


def fragment(wire: Sequence[Any], message: Message) -> bytes:
    """The message itself."""
    return dump(wire[message.source])


def join(fragments: Sequence[Any]) -> list[Any]:
    return list(fragments)
