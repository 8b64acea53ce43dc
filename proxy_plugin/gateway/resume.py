"""A client that lost its history: the stored path is put in front of the little that it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy_plugin.history.model import ROOT, Message, node_id, text_of
from proxy_plugin.history.path import Path
from proxy_plugin.history.rewrite import read
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import FIELDS, parsed, unwrap
from proxy_plugin.sessions.tree import History, StoredNode

HEADER = "x-proxy-plugin-resume"
"""Its value is what to go on from: "head" or the id of a snapshot."""

_MARK = "cache_control"
_MOST_BREAKPOINTS = 4
"""Of one request: "A maximum of 4 blocks with cache_control may be provided" (Anthropic)."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A request as if its client had sent everything. `fields`: what it has beside the list in addition."""

    wire: list[Any]
    fields: Mapping[str, Any]


def behind(stored: History, api: str, wire: Any, body: Mapping[str, Any]) -> Whole | None:
    """The client's list behind the stored path, in the client's wire form. Leading system text is the client's
    own if it sends any. None where the path is damaged or the list is none."""
    sent = read(wire, api)
    if sent is None:
        return None
    return before(replace(stored, nodes=tuple(_without_retry(stored.nodes, sent.messages[sent.lead :]))), sent, body)


def before(stored: History, sent: Path, body: Mapping[str, Any]) -> Whole | None:
    """The same with all of the stored path."""
    start = sent.wire_start(sent.lead)
    if start is None or stored.missing:
        return None
    path = unwrap([parsed(node.body) for node in stored.nodes], sent.api).messages
    lead, fields = _lead(parsed(stored.lead) if stored.lead else None, sent.api)
    if sent.lead or body.get(FIELDS.get(sent.api, "")):
        lead, fields = sent.wire[:start], {}
    if _breakpoints([lead, fields, path, sent.wire[start:]]) > _MOST_BREAKPOINTS:
        path = [_unmarked(item) for item in path]
    return Whole([*lead, *path, *sent.wire[start:]], fields)


def _without_retry(nodes: Sequence[StoredNode], new: Sequence[Message]) -> Sequence[StoredNode]:
    """The path without its end if that is what is being sent: a request that failed is sent again."""
    if len(new) > len(nodes):
        return nodes
    kept, end = nodes[: len(nodes) - len(new)], nodes[len(nodes) - len(new) :]
    parent = kept[-1].id if kept else ROOT
    for node, message in zip(end, new, strict=True):
        parent = node_id(parent, message)
        if node.id != parent:
            return nodes
    return kept


def _lead(entries: Any, api: str) -> tuple[list[Any], dict[str, Any]]:
    """Stored leading text as messages of this API, and what stands beside the list."""
    known = entries if isinstance(entries, list) else []
    lead = unwrap(known, api)
    system = lead.system
    if api == "messages" and any(entry.get("api") != api for entry in known if isinstance(entry, dict)):
        texts = [text_of(message.content) for message in CODECS[api].parse(lead.messages)]
        texts = [system, *texts] if isinstance(system, str) else texts
        return [], {FIELDS[api]: "\n\n".join(texts)}  # it takes no system text in the list
    return lead.messages, {} if system is None else {FIELDS[api]: system}


def _breakpoints(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_breakpoints, value))
    if not isinstance(value, dict):
        return 0
    return (_MARK in value) + sum(_breakpoints(item) for item in value.values() if isinstance(item, dict | list))


def _unmarked(value: Any) -> Any:
    """Without cache breakpoints. A client moves its own on with each request, so that the messages as they were
    first sent hold more of them, all together, than any of its requests."""
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _unmarked(item) if key == "content" else item for key, item in value.items() if key != _MARK}
