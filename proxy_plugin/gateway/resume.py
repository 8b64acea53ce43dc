"""A client that lost its history: the stored path is put in front of the little that it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy_plugin.history.model import ROOT, Message, node_id, text_of
from proxy_plugin.history.path import Path
from proxy_plugin.history.redaction import is_redacted
from proxy_plugin.history.rewrite import read
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import FIELDS, parsed, unwrap
from proxy_plugin.sessions.tree import History, StoredNode

HEADER = "x-proxy-plugin-resume"
"""Its value is what to go on from: "head" or the id of a snapshot."""

_MARK = "cache_control"
_MOST_BREAKPOINTS = 4
"""Of one request: "A maximum of 4 blocks with cache_control may be provided" (Anthropic)."""
_LEVELS = 8
"""As deep as a breakpoint can stand: lists of messages, a message, its content, a block, the content of a result."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A request as if its client had sent everything. `fields`: what it has beside the list in addition."""

    wire: list[Any]
    fields: Mapping[str, Any]


def behind(stored: History, api: str, wire: Any, body: Mapping[str, Any]) -> Whole | None:
    """The client's list behind the stored path, in the client's wire form. Leading system text is the client's
    own if it sends any. None where the path or its leading text is damaged or kept without its texts, or the list is
    none."""
    sent = read(wire, api)
    if sent is None:
        return None
    return before(replace(stored, nodes=tuple(_without_retry(stored.nodes, sent.messages[sent.lead :]))), sent, body)


def before(stored: History, sent: Path, body: Mapping[str, Any]) -> Whole | None:
    """The same with all of the stored path."""
    start = sent.wire_start(sent.lead)
    entries = [parsed(node.body) for node in stored.nodes]
    if start is None or stored.missing or any(map(is_redacted, entries)):
        return None
    path = unwrap(entries, sent.api).messages
    lead, fields = sent.wire[:start], dict[str, Any]()
    if not (sent.lead or body.get(FIELDS.get(sent.api, ""))):
        leading = parsed(stored.lead) if stored.lead else None
        known = leading if isinstance(leading, list) else []
        if any(map(is_redacted, known)) or (stored.nodes and stored.nodes[-1].lead and leading is None):
            return None
        lead, fields = _lead(known, sent.api)
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


def _lead(entries: list[Any], api: str) -> tuple[list[Any], dict[str, Any]]:
    """Stored leading text as messages of this API, and what stands beside the list."""
    lead = unwrap(entries, api)
    system = lead.system
    if api == "messages" and any(entry.get("api") != api for entry in entries if isinstance(entry, dict)):
        texts = [text_of(message.content) for message in CODECS[api].parse(lead.messages)]
        texts = [system, *texts] if isinstance(system, str) else texts
        return [], {FIELDS[api]: "\n\n".join(texts)}  # it takes no system text in the list
    return lead.messages, {} if system is None else {FIELDS[api]: system}


def _breakpoints(value: Any, levels: int = _LEVELS) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = isinstance(value, dict) and _MARK in value
    return own + sum(_breakpoints(item, levels - 1) for item in inner if levels and isinstance(item, dict | list))


def _unmarked(value: Any, levels: int = _LEVELS) -> Any:
    """Without cache breakpoints. A client moves its own on with each request, so that the messages as they were
    first sent hold more of them, all together, than any of its requests."""
    if not levels or not isinstance(value, list | dict):
        return value
    if isinstance(value, list):
        return [_unmarked(item, levels - 1) for item in value]
    kept = {key: item for key, item in value.items() if key != _MARK}
    return {key: _unmarked(item, levels - 1) if key == "content" else item for key, item in kept.items()}
