"""Reads of one session, in bounded pieces."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from time import time
from typing import Any

from proxy_plugin.sessions import keys, tree
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.records import (
    agent_switch,
    list_length,
    session_info,
    snapshot_record,
    stored_body,
    stored_node,
    subtask_record,
)
from proxy_plugin.sessions.tree import Branch, History, SessionInfo, Snapshot, StoredNode, Subtask

CHUNK_BYTES = 1_000_000
"""About the most that one command or reply carries; a single larger message makes one of its own."""
CHUNK_ITEMS = 1_000
_REF = re.compile(rf"[0-9a-f]{{{tree.REF_LENGTH},32}}\Z")


class SessionReader:
    """Raises redis-py's errors. A session that is unknown, or whose id is not known yet, reads as nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def session(self, address: Address) -> SessionInfo | None:
        if not address.session_id:
            return None
        infos = await self.infos([address])
        if infos[0] is None:
            return None
        name = keys.of_session(address).agents
        switches = await self._connection.command("lrange", name, 0, -1)
        history = tuple(agent_switch(entry) for entry in switches)
        return replace(infos[0], agent_history=history, switch_count=len(history))

    async def history(self, address: Address, *, branch: str | None = None, node: str | None = None) -> History | None:
        """The path to `node` (an id or its beginning), to the head of `branch`, or to the current head. None
        where the session, the branch or the node is unknown."""
        session = await self.session(address)
        if session is None:
            return None
        names = keys.of_session(address)
        head = session.head
        if node is not None:
            head = await self.resolve(names, node) or ""
        elif branch is not None:
            stored = await self._connection.command("hget", names.branches, tree.clean(branch))
            head = tree.decode_branch(branch, stored).head if stored else ""
        if not head and (node is not None or branch is not None):
            return None
        nodes, missing = await self._path(names, head)
        nodes = await self._with_bodies(names, nodes, missing)
        lead = await self._lead(names, nodes[-1].lead) if nodes else None
        count = (nodes[-1].depth if nodes else 0) + (list_length(lead) if lead else 0)
        return History(session, head, lead, tuple(nodes), count, tuple(missing))

    async def node(self, address: Address, ref: str) -> StoredNode | None:
        """A node by its id or by the beginning of it, 12 characters at least and true for one node only."""
        if not address.session_id:
            return None
        names = keys.of_session(address)
        full = await self.resolve(names, ref)
        if full is None:
            return None
        head, body = await asyncio.gather(
            self._connection.command("hget", names.nodes, full),
            self._connection.command("hget", names.bodies, full),
        )
        return stored_node(full, head, body)

    async def branches(self, address: Address) -> tuple[Branch, ...]:
        """In the order in which they were made."""
        if not address.session_id:
            return ()
        names = keys.of_session(address)
        found = [tree.decode_branch(f.decode(), v) async for f, v in self._fields(names.branches)]
        return tuple(sorted(found, key=lambda branch: (branch.created_ms, len(branch.name), branch.name)))

    async def subtasks(self, address: Address) -> tuple[Subtask, ...]:
        """In the order in which they began."""
        if not address.session_id:
            return ()
        fields = {f.decode(): v async for f, v in self._fields(keys.of_session(address).subtasks)}
        found = [subtask_record(v, fields.get(f + ":end")) for f, v in fields.items() if not f.endswith(":end")]
        return tuple(sorted(found, key=lambda subtask: (subtask.started_ms, subtask.first)))

    async def snapshots(self, address: Address) -> tuple[Snapshot, ...]:
        """Those that have not expired, in the order in which they were made."""
        if not address.session_id:
            return ()
        name, now = keys.of_session(address).snapshots, now_ms()
        await self._connection.command("zremrangebyscore", name, "-inf", now)
        found: list[Snapshot] = []
        while True:
            begin = len(found)
            piece = await self._connection.command("zrange", name, begin, begin + CHUNK_ITEMS - 1, withscores=True)
            found += [snapshot_record(member, score) for member, score in piece]
            if len(piece) < CHUNK_ITEMS:
                return tuple(sorted(found, key=lambda snapshot: (snapshot.created_ms, snapshot.snapshot_id)))

    async def infos(self, addresses: Sequence[Address]) -> list[SessionInfo | None]:
        """Several sessions at once, None for each that is not there."""
        if not addresses:
            return []

        async def read(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for address in addresses:
                names = keys.of_session(address)
                pipeline.hgetall(names.meta)
                pipeline.llen(names.agents)
                pipeline.lindex(names.agents, -1)
                pipeline.hlen(names.branches)
                pipeline.zcount(names.snapshots, now_ms(), "+inf")
            return await pipeline.execute()

        replies = await self._connection.call(read)
        return [session_info(address, *replies[5 * i : 5 * i + 5]) for i, address in enumerate(addresses)]

    async def resolve(self, names: SessionKeys, ref: str) -> str | None:
        """The full id of the one node whose id begins like this."""
        if not _REF.match(ref):
            return None
        if len(ref) == 32:
            there = await self._connection.command("hexists", names.nodes, ref)
            return ref if there else None
        matches = {name.decode() async for name, _ in self._fields(names.nodes, match=ref + "*")}
        return matches.pop() if len(matches) == 1 else None

    async def _fields(self, key: str, match: str | None = None) -> AsyncIterator[tuple[bytes, bytes]]:
        """All fields of a hash, in bounded replies."""
        cursor = 0
        while True:
            cursor, piece = await self._connection.command("hscan", key, cursor, match=match, count=CHUNK_ITEMS)
            for item in piece.items():
                yield item
            if cursor == 0:
                return

    async def _path(self, names: SessionKeys, head: str) -> tuple[list[StoredNode], list[str]]:
        """Heads of the path to a node, root first, and what of it is missing."""
        found: list[StoredNode] = []
        at = head
        while at:
            reply = await self._connection.run("walk", [names.nodes], [at, CHUNK_ITEMS])
            for index in range(0, len(reply) - 1, 2):
                try:
                    found.append(tree.decode_head(reply[index].decode(), reply[index + 1]))
                except ValueError:
                    return found[::-1], [reply[index].decode()]
            if len(reply) % 2:
                return found[::-1], [reply[-1].decode()]
            at = found[-1].parent
        return found[::-1], []

    async def _with_bodies(
        self, names: SessionKeys, nodes: Sequence[StoredNode], missing: list[str]
    ) -> list[StoredNode]:
        """The nodes with their bodies; what has none, or a damaged one, is added to `missing`."""
        whole: list[StoredNode] = []
        begin = 0
        while begin < len(nodes):
            end, size = begin + 1, nodes[begin].size
            while end < len(nodes) and end - begin < CHUNK_ITEMS and size + nodes[end].size <= CHUNK_BYTES:
                size += nodes[end].size
                end += 1
            ids = [node.id for node in nodes[begin:end]]
            stored = await self._connection.command("hmget", names.bodies, ids)
            for node, value in zip(nodes[begin:end], stored, strict=True):
                body = stored_body(value)
                if body is None:
                    missing.append(node.id)
                whole.append(replace(node, body=body))
            begin = end
        return whole

    async def _lead(self, names: SessionKeys, lead: str) -> bytes | None:
        if not lead:
            return None
        return stored_body(await self._connection.command("hget", names.leads, lead))


def now_ms() -> int:
    return int(time() * 1000)
