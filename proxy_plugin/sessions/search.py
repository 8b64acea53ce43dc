"""Search over the texts of one session: all its nodes, whatever branch they are on, newest first.

Nothing is indexed: bodies are read in bounded pieces from the newest back, and compared without regard to
case. What a message says is its text and the names and arguments of its calls; images and the like are not
looked into.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import orjson

from proxy_plugin.history.model import Call, Message, text_of
from proxy_plugin.history.redaction import is_redacted
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import parsed
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.log import Entry, NodeLog
from proxy_plugin.sessions.reader import SessionReader
from proxy_plugin.sessions.tree import StoredNode

SECONDS = 5.0
"""How long one search reads on."""
AROUND = 60
"""Characters of a snippet before and behind what was found."""


@dataclass(frozen=True, slots=True)
class Hit:
    """`branch`: the oldest one that the node is on, None where none is left."""

    node: str
    role: str
    at_ms: int
    snippet: str
    branch: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """`total`: how many nodes say it, as far as was read; `complete`: whether the texts of all were."""

    hits: tuple[Hit, ...]
    total: int
    complete: bool


class SessionSearch:
    """Raises redis-py's errors."""

    def __init__(self, connection: Connection, reader: SessionReader) -> None:
        self._reader = reader
        self._log = NodeLog(connection)

    async def search(self, address: Address, query: str, *, limit: int = 50, offset: int = 0) -> Found:
        """What says `query`, which is not blank, `limit` of it after the first `offset`."""
        branches = await self._reader.branches(address)
        search = _Search(Needle(query), offset, offset + limit, [branch.name for branch in branches])
        for rank, branch in enumerate(branches):
            search.is_on(branch.head, rank)
        deadline = monotonic() + SECONDS
        async for piece in self._log.reversed(keys.of_session(address)):
            if monotonic() > deadline:
                return Found(tuple(search.hits), search.total, complete=False)
            await asyncio.to_thread(search.look, piece)
        return Found(tuple(search.hits), search.total, complete=not search.withheld)


@dataclass(slots=True)
class _Search:
    """One search on its way from the newest node back. Children come before their parents, so that the branch
    of a node is known when its turn comes: `on` holds it for the nodes that wait below. `withheld`: some were kept
    without their texts."""

    needle: Needle
    begin: int
    end: int
    names: list[str]
    hits: list[Hit] = field(default_factory=list)
    total: int = 0
    on: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    withheld: bool = False

    def is_on(self, node: str, rank: int) -> None:
        self.on[node] = min(rank, self.on.get(node, rank))

    def look(self, piece: list[Entry]) -> None:
        for name, node in piece:
            if node is None or name in self.seen:
                continue
            self.seen.add(name)
            rank = self.on.pop(name, None)
            if rank is not None and node.parent:
                self.is_on(node.parent, rank)
            if is_redacted(parsed(node.body)):
                self.withheld = True
                continue
            snippet = self.needle.find(text_in(node))
            if snippet is not None:
                if self.begin <= self.total < self.end:
                    branch = self.names[rank] if rank is not None else None
                    self.hits.append(Hit(node.id, node.role, node.at_ms, snippet, branch))
                self.total += 1


class Needle:
    """What is looked for, in texts of any script: composed and decomposed characters are the same, and so are
    all cases of a letter."""

    def __init__(self, query: str) -> None:
        self._folded = _normal(query).strip().casefold()

    def find(self, text: str) -> str | None:
        """A snippet around its first place in the text, None where it is not there."""
        text = _normal(text)
        at = text.casefold().find(self._folded)
        if at < 0:
            return None
        begin, end = _place(text, at, len(self._folded))
        first, last = max(0, begin - AROUND), min(len(text), end + AROUND)
        words = " ".join(text[first:last].split())
        return ("…" if first else "") + words + ("…" if last < len(text) else "")


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _place(text: str, at: int, length: int) -> tuple[int, int]:
    """Where a run of the folded text lies in the text itself: folding may make a letter longer."""
    if len(text.casefold()) == len(text):
        return at, at + length
    begin, folded = -1, 0
    for index, letter in enumerate(text):
        if begin < 0 and folded + len(letter.casefold()) > at:
            begin = index
        if folded >= at + length:
            return begin, index
        folded += len(letter.casefold())
    return begin, len(text)


def messages_in(node: StoredNode) -> list[Message]:
    """The message of a node; none for a damaged one."""
    body = parsed(node.body)
    try:
        codec = CODECS[body["api"]]
        return codec.parse(codec.join([body["wire"]]))
    except (KeyError, TypeError, AttributeError, ValueError):
        return []


def text_in(node: StoredNode) -> str:
    """What the message of a node says; "" for a damaged one."""
    said = (text for m in messages_in(node) for text in (text_of(m.content), *_calls(m.calls)))
    return "\n".join(filter(None, said))


def _calls(calls: tuple[Call, ...]) -> Iterator[str]:
    for call in calls:
        yield f"{call.name} {_readable(call.arguments)}"


def _readable(arguments: str) -> Any:
    """JSON arguments without escapes of letters, other text as it is."""
    try:
        return orjson.dumps(orjson.loads(arguments)).decode()
    except ValueError:
        return arguments
