"""All nodes of a session in the order in which they were stored, in bounded pieces.

Parents come before their children, so that a pass over the log needs no tree in memory. A node that was
lost and brought back stands there twice; one that was removed may still be named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.reader import CHUNK_BYTES, CHUNK_ITEMS
from proxy_plugin.sessions.records import stored_node
from proxy_plugin.sessions.tree import StoredNode

Entry = tuple[str, StoredNode | None]
"""Id of a node, and the node; None where its head is damaged or gone."""


class NodeLog:
    """Raises redis-py's errors."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def length(self, names: SessionKeys) -> int:
        return int(await self._connection.command("llen", names.log))

    async def place(self, names: SessionKeys, node: str) -> int | None:
        """Where the node stands for the last time, None where it does not."""
        found: int | None = await self._connection.command("lpos", names.log, node, rank=-1)
        return found

    async def entries(self, names: SessionKeys, begin: int, end: int) -> AsyncIterator[list[Entry]]:
        """Those at the places from `begin` to before `end`, with their bodies, in pieces of about CHUNK_BYTES."""
        while begin < end:
            piece = await self._ids(names, begin, min(end, begin + CHUNK_ITEMS))
            if not piece:
                return
            async for part in self._with_bodies(names, piece):
                yield part
            begin += len(piece)

    async def reversed(self, names: SessionKeys) -> AsyncIterator[list[Entry]]:
        """All of them, newest first, with their bodies, in pieces of about CHUNK_BYTES."""
        end = await self.length(names)
        while end > 0:
            begin = max(0, end - CHUNK_ITEMS)
            piece = await self._ids(names, begin, end)
            async for part in self._with_bodies(names, piece[::-1]):
                yield part
            end = begin

    async def _ids(self, names: SessionKeys, begin: int, end: int) -> list[str]:
        ids = await self._connection.command("lrange", names.log, begin, end - 1)
        return [node.decode(errors="replace") for node in ids]

    async def _with_bodies(self, names: SessionKeys, ids: Sequence[str]) -> AsyncIterator[list[Entry]]:
        heads = await self._connection.command("hmget", names.nodes, list(ids))
        known = [(node, head, stored_node(node, head)) for node, head in zip(ids, heads, strict=True)]
        begin = 0
        while begin < len(known):
            end, size = begin, 0
            while end < len(known) and (end == begin or size < CHUNK_BYTES):
                found = known[end][2]
                size += found.size if found else 0
                end += 1
            piece: list[tuple[str, Any, StoredNode | None]] = known[begin:end]
            bodies = await self._connection.command("hmget", names.bodies, [node for node, _, _ in piece])
            yield [
                (node, stored_node(node, head, self._connection.codec.read(body, names.bodies, node)))
                for (node, head, _), body in zip(piece, bodies, strict=True)
            ]
            begin = end
