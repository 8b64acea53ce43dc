"""The neutral message: what a conversation means, whatever wire form carried it.

A wire list (`chat`, `messages` or `responses`) is parsed into a sequence of `Message` at the
granularity of chat completions: one assistant message with its calls, one `tool` message a result.
`Message.content` keeps the chat form (a string, a list of parts, or None) and is never copied or
changed. Everything downstream of the codecs (ids, repair, subtasks, summaries, the store) sees
only these values, so that one engine serves every wire form.

A node's id is a hash over its parent's id and the *meaning* of the message. Meaning leaves out what
clients echo or reorder (nulls, annotations, key order, the spacing of JSON arguments), so that the
same conversation re-sent by another client is the same path of the tree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

SYSTEM, USER, ASSISTANT, TOOL, OTHER = "system", "user", "assistant", "tool", "other"

ROOT = ""
"""Parent of a conversation's first message."""

REF_LENGTH = 12
"""Characters of a node id that a summary names."""


class Call(NamedTuple):
    """One tool call. `id` is None where the wire has none that can be used (missing, empty, no string)."""

    id: str | None
    name: str
    arguments: str  # as on the wire: usually JSON text, but nothing forces a client to send that


class Message(NamedTuple):
    """One message at chat granularity. `source` is where it stands on the wire: the codec's business."""

    role: str  # SYSTEM (developer too), USER, ASSISTANT, TOOL, or OTHER for what is not understood
    content: Any  # chat form: str, list of parts, or None
    calls: tuple[Call, ...] = ()  # ASSISTANT only
    answers: str | None = None  # TOOL only: the id of the call it answers
    name: str | None = None  # a participant's name, where the client gave one
    failed: bool = False  # TOOL only: the wire marks the result as an error
    source: Any = None
    sealed: bool = False  # holds half of a pair whose other half is not in sight: its subtask stays whole


class Round(NamedTuple):
    """One tool round: the assistant message and, for each of its calls in order, the result (or None)."""

    assistant: Message
    results: tuple[Message | None, ...]


def text_of(content: Any) -> str:
    """The text of chat-form content: the string itself, or the text parts joined by newlines."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def dump(value: Any) -> bytes:
    """Bytes of a wire value as orjson writes them; for what orjson refuses (lone surrogates, numbers over
    64 bit, foreign objects) an ASCII rendering that is as deterministic. Never raises."""
    try:
        return bytes(memoryview(orjson.dumps(value)))  # copied: what orjson gives keeps all that it was written in
    except (TypeError, ValueError, RecursionError):
        return _dump_odd(value)


def _dump_sorted(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, RecursionError):
        return _dump_odd(value)


def _dump_odd(value: Any) -> bytes:
    """JSON-like text by an explicit stack, so that neither depth nor cycles nor foreign types end it."""
    out: list[str] = []
    path: set[int] = set()  # containers that are open, to cut cycles
    stack: list[Any] = [(False, value)]
    while stack:
        verbatim, item = stack.pop()
        if verbatim:
            if isinstance(item, int):
                path.discard(item)
            else:
                out.append(item)
        elif isinstance(item, dict | list | tuple) and id(item) not in path:
            path.add(id(item))
            stack.append((True, id(item)))
            if isinstance(item, dict):
                out.append("{")
                stack.append((True, "}"))
                for key, inner in reversed(item.items()):
                    stack += [(True, ","), (False, inner), (True, _odd_key(key) + ":")]
            else:
                out.append("[")
                stack.append((True, "]"))
                for inner in reversed(item):
                    stack += [(True, ","), (False, inner)]
        elif item is None or isinstance(item, str | int | float):
            out.append(_odd_scalar(item))
        else:
            out.append(f"<{type(item).__name__}>")
    return "".join(out).encode()


def _odd_scalar(value: str | int | float | None) -> str:
    try:
        return json.dumps(value)
    except ValueError:  # an integer of more digits than Python writes as decimals
        return hex(value)  # type: ignore[arg-type]


def _odd_key(key: Any) -> str:
    return json.dumps(_odd_scalar(key) if isinstance(key, int) else str(key))


_LONG_NUMBER = re.compile(r"[0-9][0-9.]{15}")


def _arguments_meaning(arguments: str) -> Any:
    """JSON arguments by value, so that spacing and key order do not count, and none are those of an empty
    object; other text as it is."""
    if arguments and arguments[0] not in "{[":
        return arguments
    try:
        if _LONG_NUMBER.search(arguments):  # a float would merge long numbers
            return [json.loads(arguments, parse_int=_exactly, parse_float=_exactly)]
        return [orjson.loads(arguments or "{}")]
    except (ValueError, RecursionError):
        return arguments


def _exactly(number: str) -> Any:
    return float(number) if len(number) < 16 else [number]


_ECHOED_DEPTH = 32
"""How deep the objects of an API go at most; what is nested deeper is compared as it is."""


def _content_meaning(content: Any) -> Any:
    if content is None or content == []:
        return ""
    if not isinstance(content, list):
        return _without_nulls(content)
    parts = [_part_meaning(part) for part in content]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts


def _part_meaning(part: Any) -> Any:
    if not isinstance(part, dict):
        return [part]
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    return _without_nulls({key: value for key, value in part.items() if key != "cache_control"})


def _without_nulls(value: Any, depth: int = _ECHOED_DEPTH) -> Any:
    """A value without the fields that are null: an API's schema reads them as if they were not there, and a
    client's library writes or omits them as it likes. In a list each place counts."""
    if isinstance(value, dict) and depth:
        return {key: _without_nulls(inner, depth - 1) for key, inner in value.items() if inner is not None}
    if isinstance(value, list) and depth:
        return [_without_nulls(inner, depth - 1) for inner in value]
    return value


def meaning(message: Message) -> bytes:
    """Canonical bytes of what the message says; equal for every wire form and client echo of it."""
    if not message.calls and type(message.content) is str:  # by far the most frequent shape
        return dump([message.role, message.content, [], message.answers, message.name])
    calls = [[call.id, call.name, _arguments_meaning(call.arguments)] for call in message.calls]
    return _dump_sorted([message.role, _content_meaning(message.content), calls, message.answers, message.name])


def node_id(parent: str, message: Message) -> str:
    """32 hexadecimal characters (128 bits of SHA-256: contents are chosen by strangers)."""
    return sha256(parent.encode() + b"\0" + meaning(message)).hexdigest()[:32]


def lead_length(messages: Sequence[Message]) -> int:
    """How many leading messages are system or developer text: an attribute of the request, not of the tree."""
    for index, message in enumerate(messages):
        if message.role != SYSTEM:
            return index
    return len(messages)
