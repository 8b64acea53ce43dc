"""The sweep: index entries of sessions that expired, and sessions that nobody has used for a session's time to
live though something (a restore, say) put their expiry off. One worker at a time does it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.index import SessionIndex
from proxy_plugin.sessions.locks import FENCE_SECONDS, Lock, Locks, StaleFence
from proxy_plugin.sessions.outage import kind_of
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.sessions.tree import clamped

SWEEP_SECONDS = 600.0
LOCK_SECONDS = 30.0
LOCK = "sweep"
_PIECE = 500
_log = logging.getLogger("proxy_plugin")

Delete = Callable[[Address, int], Awaitable[bool]]
"""Deletes a session that was not used since a time (ms); False where it was, or is gone."""


class Sweep:
    """`ttl_ms`: how long a session is kept after its last activity."""

    def __init__(self, connection: Connection, index: SessionIndex, locks: Locks, delete: Delete, ttl_ms: int) -> None:
        self._connection = connection
        self._index = index
        self._locks = locks
        self._delete = delete
        self._ttl_ms = ttl_ms
        self._next = monotonic() + SWEEP_SECONDS / 10

    @property
    def due(self) -> bool:
        return monotonic() >= self._next

    async def run(self) -> int:
        """Takes sessions that are gone out of the indexes, and says how many; 0 where another worker does. What
        fails is left to the next time."""
        self._next = monotonic() + SWEEP_SECONDS
        removed = 0
        try:
            async with self._locks.held(LOCK, LOCK_SECONDS) as lock:
                for tenant in await self._index.tenants() if lock is not None else ():
                    removed += await self._sweep(lock, tenant) if lock is not None else 0
        except StaleFence:
            _log.debug("the sweep went on to another worker")
        except Exception as error:
            _log.debug("the indexes are not swept: %s", kind_of(error))
        return removed

    async def _sweep(self, lock: Lock, tenant: str) -> int:
        """Of one tenant's index, in bounded pieces, the longest idle sessions first."""
        oldest, removed = now_ms() - self._ttl_ms, 0
        while True:
            piece = await self._connection.command(
                "zrangebyscore", keys.index(tenant), "-inf", f"({oldest}", start=0, num=_PIECE, withscores=True
            )
            entries = [(member.decode(errors="replace"), clamped(score)) for member, score in piece]
            active = await self._active(tenant, [session_id for session_id, _ in entries], oldest)
            for address, last in active:
                self._index.touch(address, last)
            await self._index.flush()
            idle = [(s, last) for s, last in entries if s not in {address.session_id for address, _ in active}]
            gone = 0
            for session_id, _ in idle:
                gone += await self._delete(identity.address(tenant, session_id), oldest)
            gone += await self.remove(lock, tenant, idle)
            removed += gone
            if len(entries) < _PIECE or not gone:
                return removed

    async def _active(self, tenant: str, sessions: Sequence[str], oldest: int) -> list[tuple[Address, int]]:
        """Those that were used since, whatever the index says, and when."""
        if not sessions:
            return []
        addresses = [identity.address(tenant, session_id) for session_id in sessions]

        async def read(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for address in addresses:
                pipeline.hget(keys.of_session(address).meta, "last")
            return await pipeline.execute()

        lasts = await self._connection.call(read)
        found = [(address, int(last)) for address, last in zip(addresses, lasts, strict=True) if last is not None]
        return [(address, last) for address, last in found if last >= oldest]

    async def remove(self, lock: Lock, tenant: str, entries: Sequence[tuple[str, int]]) -> int:
        """Takes entries (session id, last activity as it was read) out of a tenant's index. Raises StaleFence
        where the lock has passed on."""
        if not entries:
            return 0
        args: list[str | bytes | int] = [lock.fence, FENCE_SECONDS * 1000]
        for session_id, last in entries:
            args += (session_id, last)
        removed = int(await self._connection.run("sweep", [keys.index(tenant), keys.fence(tenant)], args))
        if removed < 0:
            raise StaleFence(lock.name)
        return removed
