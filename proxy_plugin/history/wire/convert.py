"""Neutral messages in any of the three wire forms, for whoever reads a history in another form than it came.

What every form can say comes out as that form says it, and means the same when it is parsed again. What
only the other form has (opaque parts, messages that were not understood) stands there as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from proxy_plugin.history.model import ASSISTANT, SYSTEM, TOOL, USER, Call, Message
from proxy_plugin.history.wire.messages import blocks_of
from proxy_plugin.history.wire.responses import is_item, parts_of

Item = dict[str, Any]


def convert(messages: Sequence[Message], api: str) -> list[Item]:
    """A wire list of `api` ("chat", "messages", "responses") that says what the messages say. KeyError for
    another API."""
    return _WRITERS[api](messages)


def _chat(messages: Sequence[Message]) -> list[Item]:
    return [_chat_message(message) for message in messages]


def _chat_message(message: Message) -> Item:
    item: Item = {"role": message.role, "content": message.content}
    if message.role == TOOL:
        return {"role": TOOL, **_named("tool_call_id", message.answers), "content": _or_empty(message.content)}
    if message.calls:
        item["tool_calls"] = [
            {
                **_named("id", call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    elif message.content is None:
        item["content"] = ""
    return item | _named("name", message.name)


def _messages(messages: Sequence[Message]) -> list[Item]:
    out: list[Item] = []
    results: list[Any] | None = None  # blocks of the user message that takes the results of this turn
    for message in messages:
        if message.role == TOOL:
            if results is None:
                results = []
                out.append({"role": USER, "content": results})
            results.append(_tool_result(message))
            continue
        results = None
        content: Any = blocks_of(message.content) if isinstance(message.content, list) else _or_empty(message.content)
        if message.calls:
            content = [*blocks_of(message.content), *map(_tool_use, message.calls)]
        out.append({"role": message.role, "content": content})
    return out


def _tool_use(call: Call) -> Item:
    return {"type": "tool_use", **_named("id", call.id), "name": call.name, "input": _input(call)}


def _tool_result(message: Message) -> Item:
    content = message.content
    block = {"type": "tool_result", **_named("tool_use_id", message.answers)}
    block["content"] = blocks_of(content) if isinstance(content, list) else _or_empty(content)
    return {**block, "is_error": True} if message.failed else block


def _input(call: Call) -> Any:
    """Arguments as an object, the only thing that this form takes."""
    try:
        value = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        value = call.arguments
    return value if isinstance(value, dict) else {"arguments": value}


def _responses(messages: Sequence[Message]) -> list[Item]:
    out: list[Item] = []
    for message in messages:
        content = message.content
        if message.role == TOOL:
            output = parts_of(content) if isinstance(content, list) else _or_empty(content)
            out.append({"type": "function_call_output", **_named("call_id", message.answers), "output": output})
        elif message.role == ASSISTANT:
            out += _reply(message)
        elif message.role in (USER, SYSTEM):
            said = parts_of(content) if isinstance(content, list) else _or_empty(content)
            out.append({"type": "message", "role": message.role, "content": said})
        else:
            out.append(content if isinstance(content, dict) else {"role": message.role, "content": content})
    return out


def _reply(message: Message) -> list[Item]:
    content = message.content if isinstance(message.content, list) else blocks_of(message.content)
    items: list[Item] = [part for part in content if is_item(part)]
    said = parts_of([part for part in content if not is_item(part)], "output_text")
    if said or not (message.calls or items):
        items.append({"type": "message", "role": ASSISTANT, "content": said})
    for call in message.calls:
        function = {"name": call.name, "arguments": call.arguments}
        items.append({"type": "function_call", **_named("call_id", call.id), **function})
    return items


def _named(key: str, value: str | None) -> Item:
    return {} if value is None else {key: value}


def _or_empty(content: Any) -> Any:
    return "" if content is None else content


_WRITERS: dict[str, Callable[[Sequence[Message]], list[Item]]] = {
    "chat": _chat,
    "messages": _messages,
    "responses": _responses,
}
