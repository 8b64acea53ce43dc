"""Sessions and conversations as text for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from proxy_plugin.admin.histories import content_of
from proxy_plugin.history.difference import Line
from proxy_plugin.history.model import Message, text_of
from proxy_plugin.history.redaction import NOT_KEPT, STRUCTURE
from proxy_plugin.history.wire.stored import parsed, unwrap
from proxy_plugin.sessions.search import messages_in
from proxy_plugin.sessions.tree import History, SessionInfo, rfc3339

_HEADINGS = ("SESSION", "MESSAGES", "LAST ACTIVITY", "AGENT", "TENANT")
_INDENT = "    "
_COLOURS = {"-": "31", "+": "32", "@": "36"}
"""Red, green and cyan, by the marks of lines."""


def table(sessions: Sequence[SessionInfo]) -> Iterator[str]:
    rows = [_HEADINGS, *map(_row, sessions)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(info: SessionInfo) -> tuple[str, ...]:
    agent, last = plain(info.current_agent or "-"), rfc3339(info.last_activity_ms)
    return info.session_id, str(info.message_count), last, agent, info.tenant


def conversation(info: SessionInfo, history: History) -> Iterator[str]:
    yield f"session {info.session_id} of tenant {info.tenant}"
    for name, value in (("title", info.title), ("description", info.description), ("agent", info.current_agent)):
        if value:
            yield f"{name} {plain(value)}"
    counts = f"{info.branches} branches, {info.snapshots} snapshots, {info.subtasks} subtasks"
    yield f"{history.message_count} messages; {counts}; current branch {plain(info.branch)}"
    if content_of(history.lead, history.nodes) == STRUCTURE:
        yield NOT_KEPT
    yield from _lead(history.lead)
    for node in history.nodes:
        mark = ", cut off" if node.incomplete else ""
        if node.id in history.missing:
            mark += ", damaged"
        yield f"\n{node.role}  {node.id[:12]}  {rfc3339(node.at_ms)}{mark}"
        for message in messages_in(node):
            yield from _said(message)


def difference(line: Line, colours: bool) -> str:
    text = f"{line.mark} {plain(line.text)}".rstrip()
    colour = _COLOURS.get(line.mark) if colours else None
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _lead(lead: bytes | None) -> Iterator[str]:
    entries = parsed(lead) if lead else None
    wire = unwrap(entries if isinstance(entries, list) else [], "chat")
    for message in wire.messages:
        yield "\nsystem"
        yield _indented(text_of(message.get("content")))


def _said(message: Message) -> Iterator[str]:
    if text := text_of(message.content):
        yield _indented(text)
    for call in message.calls:
        yield f"{_INDENT}→ {plain(call.name)}({plain(call.arguments)})"


def _indented(text: str) -> str:
    return "\n".join(_INDENT + plain(line) for line in text.split("\n"))


def plain(text: str) -> str:
    """The text without what would steer a terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(letter) else letter for letter in text)


def _steers(letter: str) -> bool:
    return letter != "\t" and unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
