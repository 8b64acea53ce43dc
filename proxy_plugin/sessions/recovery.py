"""What happens when a worker is lost: its calls are ended, the subtasks they belonged to are put back.

Every worker renews its lease and looks for leases that ran out, a new one at once. Whoever claims one goes
through the sessions that had a call under way there; each session is put right by one script, so that it does
no harm if two workers do the same. Nothing has to be asked for: the session's next request goes on as usual.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from proxy_plugin.events import ACTIVE_SECONDS, Emit, SessionsCounted, SubtaskChanged, SubtaskRecovered
from proxy_plugin.sessions import identity, keys, tree
from proxy_plugin.sessions.connection import Connection, is_transient
from proxy_plugin.sessions.flights import Flights, Place
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.index import SessionIndex
from proxy_plugin.sessions.outage import kind_of
from proxy_plugin.sessions.reader import CHUNK_ITEMS, SessionReader, now_ms
from proxy_plugin.sessions.sweep import Sweep
from proxy_plugin.sessions.tree import SessionInfo, Subtask
from proxy_plugin.sessions.workers import Workers

REASON = "the worker was lost while a call was under way"
INTERRUPTED_KEPT = 1_000
"""Sessions that a tenant's report names as interrupted, the newest ones."""
_AT_ONCE = 16
_OPEN = frozenset({"pending", "in_progress", "failed"})
_RETRY = AsyncRetrying(
    retry=retry_if_exception(is_transient),
    stop=stop_after_attempt(5),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    reraise=True,
)
"""Of one session's recovery. What fails for longer is claimed again with the lost worker's lease."""
_log = logging.getLogger("proxy_plugin")


@dataclass(frozen=True, slots=True)
class Interruption:
    """The newest one of a session: when its worker was found lost, calls that were under way there, and a subtask
    that one of them belonged to."""

    at_ms: int
    calls: int
    subtask: str | None


@dataclass(frozen=True, slots=True)
class SessionState:
    """Where a session stands. `subtasks`: those that are not done, in the order in which they began; `current`: the
    one that began last; `foremost`: the one that was interrupted, else the newest that is not done, else the
    current one; `counts`: of its subtasks, by state."""

    info: SessionInfo
    interruption: Interruption | None
    subtasks: tuple[Subtask, ...]
    current: Subtask | None
    foremost: Subtask | None
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class Report:
    """`starts_and_stops`: see Workers. `totals`: subtasks by state, of the sessions that were looked at. `sessions`:
    those of them that were interrupted or are not done, interrupted ones first. `cursor` goes on after the last."""

    starts_and_stops: dict[str, int]
    totals: Counter[str]
    sessions: tuple[SessionState, ...]
    cursor: str | None


