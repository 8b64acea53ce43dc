"""Conversations in Redis: one atomic script per commit.

A commit writes only what is new. What is there already is not asked for but guessed: this worker's own
memory of the session, else everything up to the last assistant message, which whoever answered it has
stored. The script checks the guess; where it is wrong nothing is written, and a second look tells how much
is there. So the usual commit is one round trip of O(new messages) bytes, on any worker, and a store that
lost data gets it back from the next request, which carries the whole path.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from proxy_plugin import events
from proxy_plugin.events import Emit, SnapshotCreated, SnapshotRestored
from proxy_plugin.sessions import keys, tree
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.index import SessionIndex
from proxy_plugin.sessions.kept import KeptPaths
from proxy_plugin.sessions.reader import CHUNK_BYTES, CHUNK_ITEMS, SessionReader
from proxy_plugin.sessions.recent import Recent
from proxy_plugin.sessions.records import agent_said, list_length, subtask_said
from proxy_plugin.sessions.tree import Commit, Committed
from proxy_plugin.settings import Settings

TOMB_SECONDS = 60
_MAX_TRIES = 8


@dataclass(slots=True)
class _Known:
    """What this worker knows to be stored of one session."""

    tips: OrderedDict[str, None] = field(default_factory=OrderedDict)
    leads: OrderedDict[str, None] = field(default_factory=OrderedDict)


class SessionStore:
    """Commits and deletes sessions. Raises redis-py's errors; `writer.GuardedStore` stands in front of it on the
    request path.

    reader  what one session holds    index  which sessions there are    kept  ends of paths by foreign ids"""

    def __init__(self, connection: Connection, settings: Settings, emit: Emit = events.ignore) -> None:
        self.reader = SessionReader(connection)
        self._connection = connection
        self._ttl_ms = settings.store.session_ttl_s * 1000
        self.index = SessionIndex(connection, self.reader, self._ttl_ms)
        self.kept = KeptPaths(connection, self._ttl_ms)
        self._snapshot_ttl_ms = settings.store.snapshot_ttl_s * 1000
        self._emit = emit
        self._known: Recent = Recent(10_000)  # (tag, session id) -> _Known
        self._numbers: Recent = Recent(20_000)  # (tag, first reply or token), and tag for the last one -> n
        self._lead_counts: Recent = Recent(1_000)

    async def commit(self, commit: Commit) -> Committed:
        """Stores the path, whole or not at all. Running it twice gives the same state."""
        attempt = _Attempt(commit, self._guess_number(commit))
        for _ in range(_MAX_TRIES):
            reply = await self._try(attempt)
            match reply[0]:
                case b"baseless" if commit.alone is not None:
                    return replace(await self.commit(commit.alone), alone=True)
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
            "base": commit.before(base),
            "bound": commit.root,
            "lead": commit.lead.id if commit.lead else "",
            "messages": str(lead_count),
            "continues": commit.first_reply is not None and commit.first_reply != commit.tip,
            "number": number,
            "mode": mode,
            "first": commit.first_reply is not None,
            "check": check,
            "kept": [under for under, _ in commit.kept],
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
        """Messages in the commit's lead; one that goes on without any keeps that of its base."""
        if commit.lead is None:
            return commit.base.lead_count if commit.base else 0
        count = self._lead_counts.get(commit.lead.id)
        if count is None:
            count = list_length(commit.lead.body)
            self._lead_counts.put(commit.lead.id, count)
        return int(count)

    def _committed(self, attempt: _Attempt, reply: Sequence[bytes]) -> Committed:
        commit, address = attempt.commit, attempt.address
        self._remember(commit, address)
        self.kept.keep(commit, address)
        self.index.touch(address, commit.at_ms)
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
        kept = await self._connection.command("smembers", names.kept)
        while True:
            links = await self._connection.command("smembers", names.links)
            key_list = [names.tomb, names.links, *data, *(link.decode() for link in sorted(links))]
            there = await self._connection.run("delete", key_list, [TOMB_SECONDS * 1000, len(data)])
            if there >= 0:
                break
        await self.kept.remove([under.decode() for under in kept])
        self._forget(address)
        await self.index.remove(address)
        return bool(there)

    async def close(self) -> None:
        """Writes what the indexes still lack. The connection is its owner's to close."""
        await self.kept.close()
        await self.index.close()

    async def ping(self) -> None:
        """Returns when the server answers."""
        await self._connection.command("ping")

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
