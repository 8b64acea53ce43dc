"""Ends of paths that are found by an id of the provider's: of a response, or of a conversation it keeps.

A request that goes on from such an id does not say whose session it belongs to, so each id has a key in a
slot of its own, which is written behind the caller's back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.recent import Recent
from proxy_plugin.sessions.records import decode_base, encode_base
from proxy_plugin.sessions.tree import Base, Commit

_log = logging.getLogger("proxy_plugin")


class KeptPaths:
    """Raises redis-py's errors where it reads. `ttl_ms`: how long a session is kept."""

    def __init__(self, connection: Connection, ttl_ms: int) -> None:
        self._connection = connection
        self._ttl_ms = ttl_ms
        self._known = Recent(10_000)  # what a path's end is found by -> Base
        self._writing: set[asyncio.Task[None]] = set()

    def expect(self, commit: Commit) -> None:
        """Makes the ends of this path known to this worker, before they are stored."""
        for under, base in commit.kept:
            self._known.put(under, base)

    def keep(self, commit: Commit, address: Address) -> None:
        """Writes what leads to the ends of this path, which is stored at `address` now."""
        if not commit.kept:
            return
        for under, base in commit.kept:
            self._known.put(under, replace(base, address=address, token=""))
        kept = {under: self._known[under] for under, _ in commit.kept}
        task = asyncio.get_running_loop().create_task(self._write(kept, address))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, kept: dict[str, Base], address: Address) -> None:
        try:
            for under, base in kept.items():
                await self._connection.command("set", keys.kept(under), encode_base(base), px=self._ttl_ms)
            if await self._connection.command("exists", keys.of_session(address).tomb):
                await self.remove(list(kept))  # it was deleted meanwhile
        except Exception as error:
            # Only this worker goes on from there now; others store what follows as a path of its own.
            _log.debug("a response is not kept: %s", type(error).__name__)

    def known(self, under: str) -> Base | None:
        """Where to go on from, as far as this worker remembers."""
        base: Base | None = self._known.get(under)
        return base

    async def find(self, tenant: str, under: str) -> Base | None:
        """The stored end of a path that is found by an id of the provider's (`identity.kept_under`)."""
        stored = await self._connection.command("getex", keys.kept(under), px=self._ttl_ms)
        base = decode_base(tenant, stored)
        if base is not None:
            self._known.put(under, base)
        return base

    async def remove(self, kept: Sequence[str]) -> None:
        """Forgets the ends of a session that was deleted."""

        async def unlink(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            for under in kept:
                pipeline.execute_command("UNLINK", keys.kept(under))  # a cluster's has no method of that name
            await pipeline.execute()

        for under in kept:
            self._known.pop(under, None)
        if kept:
            await self._connection.call(unlink)

    async def close(self) -> None:
        """Waits for what is being written."""
        here = asyncio.get_running_loop()
        if writing := {task for task in self._writing if task.get_loop() is here}:
            await asyncio.wait(writing)