class Recovery:
    """One per worker; `start` makes it take part. Raises redis-py's errors where it is asked."""

    def __init__(
        self,
        connection: Connection,
        reader: SessionReader,
        index: SessionIndex,
        flights: Flights,
        sweep: Sweep,
        lease_ms: int,
        ttl_ms: int,
        emit: Emit,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._index = index
        self._flights = flights
        self._sweep = sweep
        self._workers = Workers(connection, lease_ms)
        self._ttl_ms = ttl_ms
        self._emit = emit
        self._watch: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Holds a lease from now on, and looks after those of others."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def stop(self) -> None:
        """Gives the lease back. Calls that are still under way end with this process."""
        watch, self._watch = self._watch, None
        here = asyncio.get_running_loop()
        begun: tuple[asyncio.Task[Any] | None, ...] = (watch, *self._tasks)
        tasks = {task for task in begun if task is not None and task.get_loop() is here}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if worker := self._workers.worker:
            self._flights.renamed("")
            await self._recover(worker)
            await self._workers.release()

    async def look(self) -> float:
        """Renews the lease, and begins to recover what workers left that were found lost. Returns in how many
        seconds to look again."""
        lost, wait = await self._workers.renew()
        if self._flights.worker != self._workers.worker:
            self._flights.renamed(self._workers.worker)
        for worker in lost:
            self._behind(self._recover_lost(worker))
        return wait

    async def settled(self) -> None:
        """Returns when all that was begun behind the caller's back is done."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _keep_watch(self) -> None:
        while True:
            wait = 1.0
            try:
                wait = await self.look()
                await self._flights.tidy()
                if self._sweep.due:
                    self._behind(self._sweep.run())
                self._emit(SessionsCounted(await self._index.active(now_ms() - ACTIVE_SECONDS * 1000)))
            except Exception as error:
                _log.debug("leases are not looked after: %s", kind_of(error))
            await asyncio.sleep(wait)

    def _behind(self, work: Coroutine[Any, Any, object]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _recover_lost(self, worker: str) -> None:
        try:
            sessions, calls, states = await self._recover(worker)
            await self._workers.recovered(worker)
        except Exception as error:
            self._workers.gives_up(worker)
            _log.warning("a lost worker's sessions are not recovered yet: %s", kind_of(error))
            return
        _log.warning(
            "a worker stopped uncleanly: %d calls were under way, in %d sessions; of their subtasks %d are pending "
            "again, %d go on already, %d failed for good",
            calls, sessions, states["pending"], states["in_progress"], states["failed"],
        )  # fmt: skip

    async def _recover(self, worker: str) -> tuple[int, int, Counter[str]]:
        """Ends the worker's calls. Returns how many sessions and calls that were, and the states that it brought
        their subtasks into."""
        sessions = calls = 0
        states: Counter[str] = Counter()
        async for places in self._sessions_of(worker):
            ended = await asyncio.gather(*(self._recover_session(worker, place) for place in places))
            sessions += sum(number > 0 for number, _ in ended)
            calls += sum(number for number, _ in ended)
            for _, found in ended:
                states.update(found)
        await self._connection.command("delete", keys.calls_of(worker))
        return sessions, calls, states

    async def _sessions_of(self, worker: str) -> AsyncIterator[list[Place]]:
        """Sessions with a call under way on the worker, a few at a time."""
        cursor = 0
        while True:
            cursor, members = await self._connection.command("sscan", keys.calls_of(worker), cursor, count=CHUNK_ITEMS)
            places = [
                (tenant, session_id)
                for tenant, _, session_id in (m.decode(errors="replace").partition(" ") for m in members)
            ]
            for begin in range(0, len(places), _AT_ONCE):
                yield places[begin : begin + _AT_ONCE]
            if cursor == 0:
                return

    async def _recover_session(self, worker: str, place: Place) -> tuple[int, list[str]]:
        """Ends the worker's calls in one session: how many, and the new states of their subtasks."""
        tenant, session_id = place
        address, now = identity.address(tenant, session_id), now_ms()
        names = keys.of_session(address)
        reply: list[bytes] = await _RETRY.copy()(
            self._connection.run,
            "recover",
            [names.meta, names.subtasks, names.flights],
            [worker, now, tree.MAX_ATTEMPTS, REASON],
        )
        calls, since, states = int(reply[0]), int(reply[1]), [state.decode() for state in reply[2:]]
        if calls:
            self._index.touch(address, since)  # the worker may have been lost before it did
            await _RETRY.copy()(self._note, tenant, session_id, now)
        for state in states:
            if state != "in_progress":
                self._emit(SubtaskChanged(state))
            if state != "failed":
                self._emit(SubtaskRecovered())
        return calls, states

    async def _note(self, tenant: str, session_id: str, now: int) -> None:
        name = keys.interrupted(tenant)

        async def note(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            pipeline.zadd(name, {session_id: now})
            pipeline.zremrangebyrank(name, 0, -1 - INTERRUPTED_KEPT)
            pipeline.pexpire(name, self._ttl_ms)
            await pipeline.execute()

        await self._connection.call(note)

    async def report(self, tenant: str | None, *, limit: int, cursor: str | None = None) -> Report:
        """Of one tenant's sessions, or with None of all: those that were interrupted (on the first page), and of the
        `limit` newest ones behind `cursor` those that are not done."""
        page = await self._index.sessions(tenant, limit=limit, cursor=cursor)
        interrupted: list[SessionInfo] = []
        if cursor is None:
            places = [
                identity.address(owner, session_id.decode(errors="replace"))
                for owner in ([tenant] if tenant is not None else await self._index.tenants())
                for session_id in await self._connection.command(
                    "zrevrange", keys.interrupted(owner), 0, INTERRUPTED_KEPT - 1
                )
            ]
            interrupted = [info for info in await self._infos(places) if info is not None]
        infos = {(info.tenant, info.session_id): info for info in (*interrupted, *page.sessions)}
        states = await self._states(tuple(infos.values()))
        totals: Counter[str] = Counter()
        for state in states:
            totals.update(state.counts)
        shown = tuple(state for state in states if state.subtasks or state.interruption is not None)
        return Report(await self._workers.starts_and_stops(), totals, shown, page.cursor)

    async def _infos(self, places: Sequence[Address]) -> list[SessionInfo | None]:
        found: list[SessionInfo | None] = []
        for begin in range(0, len(places), CHUNK_ITEMS // 4):
            found += await self._reader.infos(places[begin : begin + CHUNK_ITEMS // 4])
        return found

    async def _states(self, infos: Sequence[SessionInfo]) -> list[SessionState]:
        found: list[SessionState] = []
        for begin in range(0, len(infos), _AT_ONCE):
            found += await asyncio.gather(*map(self._state, infos[begin : begin + _AT_ONCE]))
        return found

    async def _state(self, info: SessionInfo) -> SessionState:
        address = identity.address(info.tenant, info.session_id)
        stored, subtasks = await asyncio.gather(
            self._connection.command("hget", keys.of_session(address).meta, "interrupted"),
            self._reader.subtasks(address),
        )
        counts = Counter(subtask.state for subtask in subtasks)
        current = max(subtasks, key=lambda subtask: subtask.started_ms, default=None)
        open_ones = tuple(subtask for subtask in subtasks if subtask.state in _OPEN)
        interruption = _interruption(stored)
        hit = [subtask for subtask in subtasks if interruption is not None and subtask.id == interruption.subtask]
        foremost = next(iter([*hit, *open_ones[::-1]]), current)
        return SessionState(info, interruption, open_ones, current, foremost, counts)


def _interruption(stored: bytes | None) -> Interruption | None:
    try:
        record = orjson.loads(stored or b"")
        return Interruption(int(record["at"]), int(record["calls"]), record.get("subtask"))
    except (ValueError, KeyError, TypeError):
        return None
