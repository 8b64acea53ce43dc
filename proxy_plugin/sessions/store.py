"""Conversations in Redis: one atomic script per commit, reads in bounded pieces.

A commit writes only what is new. What is there already is not asked for but guessed: this worker's own
memory of the session, else everything up to the last assistant message, which whoever answered it has
stored. The script checks the guess; where it is wrong nothing is written, and a second look tells how much
is there. So the usual commit is one round trip of O(new messages) bytes, on any worker, and a store that
lost data gets it back from the next request, which carries the whole path.

The indexes that list sessions stand in other slots than the sessions. They are written in the background
and cleaned when they are read; the session's own `meta` is the truth.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from time import time
from typing import Any

import orjson

from proxy_plugin import events
from proxy_plugin.events import Emit, SnapshotCreated, SnapshotRestored
from proxy_plugin.sessions import identity, keys, tree
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.records import (
    agent_said,
    agent_switch,
    list_length,
    session_info,
    snapshot_record,
    stored_body,
    stored_node,
    subtask_record,
    subtask_said,
)
from proxy_plugin.sessions.tree import (
    Branch,
    Commit,
    Committed,
    History,
    Page,
    SessionInfo,
    Snapshot,
    StoredNode,
    Subtask,
)
from proxy_plugin.settings import Settings

TOMB_SECONDS = 60
CHUNK_BYTES = 1_000_000
"""About the most that one command or reply carries; a single larger message makes one of its own."""
CHUNK_ITEMS = 1_000
MAX_PAGE = 500
INDEX_SECONDS = 0.5
"""How long activity is gathered before the indexes are written."""
_MAX_TRIES = 8
_log = logging.getLogger("proxy_plugin")
_REF = re.compile(rf"[0-9a-f]{{{tree.REF_LENGTH},32}}\Z")


@dataclass(slots=True)
class _Known:
    """What this worker knows to be stored of one session."""

    tips: OrderedDict[str, None] = field(default_factory=OrderedDict)
    leads: OrderedDict[str, None] = field(default_factory=OrderedDict)


class _Recent(OrderedDict[Any, Any]):
    """Keeps the `limit` entries used last."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def put(self, key: Any, value: Any) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


