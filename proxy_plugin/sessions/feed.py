"""The messages of a session as they are committed, by whichever worker.

A listener looks at the length of the session's log a few times a second: one cheap read, which holds no
connection between two looks and is the same on a cluster. The place in the log of the last node it was
given is where a listener goes on, on any worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection, is_transient
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.log import NodeLog
from proxy_plugin.sessions.tree import StoredNode

POLL_SECONDS = 0.3
MAX_LISTENERS = 200
_log = logging.getLogger("proxy_plugin")


class TooManyListeners(Exception):
    """This worker serves as many as it takes."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The session was deleted or has expired: nothing more comes."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """A look that found nothing new, or did not reach the store."""


News = StoredNode | Deleted | Quiet


class Feed:
    """Raises redis-py's errors where a feed begins; later ones are waited out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._log = NodeLog(connection)
        self._listeners = 0

    async def listen(self, address: Address, after: str | None = None) -> AsyncGenerator[News] | None:
        """What is committed from now on, or after the node `after`; from the beginning where the session has no
        such node. None where there is no such session. Raises TooManyListeners."""
        names = keys.of_session(address)
        created, length = await self._state(names)
        if created is None:
            return None
        if after is not None:
            place = await self._log.place(names, after)
            length = 0 if place is None else place + 1
        if self._listeners >= MAX_LISTENERS:
            raise TooManyListeners
        return self._news(names, created, length)

    async def _news(self, names: SessionKeys, created: bytes, begin: int) -> AsyncGenerator[News]:
        self._listeners += 1
        try:
            while True:
                try:
                    now, length = await self._state(names)
                    if now != created:
                        yield Deleted()
                        return
                    begin = min(begin, length)  # an import may have put a shorter one in its place
                    async for piece in self._log.entries(names, begin, length):
                        for _, node in piece:
                            begin += 1
                            if node is not None:
                                yield node
                except Exception as error:
                    if not is_transient(error):
                        raise
                    _log.debug("a feed waits for the store: %s", type(error).__name__)
                yield Quiet()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._listeners -= 1

    async def _state(self, names: SessionKeys) -> tuple[bytes | None, int]:
        """When the session was made, None where it is not there, and how long its log is."""

        async def read(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            pipeline.hget(names.meta, "created")
            pipeline.llen(names.log)
            return await pipeline.execute()

        created, length = await self._connection.call(read)
        return created, int(length)
