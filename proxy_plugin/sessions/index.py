"""Which sessions there are: the index of each tenant, and the list of tenants.

They stand in other slots than the sessions. They are written in the background and cleaned when they are
read; a session's own `meta` is the truth.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from typing import Any

import orjson

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.reader import CHUNK_ITEMS, SessionReader, now_ms
from proxy_plugin.sessions.tree import Page, SessionInfo, clamped

MAX_PAGE = 500
MAX_SCANNED = 5_000
"""Sessions that one call looks through for those of an agent."""
INDEX_SECONDS = 0.5
"""How long activity is gathered before the indexes are written."""
SETTLED_SECONDS = 2 * INDEX_SECONDS
"""After which every worker has written what it gathered."""
MAX_UNWRITTEN = 100_000
"""Sessions that a worker goes on to index where writing the indexes failed."""
_log = logging.getLogger("proxy_plugin")

Entry = tuple[int, str, str]
"""Place in a listing: last activity in ms, tenant, session id."""


class SessionIndex:
    """Raises redis-py's errors. `ttl_ms`: how long a session is kept after its last activity."""

    def __init__(self, connection: Connection, reader: SessionReader, ttl_ms: int) -> None:
        self._connection = connection
        self._reader = reader
        self._ttl_ms = ttl_ms
        self._touched: dict[tuple[str, str], int] = {}
        self._indexing: asyncio.Task[None] | None = None
        self._removing: set[asyncio.Task[None]] = set()

    async def sessions(
        self,
        tenant: str | None,
        *,
        limit: int = 50,
        cursor: str | None = None,
        offset: int = 0,
        agent: str | None = None,
        active_since_ms: int = 0,
    ) -> Page:
        """Newest activity first; `tenant` None lists those of all tenants. A cursor that this method did not
        return begins at the start.

        With `agent`, only those in which it works now. They are looked for among the newest MAX_SCANNED of the
        others at a time: a page may be shorter than `limit`, or empty, and still have a cursor."""
        limit, offset = max(1, min(limit, MAX_PAGE)), max(0, offset)
        await self.flush()
        kept_since = now_ms() - self._ttl_ms
        oldest = max(kept_since, active_since_ms)
        tenants = [(tenant, now_ms())] if tenant is not None else await self._tenants(kept_since)
        total: int | None = await self._count(tenants, kept_since, oldest)
        if agent is not None:
            total = await self._count_of(agent, tenants, oldest)
        after = _decode_cursor(cursor)
        found: list[tuple[Entry, SessionInfo]] = []
        scanned, ended = 0, False
        while len(found) <= offset + limit and scanned < MAX_SCANNED:  # one more tells whether there is a next page
            wanted = MAX_PAGE if agent is not None else min(offset + limit + 1 - len(found), MAX_PAGE)
            entries = await self._newest(tenants, after, oldest, wanted)
            if not entries:
                ended = True
                break
            after = entries[-1]
            scanned += len(entries) if agent is not None else 0
            for entry, info in zip(entries, await self._infos(entries), strict=True):
                if info is None:
                    await self._remove(entry[1], entry[2])
                    total = total - 1 if total is not None and agent is None else total
                elif agent is None or info.current_agent == agent:
                    found.append((entry, info))
        page = found[offset : offset + limit]
        if len(found) > offset + limit:
            after = page[-1][0]
        elif ended:
            after = None
        return Page(tuple(info for _, info in page), total, _encode_cursor(after) if after else None)

    async def _count_of(self, agent: str, tenants: Sequence[tuple[str, int]], oldest: int) -> int | None:
        """Sessions in which the agent works, None where there are more than MAX_SCANNED to look through."""
        count, scanned, after = 0, 0, None
        while scanned < MAX_SCANNED:
            entries = await self._newest(tenants, after, oldest, MAX_PAGE)
            if not entries:
                return count
            after, scanned = entries[-1], scanned + len(entries)
            count += sum(info is not None and info.current_agent == agent for info in await self._infos(entries))
        return None

    async def active(self, since_ms: int) -> int:
        """How many sessions of all tenants were used since."""
        tenants = await self._connection.command("zrangebyscore", keys.TENANTS, since_ms, "+inf")

        async def count(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for tenant in tenants:
                pipeline.zcount(keys.index(tenant.decode(errors="replace")), since_ms, "+inf")
            return await pipeline.execute()

        return sum(await self._connection.call(count)) if tenants else 0

    async def owners(self, session_id: str) -> list[SessionInfo]:
        """The sessions of this id, whichever tenant has one; an id alone is not unique across tenants."""
        infos = await self._infos([(0, tenant, session_id) for tenant in await self.tenants()])
        return [info for info in infos if info is not None]

    async def tenants(self) -> list[str]:
        """Those that have sessions, newest activity first."""
        await self.flush()
        return [tenant for tenant, _ in await self._tenants(now_ms() - self._ttl_ms)]

    async def forget(self, tenant: str) -> None:
        """Removes what is kept of a tenant beside its sessions."""
        for name in (keys.index(tenant), keys.aliases(tenant), keys.interrupted(tenant), keys.fence(tenant)):
            await self._connection.command("delete", name)
        await self._connection.command("zrem", keys.TENANTS, tenant)

    def touch(self, address: Address, at_ms: int) -> None:
        """Notes the session's activity for the indexes, which are written behind the caller's back."""
        self._touched[(address.tenant, address.session_id)] = at_ms
        loop = asyncio.get_running_loop()
        if self._indexing is None or self._indexing.done() or self._indexing.get_loop() is not loop:
            self._indexing = loop.create_task(self._write_index(INDEX_SECONDS))

    async def flush(self) -> None:
        if self._touched:
            await self._write_index()

    async def _write_index(self, after_seconds: float = 0.0) -> None:
        touched: dict[tuple[str, str], int] = {}
        try:
            while self._touched:
                await asyncio.sleep(after_seconds)
                touched, self._touched = self._touched, {}
                await self._write_touched(touched)
                touched = {}
        except Exception as error:
            _log.debug("sessions are not indexed: %s", type(error).__name__)
        finally:
            # Tried again with the next activity, or at the end: a session that no list has could not be erased with
            # its tenant.
            if len(self._touched) < MAX_UNWRITTEN:
                self._touched = touched | self._touched

    async def _write_touched(self, touched: dict[tuple[str, str], int]) -> None:
        by_tenant: dict[str, dict[str, int]] = {}
        for (tenant, session_id), at_ms in touched.items():
            by_tenant.setdefault(tenant, {})[session_id] = at_ms

        async def write(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            for tenant, scores in by_tenant.items():
                pipeline.zadd(keys.index(tenant), scores, gt=True)
                pipeline.pexpire(keys.index(tenant), self._ttl_ms)
                pipeline.pexpire(keys.aliases(tenant), self._ttl_ms)
                pipeline.zadd(keys.TENANTS, {tenant: max(scores.values())}, gt=True)
            pipeline.pexpire(keys.TENANTS, self._ttl_ms)
            await pipeline.execute()

        await self._connection.call(write)

    async def remove(self, address: Address) -> None:
        """Takes out a session that was deleted, and again when no worker has it to write any more."""
        self._touched.pop((address.tenant, address.session_id), None)
        await self._remove(address.tenant, address.session_id)
        task = asyncio.get_running_loop().create_task(self._remove_late(address))
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _remove_late(self, address: Address) -> None:
        try:
            await asyncio.sleep(SETTLED_SECONDS)
            if await self._reader.session(address) is None:  # an import may have put it back
                await self._remove(address.tenant, address.session_id)
        except Exception as error:
            # Whoever lists the sessions takes it out.
            _log.debug("a deleted session may stay indexed: %s", type(error).__name__)

    async def _remove(self, tenant: str, session_id: str) -> None:
        await self._connection.command("zrem", keys.index(tenant), session_id)
        await self._connection.command("zrem", keys.interrupted(tenant), session_id)

    async def close(self) -> None:
        """Writes what the indexes still lack."""
        for removing in self._removing:
            if removing.get_loop() is asyncio.get_running_loop():
                removing.cancel()
        task, self._indexing = self._indexing, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})
        await self.flush()

    async def _infos(self, entries: Sequence[Entry]) -> list[SessionInfo | None]:
        return await self._reader.infos([identity.address(tenant, session_id) for _, tenant, session_id in entries])

    async def _tenants(self, oldest: int) -> list[tuple[str, int]]:
        """Tenants and their last activity, newest first."""
        await self._connection.command("zremrangebyscore", keys.TENANTS, "-inf", f"({oldest}")
        found: list[tuple[str, int]] = []
        while True:
            begin = len(found)
            piece = await self._connection.command(
                "zrange", keys.TENANTS, begin, begin + CHUNK_ITEMS - 1, desc=True, withscores=True
            )
            found += [(name.decode(errors="replace"), clamped(score)) for name, score in piece]
            if len(piece) < CHUNK_ITEMS:
                return found

    async def _count(self, tenants: Sequence[tuple[str, int]], kept_since: int, oldest: int) -> int:
        """Sessions in the tenants' indexes that were active since `oldest`. On this occasion those are taken out that
        were not since `kept_since`: they have expired."""
        if not tenants:
            return 0

        async def sweep(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for tenant, _ in tenants:
                pipeline.zremrangebyscore(keys.index(tenant), "-inf", f"({kept_since}")
                pipeline.zcount(keys.index(tenant), oldest, "+inf")
            return await pipeline.execute()

        return sum((await self._connection.call(sweep))[1::2])

    async def _newest(
        self, tenants: Sequence[tuple[str, int]], after: Entry | None, oldest: int, wanted: int
    ) -> list[Entry]:
        """The next sessions of all these tenants after one of them, newest first."""
        found: list[Entry] = []
        for tenant, last in tenants:
            if len(found) >= wanted and found[wanted - 1][0] > last:
                break  # the tenants come newest first: no later one has anything newer
            found += await self._newest_of(tenant, after, oldest, wanted)
            found.sort(reverse=True)
            del found[wanted:]
        return found

    async def _newest_of(self, tenant: str, after: Entry | None, oldest: int, wanted: int) -> list[Entry]:
        found: list[Entry] = []
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
            entries = [(clamped(score), tenant, session_id.decode(errors="replace")) for session_id, score in piece]
            # Several may share the millisecond at which the last page ended.
            found += [entry for entry in entries if after is None or entry < after]
            if len(piece) < wanted:
                break
            begin += len(piece)
        return found[:wanted]


def _encode_cursor(entry: Entry) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(entry)).decode().rstrip("=")


def is_cursor(text: str) -> bool:
    return _decode_cursor(text) is not None


def _decode_cursor(cursor: str | None) -> Entry | None:
    if not cursor:
        return None
    try:
        at, tenant, session_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(at), str(tenant), str(session_id)
    except (ValueError, TypeError):
        return None
