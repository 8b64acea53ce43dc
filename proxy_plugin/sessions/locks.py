"""Locks for maintenance in several steps, such as sweeps of the indexes. No request ever waits for one.

A lock that is not renewed runs out, so its holder may be another one by the time a step is carried out. That
is why each time it is taken it comes with a fence, a number that only grows: the scripts that take part keep
the highest one they have seen beside the data and refuse a lower one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection

FENCE_SECONDS = 30 * 24 * 3600
"""How long fences are remembered, by locks and by data: far longer than any holder can be late."""
RENEWALS = 3
"""Times that a lock is renewed within the time it is held for."""


class StaleFence(Exception):
    """The lock has passed on to another holder; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Lock:
    name: str
    holder: str
    fence: int


class Locks:
    """Raises redis-py's errors."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def acquire(self, name: str, seconds: float) -> Lock | None:
        """Takes the lock for so long, without waiting; None where another one holds it."""
        holder = token_hex(8)
        fence = await self._take(name, holder, seconds)
        return Lock(name, holder, fence) if fence else None

    async def renew(self, lock: Lock, seconds: float) -> None:
        """Holds it for so long from now. Raises StaleFence where it ran out and was taken by another one."""
        fence = await self._take(lock.name, lock.holder, seconds)
        if fence != lock.fence:
            raise StaleFence(lock.name)

    async def release(self, lock: Lock) -> None:
        """No error where it has passed on."""
        await self._connection.run("unlock", [keys.lock(lock.name)], [lock.holder])

    @asynccontextmanager
    async def held(self, name: str, seconds: float) -> AsyncIterator[Lock | None]:
        """Holds the lock, renewing it, until the block ends; None where another one does."""
        lock = await self.acquire(name, seconds)
        if lock is None:
            yield None
            return
        renewing = asyncio.create_task(self._keep(lock, seconds))
        try:
            yield lock
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
            await self.release(lock)

    async def _keep(self, lock: Lock, seconds: float) -> None:
        """Ends with the first renewal that fails: from then on the fence guards."""
        with suppress(Exception):
            while True:
                await asyncio.sleep(seconds / RENEWALS)
                await self.renew(lock, seconds)

    async def _take(self, name: str, holder: str, seconds: float) -> int:
        args: list[str | bytes | int] = [holder, int(seconds * 1000), FENCE_SECONDS * 1000]
        return int(await self._connection.run("lock", [keys.lock(name), keys.fence(name)], args))
