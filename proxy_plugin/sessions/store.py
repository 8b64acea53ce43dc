"""Conversations in Redis: one atomic script per commit.

A commit writes only what is new. What is there already is not asked for but guessed: this worker's own
memory of the session, else everything up to the last assistant message, which whoever answered it has
stored. The script checks the guess; where it is wrong nothing is written, and a second look tells how much
is there. So the usual commit is one round trip of O(new messages) bytes, on any worker, and a store that
lost data gets it back from the next request, which carries the whole path.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from redis.exceptions import ResponseError

from proxy_plugin import events
from proxy_plugin.events import Emit, PassedThrough, SnapshotCreated, SnapshotRestored, SubtaskChanged
from proxy_plugin.sessions import identity, keys, tree
from proxy_plugin.sessions.bodies import size_of
from proxy_plugin.sessions.branches import BranchStore
from proxy_plugin.sessions.connection import Connection, is_damage
from proxy_plugin.sessions.content import without_texts
from proxy_plugin.sessions.damage import Damage
from proxy_plugin.sessions.edits import Edits
from proxy_plugin.sessions.encryption import Keyring
from proxy_plugin.sessions.feed import Feed
from proxy_plugin.sessions.flights import Flights
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.index import SessionIndex
from proxy_plugin.sessions.kept import KeptPaths
from proxy_plugin.sessions.limits import ROOM, Limits
from proxy_plugin.sessions.locks import Locks
from proxy_plugin.sessions.profile import ProfileStore
from proxy_plugin.sessions.reader import CHUNK_BYTES, CHUNK_ITEMS, SessionReader
from proxy_plugin.sessions.recent import Recent
from proxy_plugin.sessions.records import agent_said, list_length, subtask_said
from proxy_plugin.sessions.recovery import Recovery
from proxy_plugin.sessions.requests import RequestStore
from proxy_plugin.sessions.resealing import Resealing
from proxy_plugin.sessions.search import SessionSearch
from proxy_plugin.sessions.snapshots import SnapshotStore
from proxy_plugin.sessions.subtasks import SubtaskStore
from proxy_plugin.sessions.sweep import Sweep
from proxy_plugin.sessions.texts import Texts
from proxy_plugin.sessions.transfer import Transfer
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

    reader    what one session holds    index     which sessions there are    kept  ends of paths by foreign ids
    searches  over a session's texts    transfer  export and import           feed  messages as they are committed"""

    def __init__(self, connection: Connection, settings: Settings, emit: Emit = events.ignore) -> None:
        self.reader = SessionReader(connection)
        self._connection = connection
        self._ttl_ms = settings.store.session_ttl_s * 1000
        self.index = SessionIndex(connection, self.reader, self._ttl_ms)
        self.kept = KeptPaths(connection, self._ttl_ms)
        self.damage = Damage(connection, self.reader, self._ttl_ms)
        self.flights = Flights(connection, self._ttl_ms)
        self.limits = Limits(connection, self.reader, settings.store)
        self._max_age_ms = settings.reset.max_age_s * 1000
        self.keeps_texts = keeps_texts = settings.store.content == "full"
        self.locks = Locks(connection)
        self.sweep = Sweep(connection, self.index, self.locks, self.delete, self._ttl_ms)
        self.recovery = Recovery(
            connection, self.reader, self.index, self.flights, self.sweep,
            settings.recovery.lease_s * 1000, self._ttl_ms, emit,
        )  # fmt: skip
        self._snapshot_ttl_ms = settings.store.snapshot_ttl_s * 1000
        edits = Edits(connection, self.index, self._ttl_ms)
        self.branches = BranchStore(self.reader, edits)
        self.snapshots = SnapshotStore(self.reader, edits, self._snapshot_ttl_ms, emit, keeps_texts)
        self.subtasks = SubtaskStore(connection, self.reader, edits, self._snapshot_ttl_ms, emit, keeps_texts)
        self.profiles = ProfileStore(connection, self.reader, edits, self._ttl_ms)
        self.transfer = Transfer(connection, self.index, self.profiles, self._ttl_ms, keeps_texts)
        self.searches = SessionSearch(connection, self.reader)
        room = int(ROOM * settings.store.max_session_bytes)
        self.requests = RequestStore(
            connection, settings.store.keep_requests, room, settings.store.backlog_bytes, self._ttl_ms
        )
        self.feed = Feed(connection)
        self.resealing = Resealing(connection)
        self._emit = emit
        self._known: Recent = Recent(10_000)  # (tag, session id) -> _Known
        self._numbers: Recent = Recent(20_000)  # (tag, first reply or token), and tag for the last one -> n
        self._lead_counts: Recent = Recent(1_000)
        self._passed: Recent = Recent(1_000)  # tokens of requests that were counted as passed without being stored

    async def commit(self, commit: Commit) -> Committed:
        """Stores the path, whole or not at all. Running it twice gives the same state."""
        return await self._commit(commit if self.keeps_texts else without_texts(commit))

    async def _commit(self, commit: Commit) -> Committed:
        attempt = _Attempt(commit, self._guess_number(commit))
        for _ in range(_MAX_TRIES):
            reply = await self._try(attempt)
            match reply[0]:
                case b"baseless" if commit.alone is not None:
                    return replace(await self._commit(commit.alone), alone=True)
                case b"ok":
                    return self._committed(attempt, reply)
                case b"full":
                    return self._refused(attempt, reply)
                case b"deleted":
                    self._forget(attempt.address)
                    session_id = attempt.address.session_id
                    return Committed(session_id, 0, False, False, (), "", attempt.trips, deleted=True)
                case b"at":
                    attempt.number, attempt.own, attempt.base = int(reply[1]), False, None
                case b"open":
                    attempt.number, attempt.own = int(reply[1]), True
                    attempt.base, attempt.lead_stored = 0, False
                case b"damaged":
                    self._forget(attempt.address)
                    attempt.trips += 1
                    await self.damage.heal(commit, attempt.address)
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
        encode, key = self._connection.codec.encode, keys.of_session(attempt.address).bodies
        bodies = {i: encode(commit.bodies[i], key, commit.ids[i]) for i in range(attempt.base, len(commit.ids))}
        if not attempt.staged and sum(map(len, bodies.values())) > CHUNK_BYTES:
            reply = await self._run(attempt, check=True, bodies={}, added=sum(map(len, bodies.values())))
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

    async def _run(self, attempt: _Attempt, *, check: bool, bodies: dict[int, bytes], added: int = 0) -> Any:
        commit, address, base = attempt.commit, attempt.address, attempt.base or 0
        names = keys.of_session(address)
        texts = Texts(self._connection.codec, names)
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
        flight = self.flights.said(commit, address)
        said = {
            "now": str(commit.at_ms),
            "now_hex": f"{max(0, commit.at_ms):012x}",
            "ttl": str(self._ttl_ms),
            "kind": commit.kind,
            "base": commit.before(base),
            "bound": commit.root,
            "lead": commit.lead.id if commit.lead else "",
            "messages": str(lead_count),
            "size": str(commit.size_bytes),
            "continues": commit.first_reply is not None and commit.first_reply != commit.tip,
            "number": number,
            "mode": mode,
            "first": commit.first_reply is not None,
            "check": check,
            "kept": [under for under, _ in commit.kept],
            **subtask_said(commit, lead_count, self._snapshot_ttl_ms, texts),
            **agent_said(commit, texts),
            **flight,
            **self.limits.said(address),
            **self._age_said(commit),
            "adding": len(commit.ids) - base,
            "added": added,
        }
        lead_value = b""
        if commit.lead and not attempt.lead_stored:
            lead_value = self._connection.codec.encode(commit.lead.body, names.leads, commit.lead.id)
        args: list[str | bytes | int] = [orjson.dumps(said), lead_value]
        for index, body in bodies.items():
            args += (
                commit.ids[index],
                tree.encode_head(commit, index, size_of(body)),
                b"" if attempt.staged else body,
            )
        attempt.trips += 1
        reply = await self._connection.run("commit", key_list, args)
        if reply[0] == b"ok":
            self.flights.committed(address, flight)
        return reply

    def _age_said(self, commit: Commit) -> dict[str, Any]:
        start = commit.subtask_start
        if not self._max_age_ms or commit.kind != "request" or not 0 < start < len(commit.ids):
            return {}
        return {"age": self._max_age_ms, "opens": commit.ids[start]}

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
        created, ran = int(reply[2]), [int(ms) / 1000 for ms in reply[3].split()]
        restored = len(ran)
        for _ in range(created):
            self._emit(SnapshotCreated(commit.size_bytes))
        for _ in range(restored):
            self._emit(SnapshotRestored())
        told = reply[5].decode()
        for _ in range(created + (told == "again")):
            self._emit(SubtaskChanged("in_progress"))
        for seconds in ran:
            self._emit(SubtaskChanged("completed", seconds))
        self.limits.committed(address, int(reply[6]), restored)
        resets, marks = _told_of_old(reply[7:])
        return Committed(
            address.session_id, int(reply[1]), bool(created), bool(restored), marks, reply[4].decode(), attempt.trips,
            refused=told == "refused", resets=resets,
        )  # fmt: skip

    def _refused(self, attempt: _Attempt, reply: Sequence[bytes]) -> Committed:
        """Counts each request once, whichever of its commits it is."""
        address, token, reason = attempt.address, attempt.commit.token, reply[1].decode()
        if token not in self._passed:
            self._passed.put(token, None)
            self._emit(PassedThrough(reason))
        self.limits.refused(address, reason, int(reply[2]), int(reply[3]))
        resets, marks = _told_of_old(reply[4:])
        place, trips = address.session_id, attempt.trips
        return Committed(place, 0, False, False, marks, "", trips, resets=resets, full=reason)

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

    async def delete(self, address: Address, idle_since_ms: int | None = None) -> bool:
        """Removes the session with everything in it; for a minute late commits are refused. False where
        there was none, or it was used since that time."""
        if not address.session_id:
            return False
        names = keys.of_session(address)
        data = [key for key in names.data if key != names.links]
        idle = "" if idle_since_ms is None else idle_since_ms
        kept = await self._members(names.kept)
        session = await self.reader.session(address)
        while True:
            links = await self._members(names.links)
            key_list = [names.tomb, names.links, *data, *(link.decode() for link in sorted(links))]
            there = await self._connection.run("delete", key_list, [TOMB_SECONDS * 1000, len(data), idle])
            if there >= 0:
                break
        if not there and idle_since_ms is not None:
            return False
        await self.kept.remove([under.decode(errors="replace") for under in kept])
        await self.profiles.release(address, session.aliases if session else ())
        self._forget(address)
        self.subtasks.forget(address)
        await self.index.remove(address)
        return bool(there)

    async def _members(self, key: str) -> set[bytes]:
        """Of a set; another kind of value under its key goes, so that a damaged session can be deleted."""
        try:
            members: set[bytes] = await self._connection.command("smembers", key)
        except ResponseError as error:
            if not is_damage(error):
                raise
            await self._connection.command("unlink", key)
            return set()
        return members

    async def erase(self, tenant: str, most: int) -> tuple[int, int]:
        """Removes up to so many sessions of a tenant, and where none is left what else is kept of it. Returns how
        many were listed, and how many of those were there."""
        listed = (await self.index.sessions(tenant, limit=most)).sessions
        if not listed:
            await self.index.forget(tenant)
            return 0, 0
        places = [identity.address(tenant, info.session_id) for info in listed]
        gone = await asyncio.gather(*map(self.delete, places))
        for counter in {keys.counter(place) for place in places if place.family}:
            await self._connection.command("unlink", counter)
        return len(listed), sum(gone)

    async def close(self) -> None:
        """Writes what the indexes still lack. The connection is its owner's to close."""
        await self.requests.close()
        await self.limits.close()
        await self.flights.close()
        await self.recovery.stop()
        await self.kept.close()
        await self.index.close()

    @property
    def keyring(self) -> Keyring | None:
        """The keys that it encrypts by, None where it does not."""
        return self._connection.codec.keyring

    async def ping(self) -> None:
        """Returns when the server answers."""
        await self._connection.command("ping")


def _told_of_old(reply: Sequence[bytes]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Nodes at which the session was reset, and those that mark ends of subtasks."""
    resets = reply[0].decode()
    marks = dict.fromkeys(mark.decode() for mark in reply[1:])
    return tuple(resets[at : at + 32] for at in range(0, len(resets), 32)), tuple(marks)


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
