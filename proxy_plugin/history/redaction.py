"""What is kept of a message where no texts are kept (`store.content: structure`). Pure.

The wire form stays, in each of the three forms: roles, types, statuses, ids of calls and names of tools. Every text
is "", arguments that are an object are {}, and everything else is gone: what may stay is listed here, so that a
field which is not known goes too. A list keeps its length, and so each form still reads into the same messages, of
the same roles and calls, without what they say.

A stored message says that it is one of these (see wire/stored.py for the others):

    {"api", "content": "structure", "bytes": what the whole message had, "wire"}
    {"api", "content": "structure", "bytes", "system" | "instructions"}            beside the list, in a lead

What may be an id is no place for a text either: one that is longer than any provider's, or is no single word, is
kept as a hash, which still tells the same from another one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import orjson

from proxy_plugin.history.wire.stored import FIELDS

STRUCTURE = "structure"
NOT_KEPT = "texts are not kept (store.content: structure)"

Keep = Callable[[Any], Any]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_STATUSES = frozenset({"in_progress", "completed", "incomplete", "failed", "searching", "interpreting", "calling"})
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_ID = re.compile(r"[\w.:/|+=@-]{1,64}\Z", re.ASCII)
"""OpenAI takes ids up to this length. A longer one may hold what a model thought (Gemini's signatures)."""
_ITEM_KIND = re.compile(r"(?:msg|rs|ws|fs|ci|ig|mcpl?)_")
"""What the id of an item says of it, which is all that an `item_reference` does."""
_NAME = re.compile(r"[\w.:/-]{1,128}\Z", re.ASCII)


def is_redacted(stored: Any) -> bool:
    """Whether a parsed stored message, or one of a parsed lead, was kept without its texts."""
    return isinstance(stored, dict) and stored.get("content") == STRUCTURE


def is_redacted_lead(stored: Any) -> bool:
    """Whether a parsed lead was, all of it."""
    return isinstance(stored, list) and bool(stored) and all(map(is_redacted, stored))


def redacted(body: bytes) -> bytes:
    """A stored message without its texts; of one that has none it is the same."""
    return _dumped(_without_texts(_parsed(body), len(body)))


def redacted_lead(body: bytes) -> bytes:
    """A stored lead, which is a list of such messages."""
    entries = _parsed(body)
    listed = entries if isinstance(entries, list) else []
    return _dumped([_without_texts(entry, len(_dumped(entry))) for entry in listed])


def size_of_whole(stored: Any, size: int) -> int:
    """Bytes of a parsed stored message before its texts were taken out; `size`: those that it has."""
    whole = stored.get("bytes") if is_redacted(stored) else None
    return whole if type(whole) is int and 0 <= whole < 1 << 32 else size


def _parsed(body: bytes) -> Any:
    """None for what cannot be read."""
    for loads in (orjson.loads, json.loads):  # the second one takes lone surrogates and long numbers
        try:
            return loads(body)
        except (ValueError, RecursionError):
            continue
    return None


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):
        return json.dumps(value).encode()


def _without_texts(stored: Any, size: int) -> dict[str, Any]:
    entry = stored if isinstance(stored, dict) else {}
    given = entry.get("api")
    api = given if isinstance(given, str) and given in _MESSAGES else "chat"
    said = {"api": api, "content": STRUCTURE, "bytes": size_of_whole(entry, size)}
    field, wire = FIELDS.get(api), entry.get("wire")
    if field is not None and field in entry and "wire" not in entry:
        return {**said, field: _content(entry[field])}
    if isinstance(wire, list):  # one that takes several items, see the codecs' `fragment`
        return {**said, "wire": [item if isinstance(item, bool) else _message(api, item) for item in wire]}
    return {**said, "wire": _message(api, wire)}


def _message(api: str, item: Any) -> Any:
    return _MESSAGES[api](item) if isinstance(item, dict) else {}


# What stays of a value


def _role(value: Any) -> Any:
    return value if isinstance(value, str) and value in _ROLES else None


def _status(value: Any) -> Any:
    return value if isinstance(value, str) and value in _STATUSES else None


def _type(value: Any) -> Any:
    return value if isinstance(value, str) and _TYPE.match(value) else None


def _flag(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def _identifier(form: re.Pattern[str]) -> Keep:
    def keep(value: Any) -> Any:
        if not isinstance(value, str) or not value.strip():
            return "" if isinstance(value, str) else None
        if form.match(value):
            return value
        kind = _ITEM_KIND.match(value)
        return f"{kind[0] if kind else ''}hash-{sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"

    return keep


def _empty(value: Any) -> Any:
    """Nothing of the same type, where it is one that holds texts."""
    return type(value)() if isinstance(value, str | list | dict) else None


def _one(shape: Mapping[str, Keep]) -> Keep:
    """An object of which these fields stay."""
    return lambda value: (
        {key: shape[key](inner) for key, inner in value.items() if key in shape} if isinstance(value, dict) else None
    )


def _each(keep: Keep) -> Keep:
    """A list, item by item. Anything else is emptied."""

    def kept(value: Any) -> Any:
        if not isinstance(value, list):
            return _empty(value)
        return [_empty(item) if isinstance(item, str) else keep(item) for item in value]

    return kept


_id, _name = _identifier(_ID), _identifier(_NAME)

# Chat completions

_PART: Mapping[str, Keep] = {"type": _type, "text": _empty}
_content = _each(_one(_PART))
_FUNCTION: Mapping[str, Keep] = {"name": _name, "arguments": _empty, "input": _empty}
_CALL: Mapping[str, Keep] = {"id": _id, "type": _type, "function": _one(_FUNCTION), "custom": _one(_FUNCTION)}
_CHAT: Mapping[str, Keep] = {
    "role": _role,
    "content": _content,
    "tool_calls": _each(_one(_CALL)),
    "tool_call_id": _id,
}

# Messages: a block of a call, one of a result, any other

_TOOL_USE: Mapping[str, Keep] = {"type": _type, "id": _id, "name": _name, "input": _empty}
_TOOL_RESULT: Mapping[str, Keep] = {"type": _type, "tool_use_id": _id, "is_error": _flag, "content": _content}


def _block(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind.endswith("tool_use"):
        return _one(_TOOL_USE)(value)
    if isinstance(kind, str) and kind.endswith("tool_result"):
        return _one(_TOOL_RESULT)(value)
    return _one({**_PART, "thinking": _empty})(value)


_ANTHROPIC: Mapping[str, Keep] = {"role": _role, "content": _each(_block)}

# Responses: an item of a call, one of a result, any other

_ITEM: Mapping[str, Keep] = {"type": _type, "id": _id, "role": _role, "status": _status, "content": _content}
_ITEM_CALL: Mapping[str, Keep] = {**_ITEM, "call_id": _id, "name": _name, "arguments": _empty, "input": _empty}
_ITEM_OUTPUT: Mapping[str, Keep] = {**_ITEM, "call_id": _id, "output": _content}


def _item(value: Any) -> Any:
    kind = value.get("type")
    if isinstance(kind, str) and kind.endswith("_output"):
        return _one(_ITEM_OUTPUT)(value)
    return _one(_ITEM_CALL if isinstance(kind, str) and kind.endswith("_call") else _ITEM)(value)


_MESSAGES: Mapping[str, Keep] = {"chat": _one(_CHAT), "messages": _one(_ANTHROPIC), "responses": _item}
