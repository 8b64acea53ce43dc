"""How much a session and a tenant may hold, and what goes when it is too much.

The commit script refuses what would pass a session's limit, and the request passes without being stored. Behind its
back room is made then. First the oldest records of its requests go (requests.py), then the branches of the session
that have not grown for the longest time, the current one never. Of a branch those nodes go that nothing else needs:
no other branch, snapshot, mark or subtask that may still run, and no result that another subtask can be given. What
a client sends next carries its whole history, so what was refused is stored then.

What a tenant holds is summed up over its sessions every half minute by each worker; in between a worker adds what it
stores itself. So the limit can be passed by what all workers store in that time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.outage import kind_of
from proxy_plugin.sessions.reader import CHUNK_ITEMS, SessionReader
from proxy_plugin.sessions.recent import Recent
from proxy_plugin.sessions.records import readable
from proxy_plugin.sessions.tree import MAX_ATTEMPTS, StoredNode, Subtask
from proxy_plugin.settings import Store

ROOM = 0.9
"""Part of a limit down to which room is made, so that it lasts for a while."""
PIECE = 500
"""Nodes that one script removes."""
BRANCHES_AT_ONCE = 100
RECORDS_AT_ONCE = 100
"""How often the script is asked to let some go."""
TENANT_SECONDS = 30.0
FULL_TENANT_SECONDS = 5.0
"""How often a tenant that is full is summed up: sessions may have been deleted."""
_log = logging.getLogger("proxy_plugin")


@dataclass(frozen=True, slots=True)
class _Strand:
    """The end of a branch that nothing else needs. `nodes`: newest first; `branch` "" where they are of none."""

    branch: str
    nodes: tuple[str, ...]


@dataclass(slots=True)
class _Usage:
    """Bytes of a tenant, and when they were summed up."""

    size: int = 0
    at: float = float("-inf")


class Limits:
    """Raises redis-py's errors where it is awaited; what it does in the background fails quietly."""

    def __init__(self, connection: Connection, reader: SessionReader, limits: Store) -> None:
        self._connection = connection
        self._reader = reader
        self._limits = limits
        self._usage: Recent = Recent(10_000)  # tenant -> _Usage
        self._running: dict[Hashable, asyncio.Task[None]] = {}
        self._again: set[Hashable] = set()

    def said(self, address: Address) -> dict[str, Any]:
        """The limits of a commit, in the words of the script; {} for none."""
        limits = self._limits
        tenant = bool(limits.max_tenant_bytes) and self._is_full(address.tenant)
        if not (limits.max_session_bytes or limits.max_session_messages or tenant):
            return {}
        return {
            "limits": {"bytes": limits.max_session_bytes, "messages": limits.max_session_messages, "tenant": tenant}
        }

    def committed(self, address: Address, size: int, finished: int) -> None:
        """`size`: bytes that were stored; `finished`: subtasks that ended with it."""
        usage: _Usage | None = self._usage.get(address.tenant)
        if usage is not None:
            usage.size += size
        if finished and self._limits.keep_subtasks:
            self._in_background(("subtasks", address), lambda: self.forget_subtasks(address))

    def refused(self, address: Address, reason: str, messages: int, size: int) -> None:
        """`messages` and `size` (bytes): what there was no room for."""
        if reason == "session_full":
            self._in_background(("room", address), lambda: self.make_room(address, messages, size))

    def _is_full(self, tenant: str) -> bool:
        usage: _Usage = self._usage.get(tenant) or _Usage()
        self._usage.put(tenant, usage)
        full = usage.size >= self._limits.max_tenant_bytes
        if monotonic() - usage.at > (FULL_TENANT_SECONDS if full else TENANT_SECONDS):
            self._in_background(("tenant", tenant), lambda: self.sum_up(tenant))
        return full

    async def sum_up(self, tenant: str) -> int:
        """Bytes of the tenant's sessions, in bounded pieces."""
        total = begin = 0
        while True:
            piece = await self._connection.command("zrange", keys.index(tenant), begin, begin + PIECE - 1)
            total += sum(await self._totals([identity.address(tenant, one.decode(errors="replace")) for one in piece]))
            begin += len(piece)
            if len(piece) < PIECE:
                break
        self._usage.put(tenant, _Usage(total, monotonic()))
        return total

    async def _totals(self, addresses: Sequence[Address]) -> list[int]:
        async def read(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for address in addresses:
                pipeline.hget(keys.of_session(address).meta, "total")
            return await pipeline.execute()

        return [readable(int, total) or 0 for total in await self._connection.call(read)] if addresses else []

    # A session's branches

    async def make_room(self, address: Address, messages: int = 0, size: int = 0) -> int:
        """Removes what the session can do without until it is well below its limits, and there is room for so many
        messages and bytes. Says how many nodes went."""
        removed = 0
        await self._forget_requests(address, size)
        for _ in range(BRANCHES_AT_ONCE):
            if not await self._is_tight(address, messages, size):
                break
            gone = await self._remove_oldest(address)
            if not gone:
                break
            removed += gone
        return removed

    async def _forget_requests(self, address: Address, size: int) -> None:
        """Lets the oldest records go until there is room, or none is left."""
        names, limit = keys.of_session(address), self._limits.max_session_bytes
        if not limit:
            return
        args: list[str | bytes | int] = ["", 0, 0, _room(size, limit), "", "", "", ""]
        before, left = -1, 0
        for _ in range(RECORDS_AT_ONCE):
            before, left = left, await self._connection.command("hlen", names.requests)
            if left == before:
                break
            await self._connection.run("requested", [names.meta, names.requests, names.tomb], args)

    async def _is_tight(self, address: Address, messages: int, size: int) -> bool:
        names, limits = keys.of_session(address), self._limits
        count = await self._connection.command("hlen", names.nodes)
        total = int(await self._connection.command("hget", names.meta, "total") or 0)
        return _passes(count, messages, limits.max_session_messages) or _passes(total, size, limits.max_session_bytes)

    async def _remove_oldest(self, address: Address) -> int:
        names = keys.of_session(address)
        traces = await self._traces(names)
        strand = await self._oldest(address, names)
        if strand is None:
            return 0
        for begin in range(0, len(strand.nodes), PIECE):
            piece = strand.nodes[begin : begin + PIECE]
            behind = strand.nodes[begin + PIECE : begin + PIECE + 1]
            said = {"branch": strand.branch, "to": behind[0] if behind else "", **traces}
            freed = await self._connection.run("prune", [*names.data, names.tomb], [orjson.dumps(said), *piece])
            if freed < 0:
                return begin  # the session changes: another time
        return len(strand.nodes)

    async def _traces(self, names: SessionKeys) -> dict[str, int]:
        """What changes when a node is committed or named; read before it is looked who needs which."""
        return {
            "log": await self._connection.command("llen", names.log),
            "subtasks": await self._connection.command("hlen", names.subtasks),
            "marks": await self._connection.command("zcard", names.marks),
        }

    async def _oldest(self, address: Address, names: SessionKeys) -> _Strand | None:
        session = await self._reader.session(address)
        if session is None:
            return None
        nodes = {node.id: node for node in (await self._reader.tree(address))[0]}
        branches = await self._reader.branches(address)
        children = Counter(node.parent for node in nodes.values())
        heads = {branch.head for branch in branches}
        ends = [(branch.updated_ms, branch.name, branch.head) for branch in branches if branch.name != session.branch]
        ends += [(nodes[tip].at_ms, "", tip) for tip in nodes.keys() - children.keys() - heads]
        needed = await self._needed(address, names)
        for _, name, head in sorted(ends):
            others = needed | {branch.head for branch in branches if branch.name != name}
            strand = tuple(_free(nodes, children, others, head))
            if strand:
                return _Strand(name, strand)
        return None

    async def _needed(self, address: Address, names: SessionKeys) -> set[str]:
        """Nodes that something names beside the branches."""
        needed = {snapshot.node for snapshot in await self._reader.snapshots(address)}
        for subtask in await self._reader.subtasks(address):
            if not subtask.over:
                needed |= {subtask.base, subtask.first}
            elif subtask.explicit and subtask.result:
                needed.add(subtask.result)  # others may be given it
        begin = 0
        while True:
            marks = await self._connection.command("zrange", names.marks, begin, begin + CHUNK_ITEMS - 1)
            needed |= {mark[:32].decode(errors="replace") for mark in marks}
            begin += len(marks)
            if len(marks) < CHUNK_ITEMS:
                return needed

    # Finished subtasks

    async def forget_subtasks(self, address: Address) -> int:
        """Forgets those that finished before the newest `keep_subtasks`; says how many."""
        names, keep = keys.of_session(address), self._limits.keep_subtasks
        if await self._connection.command("hlen", names.subtasks) <= 2 * keep:  # two fields each
            return 0
        subtasks = await self._reader.subtasks(address)
        awaited = {needed for subtask in subtasks if not subtask.over for needed in subtask.depends_on}
        finished = [subtask for subtask in subtasks if subtask.over and subtask.id not in awaited]
        finished.sort(key=lambda subtask: subtask.ended_ms or subtask.started_ms)
        forgotten = 0
        for piece in _pieces(finished[: max(0, len(finished) - keep)]):
            args: list[str | bytes | int] = [MAX_ATTEMPTS]
            for subtask in piece:
                field = keys.subtask_field(subtask.id) if subtask.explicit else subtask.id
                args += (field, subtask.snapshot_id)
            forgotten += await self._connection.run("subtask_forget", [*names.data, names.tomb], args)
        return forgotten

    # Background

    def _in_background(self, name: Hashable, work: Callable[[], Awaitable[int]]) -> None:
        """One at a time of each name."""
        running = self._running.get(name)
        loop = asyncio.get_running_loop()
        if running is None or running.done() or running.get_loop() is not loop:
            self._again.discard(name)
            self._running[name] = task = loop.create_task(self._work(name, work))
            task.add_done_callback(lambda _: self._running.pop(name, None))
        else:
            self._again.add(name)

    async def _work(self, name: Hashable, work: Callable[[], Awaitable[int]]) -> None:
        """Once more where it was asked for meanwhile."""
        while True:
            try:
                await work()
            except Exception as error:
                _log.debug("no room is made: %s", kind_of(error))
            if name not in self._again:
                return
            self._again.discard(name)

    async def close(self) -> None:
        """Waits for what is under way."""
        tasks = [task for task in self._running.values() if task.get_loop() is asyncio.get_running_loop()]
        if tasks:
            await asyncio.wait(tasks)


def _passes(held: int, coming: int, limit: int) -> bool:
    return bool(limit) and held > _room(coming, limit)


def _room(coming: int, limit: int) -> int:
    """What may be held so that this much can come."""
    return max(1, min(int(ROOM * limit), limit - coming))


def _free(nodes: dict[str, StoredNode], children: Counter[str], needed: set[str], head: str) -> Iterable[str]:
    """The nodes up from an end that only it needs, newest first."""
    at, below = head, 0
    while at in nodes and at not in needed and children[at] == below:
        yield at
        at, below = nodes[at].parent, 1


def _pieces(subtasks: Sequence[Subtask]) -> Iterable[Sequence[Subtask]]:
    return (subtasks[begin : begin + PIECE] for begin in range(0, len(subtasks), PIECE))
