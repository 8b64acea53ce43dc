"""Reads of one session, in bounded pieces."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from time import time
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from proxy_plugin.sessions import keys, tree
from proxy_plugin.sessions.connection import Connection, is_damage
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.records import (
    agent_switch,
    list_length,
    profile_values,
    readable,
    readable_body,
    session_info,
    snapshot_record,
    stored_node,
    subtask_record,
)
from proxy_plugin.sessions.texts import Texts
from proxy_plugin.sessions.tree import Branch, History, NodePath, SessionInfo, Snapshot, StoredNode, Subtask

T = TypeVar("T")

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
        names = keys.of_session(address)
        nothing: tuple[list[bytes], dict[bytes, bytes]] = ([], {})
        switches, profile = await asyncio.gather(
            self._unless_damaged(nothing[0], "lrange", names.agents, 0, -1),
            self._unless_damaged(nothing[1], "hgetall", names.profile),
        )
        texts = self._texts(names)
        history = tuple(filter(None, (readable(agent_switch, texts.opened(entry)) for entry in switches)))
        profile = {name: texts.opened(value) for name, value in profile.items()}
        return replace(infos[0], agent_history=history, switch_count=len(history), **profile_values(profile))

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
            stored = await self.branch(address, branch)
            head = stored.head if stored else ""
            node = node if stored else ""
        if not head and node is not None:
            return None
        nodes, missing = await self._path(names, head)
        locked: list[str] = []
        nodes = await self._with_bodies(names, nodes, missing, locked)
        lead = await self._lead(names, nodes[-1].lead, locked) if nodes else None
        if len(missing) + bool(nodes and nodes[-1].lead and lead is None) > len(locked):
            await self._connection.run("damaged", [names.meta], [])
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
        node = stored_node(full, head)
        if node is None:
            return None
        return replace(node, body=readable_body(self._connection.codec.read(body, names.bodies, full)))

    async def branch(self, address: Address, name: str) -> Branch | None:
        if not address.session_id:
            return None
        stored = await self._connection.command("hget", keys.of_session(address).branches, tree.clean(name))
        return readable(tree.decode_branch, name, stored) if stored else None

    async def branches(self, address: Address) -> tuple[Branch, ...]:
        """In the order in which they were made."""
        if not address.session_id:
            return ()
        names = keys.of_session(address)
        found = [
            readable(tree.decode_branch, f.decode(errors="replace"), v) async for f, v in self._fields(names.branches)
        ]
        return tuple(sorted(filter(None, found), key=lambda branch: (branch.created_ms, len(branch.name), branch.name)))

    async def subtasks(self, address: Address) -> tuple[Subtask, ...]:
        """In the order in which they began."""
        if not address.session_id:
            return ()
        names = keys.of_session(address)
        texts = self._texts(names)
        fields = {f.decode(errors="replace"): texts.opened(v) async for f, v in self._fields(names.subtasks)}
        began = {field: value for field, value in fields.items() if not field.endswith(":end")}
        found = [readable(subtask_record, value, fields.get(field + ":end")) for field, value in began.items()]
        return tuple(sorted(filter(None, found), key=lambda subtask: (subtask.started_ms, subtask.first)))

    async def snapshots(self, address: Address) -> tuple[Snapshot, ...]:
        """Those that have not expired, in the order in which they were made."""
        if not address.session_id:
            return ()
        names, now = keys.of_session(address), now_ms()
        texts = self._texts(names)
        if expired := await self._connection.command("zrangebyscore", names.snapshots, "-inf", now, 0, CHUNK_ITEMS):
            await self._connection.command("hdel", names.named, *expired)
            await self._connection.command("zrem", names.snapshots, *expired)
        found: list[Snapshot] = []
        begin = 0
        while True:
            piece = await self._connection.command(
                "zrangebyscore", names.snapshots, f"({now}", "+inf", start=begin, num=CHUNK_ITEMS, withscores=True
            )
            stored = await self._connection.command("hmget", names.named, [i for i, _ in piece]) if piece else []
            read = [
                readable(snapshot_record, snapshot_id.decode(errors="replace"), record and texts.opened(record), score)
                for (snapshot_id, score), record in zip(piece, stored, strict=True)
            ]
            found += filter(None, read)
            begin += len(piece)
            if len(piece) < CHUNK_ITEMS:
                return tuple(sorted(found, key=lambda snapshot: (snapshot.created_ms, snapshot.snapshot_id)))

    async def snapshot(self, address: Address, snapshot_id: str) -> Snapshot | None:
        """None where there is none of this id, or it has expired or is damaged."""
        if not address.session_id:
            return None
        names = keys.of_session(address)
        expires = await self._connection.command("zscore", names.snapshots, tree.clean(snapshot_id))
        stored = await self._connection.command("hget", names.named, tree.clean(snapshot_id))
        if expires is None or stored is None or expires <= now_ms():
            return None
        return readable(snapshot_record, snapshot_id, self._texts(names).opened(stored), expires)

    async def path(self, address: Address, node: str) -> NodePath:
        """The path to a node, without the bodies; `node` "" is the place before the first message."""
        names = keys.of_session(address)
        nodes, missing = await self._path(names, node)
        lead = await self._lead(names, nodes[-1].lead, []) if nodes else None
        return NodePath(tuple(nodes), list_length(lead) if lead else 0, tuple(missing))

    async def tree(self, address: Address) -> tuple[tuple[StoredNode, ...], tuple[str, ...]]:
        """All nodes without their bodies, parents before children, and the ids of those that are damaged."""
        nodes: list[StoredNode] = []
        damaged: list[str] = []
        async for name, head in self._fields(keys.of_session(address).nodes):
            node = stored_node(name.decode(errors="replace"), head)
            if node is not None:
                nodes.append(node)
            else:
                damaged.append(name.decode(errors="replace"))
        unique = {node.id: node for node in nodes}  # a scan may return what moves meanwhile twice
        return tuple(sorted(unique.values(), key=tree.place_in_tree)), tuple(sorted(set(damaged)))

    async def bodies(self, address: Address, nodes: Sequence[StoredNode]) -> list[StoredNode]:
        """The same nodes with their bodies, None where it is damaged."""
        return await self._with_bodies(keys.of_session(address), nodes, [], [])

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
            return [_sound(reply) for reply in await pipeline.execute(raise_on_error=False)]

        replies = await self._connection.call(read)
        found = [
            (meta or {}, switches or 0, last, branches or 0, snapshots or 0)
            for meta, switches, last, branches, snapshots in zip(*[iter(replies)] * 5, strict=True)
        ]
        for address, (meta, *_) in zip(addresses, found, strict=True):
            if b"title" in meta:
                meta[b"title"] = self._texts(keys.of_session(address)).opened(meta[b"title"])
        return [session_info(address, *said) for address, said in zip(addresses, found, strict=True)]

    async def _unless_damaged(self, otherwise: T, command: str, *args: Any) -> T:
        """What a command answers; `otherwise` where another kind of value stands under its key."""
        try:
            answer: T = await self._connection.command(command, *args)
        except ResponseError as error:
            if not is_damage(error):
                raise
            return otherwise
        return answer

    def _texts(self, names: SessionKeys) -> Texts:
        return Texts(self._connection.codec, names)

    async def resolve(self, names: SessionKeys, ref: str) -> str | None:
        """The full id of the one node whose id begins like this."""
        if not _REF.match(ref):
            return None
        if len(ref) == 32:
            there = await self._connection.command("hexists", names.nodes, ref)
            return ref if there else None
        matches = {name.decode(errors="replace") async for name, _ in self._fields(names.nodes, match=ref + "*")}
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
        """Heads of the path to a node, root first, and what of it is missing; beyond that the path goes on where
        what is left of the tree tells."""
        found: list[StoredNode] = []
        missing: list[str] = []
        at, seen = head, set[str]()
        while at and at not in seen:
            seen.add(at)
            reply = await self._connection.run("walk", [names.nodes], [at, CHUNK_ITEMS])
            heads = dict(zip(reply[::2], [*reply[1::2], None], strict=False))
            for name, stored in heads.items():
                node = stored_node(name.decode(errors="replace"), stored)
                if node is None:
                    missing.append(name.decode(errors="replace"))
                    at = await self._above_lost(names, missing[-1], found[-1] if found else None)
                    break
                found.append(node)
                seen.add(node.id)
                at = node.parent
        return found[::-1], missing

    async def _above_lost(self, names: SessionKeys, lost: str, behind: StoredNode | None) -> str:
        """Where the path goes on above a lost node (tree.above_lost)."""
        if behind is not None and behind.depth <= 2:
            return ""
        found = [stored_node(name.decode(errors="replace"), head) async for name, head in self._fields(names.nodes)]
        ends = [readable(tree.decode_branch, "", value) async for _, value in self._fields(names.branches)]
        nodes = {node.id: node for node in found if node is not None}
        return tree.above_lost(lost, behind, nodes, {branch.head for branch in ends if branch is not None})

    async def _with_bodies(
        self, names: SessionKeys, nodes: Sequence[StoredNode], missing: list[str], locked: list[str]
    ) -> list[StoredNode]:
        """The nodes with their bodies; what has none that can be read is added to `missing`, and to `locked` too
        where it is only the key that is not here."""
        codec, whole = self._connection.codec, list[StoredNode]()
        begin = 0
        while begin < len(nodes):
            end, size = begin + 1, nodes[begin].size
            while end < len(nodes) and end - begin < CHUNK_ITEMS and size + nodes[end].size <= CHUNK_BYTES:
                size += nodes[end].size
                end += 1
            ids = [node.id for node in nodes[begin:end]]
            stored = await self._connection.command("hmget", names.bodies, ids)
            for node, value in zip(nodes[begin:end], stored, strict=True):
                body = readable_body(codec.read(value, names.bodies, node.id))
                if body is None:
                    missing.append(node.id)
                if codec.is_locked(value):
                    locked.append(node.id)
                whole.append(replace(node, body=body))
            begin = end
        return whole

    async def _lead(self, names: SessionKeys, lead: str, locked: list[str]) -> bytes | None:
        if not lead:
            return None
        stored = await self._connection.command("hget", names.leads, lead)
        if self._connection.codec.is_locked(stored):
            locked.append(lead)
        return readable_body(self._connection.codec.read(stored, names.leads, lead))


def _sound(reply: Any) -> Any:
    """An answer out of a pipeline, None where its key is damaged. Raises any other error that it is."""
    if isinstance(reply, Exception) and not is_damage(reply):
        raise reply
    return None if isinstance(reply, Exception) else reply


def now_ms() -> int:
    return int(time() * 1000)
