"""The store as the request path sees it: it never raises, and never holds a request longer than the deadline.

The deadline bounds the waiting, not the write. A commit that is late goes on behind the caller's back; one
that failed is kept, and all that is kept is written as soon as the store answers again. Both are bounded in
bytes and number: where it gets too much the oldest go, and the next request of their session, which carries
the whole history, brings them back. Since each commit holds its whole path, a newer one of the same path
stands for the older.

While the store is down a circuit breaker answers at once; one commit a second is let through to see.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from proxy_plugin import events
from proxy_plugin.events import BreakerTurned, Emit, PassedThrough, StoreCalled
from proxy_plugin.logs import describe
from proxy_plugin.patience import wait_patiently, within
from proxy_plugin.sessions.backlog import Backlog, Unnoted, cost
from proxy_plugin.sessions.breaker import Breaker
from proxy_plugin.sessions.connection import is_transient
from proxy_plugin.sessions.deferral import DeferredReplies
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.outage import ADVICE, kind_of
from proxy_plugin.sessions.requests import MAX_WAITING, Request, Stored
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.subtasks import Place, Plan, Standing
from proxy_plugin.sessions.tree import (
    Base,
    Commit,
    Committed,
    History,
)
from proxy_plugin.settings import Settings

T = TypeVar("T")

READ_SECONDS = 10.0
MAX_LATE = 64
MAX_KEPT = 10_000
_log = logging.getLogger("proxy_plugin")


class StoreUnavailable(Exception):
    """A read that the store did not answer."""


class _StillDown(Exception):
    pass


_FLUSH = AsyncRetrying(retry=retry_if_exception_type(_StillDown), wait=wait_exponential(multiplier=0.1, max=2))
"""When the commits that are kept are tried again; the breaker says whether one may be."""


class GuardedStore:
    """One per worker. `store`: the store itself, for `ask`."""

    def __init__(self, store: SessionStore, settings: Settings, emit: Emit = events.ignore) -> None:
        self.store = store
        self._emit = emit
        self._deadline = settings.deadlines.store_ms / 1000
        self._limit_bytes = settings.store.backlog_bytes
        self._breaker = Breaker(
            settings.store.breaker_failures,
            settings.store.breaker_reset_ms / 1000,
            turned=lambda is_open: emit(BreakerTurned(is_open)),
        )
        self._said: set[str] = set()  # kinds of failure that the log has of this outage
        self._backlog = Backlog(self._limit_bytes, MAX_KEPT)
        self._unnoted = Unnoted(self._limit_bytes, MAX_WAITING)
        self._running: set[asyncio.Task[tuple[Committed | None, Exception | None]]] = set()
        self._late: dict[asyncio.Task[tuple[Committed | None, Exception | None]], int] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._deferred = DeferredReplies(self.commit)

    @property
    def pending(self) -> int:
        """Commits that are not in the store yet: replies that wait, late ones and kept ones."""
        return len(self._deferred) + len(self._late) + len(self._backlog)

    @property
    def answering(self) -> bool:
        """Whether the store answered lately."""
        return self._breaker.closed

    async def commit_reply(self, commit: Commit) -> None:
        """Stores a reply that calls tools within moments (see deferral.py), any other before this returns: a
        final answer, the first reply of a conversation that is found by it, one of a subtask the client named,
        one that the next request may go on from without sending it again."""
        self.store.kept.expect(commit)
        finds_session = commit.address.implicit and commit.first_reply == commit.tip
        too_much = self._deferred.size_bytes + commit.size_bytes > self._limit_bytes
        if commit.closes or finds_session or commit.subtask_id is not None or commit.kept or too_much:
            await self.commit(commit)
        else:
            self._deferred.add(commit)

    async def base(self, tenant: str, under: str) -> Base | None:
        """The stored path that is found by an id of the provider's (`identity.kept_under`); None where there is
        none, or none is found before the deadline. Never raises. One round trip where this worker has not
        stored the path itself."""
        return self.store.kept.known(under) or await self._soon(lambda: self.store.kept.find(tenant, under))

    async def standing(self, address: Address, plan: Plan, place: Place, waited: float = 0.0) -> Standing | None:
        """What a request of this subtask goes on from (subtasks.py); None where neither the store says so before the
        deadline, nor this worker remembers. Never raises."""
        subtasks = self.store.subtasks
        found = await self._soon(lambda: subtasks.standing(address, plan, place), waited)
        return found or subtasks.remembered(address, plan)

    async def path(self, address: Address, place: str) -> History | None:
        """The path to the current head (`place` "head") or to what a snapshot names; None where there is none,
        or it is not read before the deadline. Never raises."""
        return await self._soon(lambda: self._path(address, place))

    async def _path(self, address: Address, place: str) -> History | None:
        await self._deferred.flush(address.tag)
        if place == "head":
            return await self.store.reader.history(address)
        named = await self.store.reader.snapshot(address, place)
        if named is None:
            return None
        if named.node:
            return await self.store.reader.history(address, node=named.node)
        found = await self.store.reader.history(address)
        return found and replace(found, head="", nodes=(), missing=())  # made before the first message

    async def _soon(self, read: Callable[[], Coroutine[Any, Any, T | None]], waited: float = 0.0) -> T | None:
        """`waited`: seconds of the deadline that are gone."""
        if not self._breaker.allow():
            return None
        started, answer, failure = perf_counter(), None, None
        try:
            answer = await within(self._deadline - waited, read())
        except Exception as error:
            failure = kind_of(error)
            self._failed(failure)
        else:
            self._answered()
        self._emit(StoreCalled("read", perf_counter() - started, failure))
        return answer

    @property
    def notes(self) -> bool:
        """Whether records of requests are kept at all."""
        return bool(self.store.requests.keep)

    def note(self, commit: Commit, committed: Committed | None, make: Callable[[Stored], Request]) -> None:
        """Notes what came and what left, in the background: of a request whose commit is not known to be stored once
        it is. Never raises, never waits."""
        if committed is None:
            self._unnoted.add(commit, make)
        elif not committed.deleted and not committed.full:
            home = replace(commit.stored_as(alone=committed.alone).address, session_id=committed.session_id)
            stored = Stored(home, committed.alone, committed.new_nodes)
            self.store.requests.note(partial(make, stored), cost(commit))

    def landed(self, request: Commit) -> None:
        """The call that was made for a request which was stored is over, however it ended. Never waits."""
        self.store.flights.landed(request)

    async def commit(self, commit: Commit, waited: float = 0.0) -> Committed | None:
        """Stores the path; None where that is not known after the deadline, of which `waited` seconds are gone.
        After a request's, its call to the model counts as under way until `landed`. Never raises."""
        self._deferred.taken_in(commit)
        if commit.kind == "request":
            self.store.flights.took_off(commit)
        if not self._breaker.allow():
            self._keep(commit)
            self._emit(PassedThrough("store_down"))
            return None
        started = perf_counter()
        task = asyncio.get_running_loop().create_task(self._write(commit))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await wait_patiently(task, self._deadline - waited)
        operation, seconds = f"commit_{commit.kind}", perf_counter() - started
        if not task.done():
            self._failed("timeout")
            self._let_run(task, commit)
            self._emit(StoreCalled(operation, seconds, "timeout"))
            self._emit(PassedThrough("store_timeout"))
            return None
        if task.cancelled():  # the store is being closed
            return None
        committed, error = task.result()
        if error is not None:
            self._emit(StoreCalled(operation, seconds, kind_of(error)))
            self._emit(PassedThrough("store_down"))
            return None
        self._answered()
        self._emit(StoreCalled(operation, seconds))
        return committed

    async def _write(self, commit: Commit) -> tuple[Committed | None, Exception | None]:
        """Runs the commit; what failed and may succeed later is kept, also when nobody waits any more."""
        try:
            return await self._commit(commit), None
        except Exception as error:
            if is_transient(error):
                self._failed(kind_of(error))
                self._keep(commit)
            else:
                _log.warning("a conversation is not stored: %s", describe(error))
            return None, error

    async def _commit(self, commit: Commit) -> Committed:
        committed = await self.store.commit(commit)
        for waiting, make in self._unnoted.stored_with(commit):
            self.note(waiting, committed if waiting is commit else replace(committed, new_nodes=0), make)
        return committed

    def _let_run(self, task: asyncio.Task[tuple[Committed | None, Exception | None]], commit: Commit) -> None:
        """Lets a late commit go on, or keeps it for later where too many do already."""
        size = cost(commit)
        if len(self._late) >= MAX_LATE or sum(self._late.values()) + size > self._limit_bytes:
            task.cancel()
            self._keep(commit)
            return
        self._late[task] = size
        task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[tuple[Committed | None, Exception | None]]) -> None:
        self._late.pop(task, None)
        # A late answer is no reason to wait for the next one, unless the store was taken for dead.
        if not task.cancelled() and task.result()[1] is None and not self._breaker.closed:
            self._answered()

    def _failed(self, kind: str) -> None:
        """Says what to do once the store is taken for dead: once for each thing that is wrong with it."""
        self._breaker.failure()
        if not self._breaker.closed and kind not in self._said:
            self._said.add(kind)
            _log.warning("the session store %s; requests go on, and what is not stored waits", ADVICE[kind])

    def _answered(self) -> None:
        self._breaker.success()
        if self._said:
            self._said.clear()
            _log.warning("the session store answers again; %d commits wait for it", self.pending)

    def _keep(self, commit: Commit) -> None:
        self._backlog.add(commit)
        self._start_flushing()

    def _start_flushing(self) -> None:
        if self._backlog and (self._flushing is None or self._flushing.done()):
            self._flushing = asyncio.get_running_loop().create_task(_FLUSH.copy()(self._flush))

    async def _flush(self) -> None:
        while (commit := self._backlog.oldest()) is not None:
            if not self._breaker.allow():
                raise _StillDown
            started = perf_counter()
            try:
                await self._commit(commit)
            except Exception as error:
                self._emit(StoreCalled("background", perf_counter() - started, kind_of(error)))
                if is_transient(error):
                    self._failed(kind_of(error))
                    raise _StillDown from None
                _log.warning("a conversation is not stored: %s", describe(error))
            else:
                self._answered()
                self._emit(StoreCalled("background", perf_counter() - started))
            self._backlog.remove(commit)

    async def close(self, timeout: float) -> None:
        """Writes what is pending, for at most `timeout` seconds. The store can be used again afterwards."""
        if self._flushing is not None:
            self._flushing.cancel()  # after a long outage it tries again only when there is no time left: begin anew
        try:
            async with asyncio.timeout(timeout):
                await self._deferred.flush()
                while self._running or self._backlog:
                    self._start_flushing()
                    waiting = {*self._running, *({self._flushing} if self._flushing else ())}
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                await self.store.close()
        except Exception as error:
            level = logging.WARNING if self.pending else logging.DEBUG  # without any it is indexes and leases
            _log.log(level, "%d commits are not stored: %s", self.pending, kind_of(error))
        if self._flushing is not None:
            self._flushing.cancel()
        for task in tuple(self._running):
            task.cancel()

    async def settle(self, address: Address) -> None:
        """Stores what this worker still holds back of the session's replies."""
        await self._deferred.flush(address.tag)

    async def ask(self, answer: Awaitable[T]) -> T:
        """Anything that is not on the request path: waits up to READ_SECONDS for what `store` or one of its parts
        is asked. Raises StoreUnavailable where the store does not answer."""
        started = perf_counter()
        try:
            async with asyncio.timeout(READ_SECONDS):
                result = await answer
        except Exception as error:
            self._emit(StoreCalled("read", perf_counter() - started, kind_of(error)))
            if is_transient(error) or isinstance(error, TimeoutError):
                raise StoreUnavailable(kind_of(error)) from error
            raise
        self._emit(StoreCalled("read", perf_counter() - started))
        return result
