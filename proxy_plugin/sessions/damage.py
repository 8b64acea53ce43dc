"""Nodes that were damaged or lost: how the rest of a path is found without them, and how they come back.

A damaged node costs itself. Whoever reads past one notes that, and a commit that finds it noted, or finds
fewer nodes than were stored, first compares its whole path with the store. Since a client sends its whole
history, everything that is damaged there can be put back, and nothing else has to change: an id names what a
node means and where it stands. What is merely encrypted by a key that is not here is not damaged: others read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

from proxy_plugin.sessions import keys, tree
from proxy_plugin.sessions.bodies import size_of
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.reader import CHUNK_BYTES, CHUNK_ITEMS, SessionReader
from proxy_plugin.sessions.records import readable_body, stored_node
from proxy_plugin.sessions.tree import Commit, Lead, StoredNode


@dataclass(frozen=True, slots=True)
class _Found:
    """What is stored of a node. `there`: its head was, in whatever state; `whole`: None where that is damaged;
    `body`: it is there, and as it was written."""

    there: bool
    whole: StoredNode | None
    body: bool


class Damage:
    """Raises redis-py's errors. `ttl_ms`: how long a session is kept."""

    def __init__(self, connection: Connection, reader: SessionReader, ttl_ms: int) -> None:
        self._connection = connection
        self._reader = reader
        self._ttl_ms = ttl_ms

    async def heal(self, commit: Commit, address: Address) -> None:
        """Puts back what is damaged on the commit's path, as far as it was stored before. What is new is left to
        the commit."""
        names = keys.of_session(address)
        found = await self._compare(names, commit)
        heads = {branch.head for branch in await self._reader.branches(address)}
        there = [i for i, node in enumerate(found) if node.there or commit.ids[i] in heads]
        lost = self._put_back(names, commit, found[: there[-1] + 1] if there else [])
        lead = await self._lead(names, commit.lead)
        pieces = list(_pieces(lost)) or [[]]
        for number, piece in enumerate(pieces):
            args: list[str | bytes | int] = [self._ttl_ms, int(number == len(pieces) - 1), *lead]
            for node, head, body in piece:
                args += (node, head, body)
            where = [names.meta, names.nodes, names.bodies, names.leads, names.tomb]
            await self._connection.run("heal", where, args)

    async def _compare(self, names: SessionKeys, commit: Commit) -> list[_Found]:
        """What is stored of each node of the path."""
        found: list[_Found] = []
        for begin in range(0, len(commit.ids), CHUNK_ITEMS):
            ids = list(commit.ids[begin : begin + CHUNK_ITEMS])
            heads = await self._connection.command("hmget", names.nodes, ids)
            nodes = [stored_node(node, head) for node, head in zip(ids, heads, strict=True)]
            bodies = await self._readable(names, ids, [node.size if node else CHUNK_BYTES for node in nodes])
            for index, (node, head) in enumerate(zip(nodes, heads, strict=True), begin):
                depth = commit.depth - len(commit.ids) + index + 1
                fits = node is not None and (node.parent, node.depth) == (commit.before(index), depth)
                found.append(_Found(head is not None, node if fits else None, commit.ids[index] in bodies))
        return found

    async def _readable(self, names: SessionKeys, ids: Sequence[str], sizes: Sequence[int]) -> Set[str]:
        """Those of the nodes whose body is there and can be read, here or by whoever has its key."""
        codec = self._connection.codec
        fine: set[str] = set()
        begin = 0
        while begin < len(ids):
            end, size = begin + 1, sizes[begin]
            while end < len(ids) and size + sizes[end] <= CHUNK_BYTES:
                size, end = size + sizes[end], end + 1
            stored = await self._connection.command("hmget", names.bodies, list(ids[begin:end]))
            for node, body in zip(ids[begin:end], stored, strict=True):
                if codec.is_locked(body) or readable_body(codec.read(body, names.bodies, node)) is not None:
                    fine.add(node)
            begin = end
        return fine

    async def _lead(self, names: SessionKeys, lead: Lead | None) -> tuple[str, bytes]:
        """Id and value of the lead that is to be written, "" for none."""
        codec = self._connection.codec
        if lead is None or codec.is_locked(await self._connection.command("hget", names.leads, lead.id)):
            return "", b""
        return lead.id, codec.encode(lead.body, names.leads, lead.id)

    def _put_back(
        self, names: SessionKeys, commit: Commit, found: Sequence[_Found]
    ) -> Iterable[tuple[str, str, bytes]]:
        """Id, head and body of each damaged node, "" for what of it is whole. A head that was lost takes what the
        client does not say from the node behind it, or from the one before it."""
        before: StoredNode | None = None
        for index, stored in enumerate(found):
            node = stored.whole
            if node is None or not stored.body:
                body = self._connection.codec.encode(commit.bodies[index], names.bodies, commit.ids[index])
                said = tree.decode_head(commit.ids[index], tree.encode_head(commit, index, size_of(body)).encode())
                if node is None:
                    behind = found[index + 1].whole if index + 1 < len(found) else None
                    if behind is not None and behind.id.startswith(behind.start):
                        behind = None  # it begins another subtask
                    kin = behind or (before if said.start == tree.INHERIT else None)
                    node = said if kin is None else _like(said, kin)
                elif stored.body is False:
                    node = replace(node, size=said.size)
                yield commit.ids[index], tree.encode_node(node), b"" if stored.body else body
            before = node


def _like(node: StoredNode, kin: StoredNode) -> StoredNode:
    return replace(
        node, start=kin.start, subtask=kin.subtask, side=kin.side, at_ms=kin.at_ms, lead=kin.lead or node.lead
    )


def _pieces(lost: Iterable[tuple[str, str, bytes]]) -> Iterable[list[tuple[str, str, bytes]]]:
    piece: list[tuple[str, str, bytes]] = []
    size = 0
    for node in lost:
        piece.append(node)
        size += len(node[2]) + 200
        if size >= CHUNK_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