class SessionStore:
    """All reads and writes of sessions. Raises redis-py's errors; `writer.GuardedStore` stands in front of it
    on the request path."""

    def __init__(self, connection: Connection, settings: Settings, emit: Emit = events.ignore) -> None:
        self._connection = connection
        self._ttl_ms = settings.store.session_ttl_s * 1000
        self._snapshot_ttl_ms = settings.store.snapshot_ttl_s * 1000
        self._emit = emit
        self._known: _Recent = _Recent(10_000)  # (tag, session id) -> _Known
        self._numbers: _Recent = _Recent(20_000)  # (tag, first reply or token), and tag for the last one -> n
        self._lead_counts: _Recent = _Recent(1_000)
        self._touched: dict[tuple[str, str], int] = {}
        self._indexing: asyncio.Task[None] | None = None

    # ---- writing

    async def commit(self, commit: Commit) -> Committed:
        """Stores the path, whole or not at all. Running it twice gives the same state."""
        attempt = _Attempt(commit, self._guess_number(commit))
        for _ in range(_MAX_TRIES):
            reply = await self._try(attempt)
            match reply[0]:
                case b"ok":
                    return self._committed(attempt, reply)
                case b"deleted":
                    self._forget(attempt.address)
                    session_id = attempt.address.session_id
                    return Committed(session_id, 0, False, False, (), "", attempt.trips, deleted=True)
                case b"at":
                    attempt.number, attempt.own, attempt.base = int(reply[1]), False, None
                case b"open":
                    attempt.number, attempt.own = int(reply[1]), True
                    attempt.base, attempt.lead_stored = 0, False
                case b"missing":
                    self._forget(attempt.address)
                    attempt.staged = False
                    attempt.lead_stored = attempt.lead_stored and reply[2] == b"0"
                    if reply[1] == b"1":
                        await self._probe(attempt)
        raise RuntimeError("the session changes faster than it can be stored")

    def _guess_number(self, commit: Commit) -> int:
        """n of a session that is found by its opening, 0 for any other."""
        address = commit.address
        if not address.implicit or address.session_id:
            return 0
        guess = self._numbers.get((address.tag, commit.token))
        if guess is None and commit.first_reply:
            guess = self._numbers.get((address.tag, commit.first_reply))
        return int(self._numbers.get(address.tag, 0) + 1 if guess is None else guess)

    async def _try(self, attempt: _Attempt) -> Any:
        commit, address = attempt.commit, attempt.address
        if attempt.base is None:
            attempt.base, attempt.lead_stored = self._assume(commit, address)
        bodies = {i: tree.encode_body(commit.bodies[i]) for i in range(attempt.base, len(commit.ids))}
        if not attempt.staged and sum(map(len, bodies.values())) > CHUNK_BYTES:
            reply = await self._run(attempt, check=True, bodies={})
            if reply[0] != b"checked":
                return reply
            attempt.own = bool(attempt.number)  # a number given out by the check is this commit's
            if not await self._stage(attempt, bodies):
                return [b"deleted"]
            attempt.staged = True
        return await self._run(attempt, check=False, bodies=bodies)

    def _assume(self, commit: Commit, address: Address) -> tuple[int, bool]:
        """How many nodes of the path are taken as stored, and whether its lead is."""
        known: _Known | None = self._known.get((address.tag, address.session_id))
        lead_stored = known is not None and commit.lead is not None and commit.lead.id in known.leads
        if known is not None:
            for index in range(len(commit.ids) - 1, -1, -1):
                if commit.ids[index] in known.tips:
                    return index + 1, lead_stored
        end = len(commit.ids)
        if commit.kind == "reply":
            end -= 1
            while end > 0 and commit.roles[end - 1] == "assistant":
                end -= 1
        for index in range(end - 1, -1, -1):
            if commit.roles[index] == "assistant":
                return index + 1, known is None or lead_stored
        return 0, lead_stored

    async def _probe(self, attempt: _Attempt) -> None:
        """Finds how much of the path is stored."""
        names, ids = keys.of_session(attempt.address), attempt.commit.ids
        attempt.base = 0
        for begin in range(0, len(ids), 5 * CHUNK_ITEMS):
            piece = list(ids[begin : begin + 5 * CHUNK_ITEMS])
            attempt.trips += 1
            attempt.base += await self._connection.run("probe", [names.nodes], piece)
            if attempt.base < begin + len(piece):
                return

    async def _stage(self, attempt: _Attempt, bodies: dict[int, bytes]) -> bool:
        names = keys.of_session(attempt.address)
        piece: list[str | bytes | int] = []
        size = 0
        for index, body in bodies.items():
            piece += (attempt.commit.ids[index], body)
            size += len(body)
            if size >= CHUNK_BYTES or len(piece) >= 2 * CHUNK_ITEMS or index == len(attempt.commit.ids) - 1:
                attempt.trips += 1
                args: list[str | bytes | int] = [self._ttl_ms, *piece]
                if not await self._connection.run("stage", [names.bodies, names.tomb], args):
                    return False
                piece, size = [], 0
        return True

    async def _run(self, attempt: _Attempt, *, check: bool, bodies: dict[int, bytes]) -> Any:
        commit, address, base = attempt.commit, attempt.address, attempt.base or 0
        names = keys.of_session(address)
        key_list = [*names.data, names.tomb]
        number, mode = "", "known"
        if address.family:
            number = str(address.number)
            if attempt.number:
                mode = "own" if attempt.own else "find"
            count = keys.counter(address)
            first = keys.first(address, commit.first_reply) if commit.first_reply else count
            key_list += (count, first, keys.token(address, commit.token))
        lead_count = self._lead_count(commit)
        said = {
            "now": str(commit.at_ms),
            "now_hex": f"{max(0, commit.at_ms):012x}",
            "ttl": str(self._ttl_ms),
            "kind": commit.kind,
            "base": commit.ids[base - 1] if base else "",
            "lead": commit.lead.id if commit.lead else "",
            "messages": str(lead_count),
            "continues": commit.first_reply is not None and commit.first_reply != commit.tip,
            "number": number,
            "mode": mode,
            "first": commit.first_reply is not None,
            "check": check,
            **subtask_said(commit, lead_count, self._snapshot_ttl_ms),
            **agent_said(commit),
        }
        lead_value = tree.encode_body(commit.lead.body) if commit.lead and not attempt.lead_stored else b""
        args: list[str | bytes | int] = [orjson.dumps(said), lead_value]
        for index, body in bodies.items():
            args += (
                commit.ids[index],
                tree.encode_head(commit, index, len(body) - 2),
                b"" if attempt.staged else body,
            )
        attempt.trips += 1
        return await self._connection.run("commit", key_list, args)

    def _lead_count(self, commit: Commit) -> int:
        """Messages in the commit's lead."""
        if commit.lead is None:
            return 0
        count = self._lead_counts.get(commit.lead.id)
        if count is None:
            count = list_length(commit.lead.body)
            self._lead_counts.put(commit.lead.id, count)
        return int(count)

    def _committed(self, attempt: _Attempt, reply: Sequence[bytes]) -> Committed:
        commit, address = attempt.commit, attempt.address
        self._remember(commit, address)
        self._touch(address, commit.at_ms)
        created, restored = int(reply[2]), int(reply[3])
        for _ in range(created):
            self._emit(SnapshotCreated(commit.size_bytes))
        for _ in range(restored):
            self._emit(SnapshotRestored())
        marks = tuple(dict.fromkeys(mark.decode() for mark in reply[5:]))
        new, branch = int(reply[1]), reply[4].decode()
        return Committed(address.session_id, new, bool(created), bool(restored), marks, branch, attempt.trips)

    def _remember(self, commit: Commit, address: Address) -> None:
        place = (address.tag, address.session_id)
        known = self._known.get(place) or _Known()
        self._known.put(place, known)
        for recent, value in ((known.tips, commit.tip), (known.leads, commit.lead.id if commit.lead else "")):
            recent[value] = None
            recent.move_to_end(value)
            if len(recent) > 64:
                recent.popitem(last=False)
        if address.implicit:
            n = address.number
            self._numbers.put((address.tag, commit.token), n)
            if commit.first_reply:
                self._numbers.put((address.tag, commit.first_reply), n)
            self._numbers.put(address.tag, max(n, self._numbers.get(address.tag, 0)))

    def _forget(self, address: Address) -> None:
        self._known.pop((address.tag, address.session_id), None)

    async def delete(self, address: Address) -> bool:
        """Removes the session with everything in it; for a minute late commits are refused. False where
        there was none."""
        if not address.session_id:
            return False
        names = keys.of_session(address)
        data = [key for key in names.data if key != names.links]
        while True:
            links = await self._connection.command("smembers", names.links)
            key_list = [names.tomb, names.links, *data, *(link.decode() for link in sorted(links))]
            there = await self._connection.run("delete", key_list, [TOMB_SECONDS * 1000, len(data)])
            if there >= 0:
                break
        self._forget(address)
        self._touched.pop((address.tenant, address.session_id), None)
        await self._unindex(address.tenant, address.session_id)
        return bool(there)

    # ---- reading

    async def session(self, address: Address) -> SessionInfo | None:
        if not address.session_id:
            return None
        infos = await self._infos([(0, address.tenant, address.session_id)])
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
            head = await self._resolve(names, node) or ""
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
        full = await self._resolve(names, ref)
        if full is None:
            return None
        head, body = await asyncio.gather(
            self._connection.command("hget", names.nodes, full),
            self._connection.command("hget", names.bodies, full),
        )
        return stored_node(full, head, body)

    async def sessions(
        self, tenant: str | None, *, limit: int = 50, cursor: str | None = None, offset: int = 0
    ) -> Page:
        """Newest activity first; `tenant` None lists those of all tenants. A cursor that this method did not
        return begins at the start."""
        limit, offset = max(1, min(limit, MAX_PAGE)), max(0, offset)
        await self._flush_index()
        oldest = _now_ms() - self._ttl_ms
        tenants = [(tenant, _now_ms())] if tenant is not None else await self._tenants(oldest)
        total = await self._count(tenants, oldest)
        after = _decode_cursor(cursor)
        found: list[tuple[_Entry, SessionInfo]] = []
        while len(found) <= offset + limit:  # one more than asked for tells whether there is a next page
            entries = await self._newest(tenants, after, oldest, min(offset + limit + 1 - len(found), MAX_PAGE))
            if not entries:
                break
            after = entries[-1]
            for entry, info in zip(entries, await self._infos(entries), strict=True):
                if info is not None:
                    found.append((entry, info))
                else:
                    await self._unindex(entry[1], entry[2])
                    total -= 1
        page = found[offset : offset + limit]
        more = len(found) > offset + limit
        return Page(tuple(info for _, info in page), total, _encode_cursor(page[-1][0]) if more else None)

    async def owners(self, session_id: str) -> list[SessionInfo]:
        """The sessions of this id, whichever tenant has one; an id alone is not unique across tenants."""
        await self._flush_index()
        tenants = await self._tenants(_now_ms() - self._ttl_ms)
        infos = await self._infos([(0, tenant, session_id) for tenant, _ in tenants])
        return [info for info in infos if info is not None]

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
        name, now = keys.of_session(address).snapshots, _now_ms()
        await self._connection.command("zremrangebyscore", name, "-inf", now)
        found: list[Snapshot] = []
        while True:
            begin = len(found)
            piece = await self._connection.command("zrange", name, begin, begin + CHUNK_ITEMS - 1, withscores=True)
            found += [snapshot_record(member, score) for member, score in piece]
            if len(piece) < CHUNK_ITEMS:
                return tuple(sorted(found, key=lambda snapshot: (snapshot.created_ms, snapshot.snapshot_id)))

    async def close(self) -> None:
        """Writes what the indexes still lack. The connection is its owner's to close."""
        task, self._indexing = self._indexing, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})
        await self._flush_index()

    async def ping(self) -> None:
        """Returns when the server answers."""
        await self._connection.command("ping")

    async def _infos(self, places: Sequence[_Entry]) -> list[SessionInfo | None]:
        if not places:
            return []
        addresses = [identity.address(tenant, session_id) for _, tenant, session_id in places]

        async def read(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for address in addresses:
                names = keys.of_session(address)
                pipeline.hgetall(names.meta)
                pipeline.llen(names.agents)
                pipeline.lindex(names.agents, -1)
                pipeline.hlen(names.branches)
                pipeline.zcount(names.snapshots, _now_ms(), "+inf")
            return await pipeline.execute()

        replies = await self._connection.call(read)
        return [session_info(address, *replies[5 * i : 5 * i + 5]) for i, address in enumerate(addresses)]

    async def _resolve(self, names: SessionKeys, ref: str) -> str | None:
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

    # ---- indexes

    def _touch(self, address: Address, at_ms: int) -> None:
        """Notes the session's activity for the indexes, which are written behind the caller's back."""
        self._touched[(address.tenant, address.session_id)] = at_ms
        loop = asyncio.get_running_loop()
        if self._indexing is None or self._indexing.done() or self._indexing.get_loop() is not loop:
            self._indexing = loop.create_task(self._write_index(INDEX_SECONDS))

    async def _flush_index(self) -> None:
        if self._touched:
            await self._write_index()

    async def _write_index(self, after_seconds: float = 0.0) -> None:
        try:
            while self._touched:
                await asyncio.sleep(after_seconds)
                touched, self._touched = self._touched, {}
                await self._write_touched(touched)
        except Exception as error:
            # The next commit of those sessions indexes them; nothing is lost but their place in a listing.
            _log.debug("sessions are not indexed: %s", type(error).__name__)

    async def _write_touched(self, touched: dict[tuple[str, str], int]) -> None:
        by_tenant: dict[str, dict[str, int]] = {}
        for (tenant, session_id), at_ms in touched.items():
            by_tenant.setdefault(tenant, {})[session_id] = at_ms

        async def write(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            for tenant, scores in by_tenant.items():
                pipeline.zadd(keys.index(tenant), scores, gt=True)
                pipeline.pexpire(keys.index(tenant), self._ttl_ms)
                pipeline.zadd(keys.TENANTS, {tenant: max(scores.values())}, gt=True)
            pipeline.pexpire(keys.TENANTS, self._ttl_ms)
            await pipeline.execute()

        await self._connection.call(write)

    async def _unindex(self, tenant: str, session_id: str) -> None:
        await self._connection.command("zrem", keys.index(tenant), session_id)

    async def _tenants(self, oldest: int) -> list[tuple[str, int]]:
        """Tenants and their last activity, newest first."""
        await self._connection.command("zremrangebyscore", keys.TENANTS, "-inf", f"({oldest}")
        found: list[tuple[str, int]] = []
        while True:
            begin = len(found)
            piece = await self._connection.command(
                "zrange", keys.TENANTS, begin, begin + CHUNK_ITEMS - 1, desc=True, withscores=True
            )
            found += [(name.decode(), int(score)) for name, score in piece]
            if len(piece) < CHUNK_ITEMS:
                return found

    async def _count(self, tenants: Sequence[tuple[str, int]], oldest: int) -> int:
        """Sessions in the tenants' indexes, which are swept of expired ones on this occasion."""
        if not tenants:
            return 0

        async def sweep(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for tenant, _ in tenants:
                pipeline.zremrangebyscore(keys.index(tenant), "-inf", f"({oldest}")
                pipeline.zcard(keys.index(tenant))
            return await pipeline.execute()

        return sum((await self._connection.call(sweep))[1::2])

    async def _newest(
        self, tenants: Sequence[tuple[str, int]], after: _Entry | None, oldest: int, wanted: int
    ) -> list[_Entry]:
        """The next sessions of all these tenants after one of them, newest first."""
        found: list[_Entry] = []
        for tenant, last in tenants:
            if len(found) >= wanted and found[wanted - 1][0] > last:
                break  # the tenants come newest first: no later one has anything newer
            found += await self._newest_of(tenant, after, oldest, wanted)
            found.sort(reverse=True)
            del found[wanted:]
        return found

    async def _newest_of(self, tenant: str, after: _Entry | None, oldest: int, wanted: int) -> list[_Entry]:
        found: list[_Entry] = []
        begin, newest = 0, "+inf" if after is None else after[0]
        while len(found) < wanted:
            piece = await self._connection.command(
                "zrevrangebyscore",
                keys.index(tenant),
                newest,
                oldest,
                start=begin,
                num=wanted,
                withscores=True,
            )
            entries = [(int(score), tenant, session_id.decode()) for session_id, score in piece]
            # Several may share the millisecond at which the last page ended.
            found += [entry for entry in entries if after is None or entry < after]
            if len(piece) < wanted:
                break
            begin += len(piece)
        return found[:wanted]


_Entry = tuple[int, str, str]
"""Place in a listing: last activity in ms, tenant, session id."""


@dataclass(slots=True)
class _Attempt:
    """One commit on its way. `number`: n of a session that is found by its opening, 0 for others; `own`: it
    was given out to this commit. `base`: how many nodes are taken as stored, None where yet to be guessed."""

    commit: Commit
    number: int
    own: bool = False
    base: int | None = None
    lead_stored: bool = False
    staged: bool = False
    trips: int = 0

    @property
    def address(self) -> Address:
        return self.commit.address.numbered(self.number) if self.number else self.commit.address


def _encode_cursor(entry: _Entry) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(entry)).decode().rstrip("=")


def _decode_cursor(cursor: str | None) -> _Entry | None:
    if not cursor:
        return None
    try:
        at, tenant, session_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(at), str(tenant), str(session_id)
    except (ValueError, TypeError):
        return None


def _now_ms() -> int:
    return int(time() * 1000)
