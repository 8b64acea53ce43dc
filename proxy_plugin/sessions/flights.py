"""Calls to models that are under way, each noted in its session under the worker that waits for it.

The marker of a call is written by the commit of its request and removed by that of its reply, so neither
costs a round trip. What no reply removes (a call that failed) is removed behind the caller's back, and so is
the index of a worker's sessions kept, which recovery (recovery.py) reads when the worker is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.tree import Commit

LAND_SECONDS = 0.5
"""How long the marker of a call that is over waits for a commit of its session to take it along."""
LONGEST_SECONDS = 6 * 3600
"""After which a call that nobody reported the end of is taken as over."""
_log = logging.getLogger("proxy_plugin")

Place = tuple[str, str]
"""A session: its tenant and its id."""


@dataclass(frozen=True, slots=True)
class _Marker:
    """Where a marker stands, and since when (monotonic seconds)."""

    place: Place
    at: float


class Flights:
    """One per worker. `worker`: the id under which it holds a lease; "" as long as it holds none, and no call
    is noted then. `ttl_ms`: how long a session is kept."""

    def __init__(self, connection: Connection, ttl_ms: int) -> None:
        self.worker = ""
        self._connection = connection
        self._ttl_ms = ttl_ms
        self._up: Counter[str] = Counter()  # calls under way, by the token of their request
        self._marked: dict[str, _Marker] = {}  # those with a marker in the store
        self._over: dict[Place, set[str]] = {}  # markers of calls that are over, by session
        self._indexed: set[Place] = set()  # sessions that this worker's index holds
        self._to_index: set[Place] = set()
        self._indexing: asyncio.Task[None] | None = None
        self._landing: set[asyncio.Task[None]] = set()

    def took_off(self, commit: Commit) -> None:
        """The request is about to be stored, and its call to the model to be made."""
        for one in (commit, commit.alone):
            if one is not None:
                self._up[one.token] += 1

    def landed(self, commit: Commit) -> None:
        """The call is over, however it ended."""
        for one in (commit, commit.alone):
            if one is None or not self._up[one.token]:
                continue
            self._up[one.token] -= 1
            if not self._up[one.token]:
                del self._up[one.token]
                self._end(one.token)

    def said(self, commit: Commit, address: Address) -> dict[str, Any]:
        """What the commit says of calls, in the words of the script: the worker if this call is under way, and
        the tokens of calls of the session that are over."""
        over = list(self._over.get(_place(address), ()))
        if commit.kind == "reply" and not self._up[commit.token]:
            over.append(commit.token)
        flying = commit.kind == "request" and self._up[commit.token] > 0
        return {"worker": self.worker if flying else "", "call": commit.token, "landed": over}

    def committed(self, address: Address, said: Mapping[str, Any]) -> None:
        """The script has done what `said` says."""
        place = _place(address)
        self._removed(place, said["landed"])
        if said["worker"]:
            token = said["call"]
            self._marked[token] = _Marker(place, monotonic())
            self._index(place)
            if not self._up[token]:
                self._end(token)  # it was over before its request was stored

    def _end(self, token: str) -> None:
        marker = self._marked.get(token)
        if marker is not None:
            self._over.setdefault(marker.place, set()).add(token)
            task = asyncio.get_running_loop().create_task(self._land_soon(marker.place))
            self._landing.add(task)
            task.add_done_callback(self._landing.discard)

    async def _land_soon(self, place: Place) -> None:
        await asyncio.sleep(LAND_SECONDS)
        try:
            await self._land(place)
        except Exception as error:
            # They stay in `_over`: the session's next commit removes them.
            _log.debug("calls that are over stay noted: %s", type(error).__name__)

    async def _land(self, place: Place) -> None:
        if tokens := sorted(self._over.get(place, ())):
            await self._connection.command("hdel", keys.of_session(identity.address(*place)).flights, *tokens)
            self._removed(place, tokens)

    def _removed(self, place: Place, tokens: Iterable[str]) -> None:
        over = self._over.get(place, set())
        for token in tokens:
            self._marked.pop(token, None)
            over.discard(token)
        if not over:
            self._over.pop(place, None)

    def _index(self, place: Place) -> None:
        if place in self._indexed:
            return
        self._to_index.add(place)
        if self._indexing is None or self._indexing.done():
            self._indexing = asyncio.get_running_loop().create_task(self._write_index())

    async def _write_index(self) -> None:
        """At once, and what comes meanwhile in the next round: a worker may be killed at any moment."""
        try:
            while self._to_index:
                added, self._to_index = self._to_index, set()
                name, members = keys.calls_of(self.worker), [" ".join(place) for place in added]

                async def add(client: Any, name: str = name, members: list[str] = members) -> None:
                    pipeline = client.pipeline(transaction=False)
                    pipeline.sadd(name, *members)
                    pipeline.pexpire(name, self._ttl_ms)
                    await pipeline.execute()

                await self._connection.call(add)
                self._indexed |= added
        except Exception as error:
            # The session's next request tries again.
            _log.debug("sessions are not indexed under their worker: %s", type(error).__name__)

    async def tidy(self) -> None:
        """Takes sessions without a call under way out of the index, and gives up calls that are too old."""
        for token, marker in tuple(self._marked.items()):
            if monotonic() - marker.at > LONGEST_SECONDS and self._up.pop(token, 0):
                self._end(token)
        idle = self._indexed - {marker.place for marker in self._marked.values()}
        if idle:
            self._indexed -= idle
            await self._connection.command("srem", keys.calls_of(self.worker), *map(" ".join, idle))

    def renamed(self, worker: str) -> None:
        """The worker goes on under another id: what was noted under the old one is taken for interrupted."""
        self.worker = worker
        self._indexed.clear()

    async def close(self) -> None:
        """Removes the markers of all calls that are over."""
        here = asyncio.get_running_loop()
        for task in tuple(self._landing):
            if task.get_loop() is here:
                task.cancel()
        if self._indexing is not None and self._indexing.get_loop() is here:
            await asyncio.wait({self._indexing})
        for place in tuple(self._over):
            await self._land(place)


def _place(address: Address) -> Place:
    return address.tenant, address.session_id
