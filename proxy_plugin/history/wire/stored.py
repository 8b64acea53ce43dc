"""How the store holds messages, and how a list is made of them again, in the form they came or another.

A stored message is a JSON object: `{"api", "wire"}`, the codec's fragment of one neutral message. What
leads a conversation is a list of such objects; a system prompt that stands beside the list in the request
is `{"api": "messages", "system"}` or `{"api": "responses", "instructions"}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from proxy_plugin.history.model import SYSTEM, Message, dump
from proxy_plugin.history.path import Path
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.convert import convert

FIELDS = {"messages": "system", "responses": "instructions"}
"""The request field beside the list that holds the system prompt of an API."""


@dataclass(frozen=True, slots=True)
class WireHistory:
    """A list in the wire form of `api`, and the system prompt where that form keeps it beside the list."""

    api: str
    messages: list[Any]
    system: Any = None


def wrap(api: str, fragment: bytes) -> bytes:
    """The stored form of one message."""
    return b'{"api":"%s","wire":%s}' % (api.encode(), fragment)


def lead_entries(path: Path, body: Mapping[str, Any]) -> list[bytes]:
    """The stored form of everything in front of the first node: the field beside the list, then leading
    system and developer messages."""
    entries = [wrap(path.api, path.fragment(index)) for index in range(path.lead)]
    field = FIELDS.get(path.api)
    if field is not None and body.get(field):
        entries.insert(0, b'{"api":"%s","%s":%s}' % (path.api.encode(), field.encode(), dump(body[field])))
    return entries


def unwrap(stored: Sequence[Any], form: str | None = None) -> WireHistory:
    """The wire list of parsed stored messages, leading ones first. `form`: the API; None: the one in which
    the newest message came. Stored messages that are damaged are left out. KeyError for an unknown form."""
    known = [entry for entry in stored if isinstance(entry, dict) and entry.get("api") in tuple(CODECS)]
    api = form or (known[-1]["api"] if known else "chat")
    codec = CODECS[api]
    beside = next((entry for entry in known if _is_field(entry)), None)
    fragments = [entry for entry in known if _is_fragment(entry)]
    if all(entry["api"] == api for entry in fragments):
        messages = codec.join([entry["wire"] for entry in fragments])
    else:
        neutral: list[Message] = []
        for of, run in groupby(fragments, key=lambda entry: entry["api"]):
            neutral += CODECS[of].parse(CODECS[of].join([entry["wire"] for entry in run]))
        messages = convert(neutral, api)
    if beside is None:
        return WireHistory(api, messages)
    system = beside[FIELDS[beside["api"]]]
    if api in FIELDS and (api == beside["api"] or isinstance(system, str)):
        return WireHistory(api, messages, system)
    first = Message(SYSTEM, system)
    return WireHistory(api, [*convert([first], api), *messages])


def parsed(body: bytes | None) -> Any:
    """A stored message, None where it does not parse."""
    try:
        return orjson.loads(body or b"")
    except ValueError:
        return None


def _is_field(entry: Mapping[str, Any]) -> bool:
    return "wire" not in entry and entry["api"] in FIELDS and FIELDS[entry["api"]] in entry


def _is_fragment(entry: Mapping[str, Any]) -> bool:
    """Whether a codec can join what the entry holds: an object, or as its `fragment` says a list of them."""
    wire = entry.get("wire")
    if entry["api"] == "messages" and isinstance(wire, list):
        objects = len(wire) > 1 and all(isinstance(item, dict) for item in wire[1:])
        return objects and (wire[0] is False or isinstance(wire[1].get("content"), list))
    if entry["api"] == "responses" and isinstance(wire, list):
        return all(isinstance(item, dict) for item in wire)
    return isinstance(wire, dict)
