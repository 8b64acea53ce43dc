"""Export and import of whole sessions, as the JSON Lines of `lines`.

An export runs over the session in bounded pieces while others write to it: what refers to nodes is read
first and the nodes then, so that all that is referred to is there. An import brings everything in under
keys of its own, and one script puts them in the session's place: nobody sees half of one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from math import isinf
from secrets import token_hex
from typing import Any

from proxy_plugin.sessions import keys, lines
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.index import SessionIndex
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.lines import KINDS, PARTS, Reader, Write
from proxy_plugin.sessions.log import NodeLog
from proxy_plugin.sessions.profile import ProfileStore
from proxy_plugin.sessions.reader import CHUNK_BYTES, CHUNK_ITEMS, now_ms
from proxy_plugin.sessions.request_lines import Exported, exported
from proxy_plugin.sessions.texts import Texts

STAGED_MS = 600_000
_DONE_MS = 60_000
_FIRST_REPLIES = 1_000
_NODE_ID = re.compile(rb"[0-9a-f]{32}")
_QUIET_TRIES = 10
"""How often the records are read again because the session changed meanwhile."""


Entry = tuple[Any, bytes]
"""Field, score (None: without end) or place of an entry, and its value."""


class AliasTaken(Exception):
    """An import of a session that has another one's alias."""


class SessionExists(Exception):
    """An import without `replace` over a session that is there."""


class SessionGone(Exception):
    """The session was deleted while it was exported, or an import took too long."""


@dataclass(frozen=True, slots=True)
class Imported:
    """`entries`: how many of each part of the session (names as in SessionKeys)."""

    address: Address
    nodes: int
    entries: dict[str, int]


class Transfer:
    """Raises redis-py's errors. `ttl_ms`: how long a session is kept after its last activity; `keeps_texts`:
    whether an import keeps the texts that it brings."""

    def __init__(
        self,
        connection: Connection,
        index: SessionIndex,
        profiles: ProfileStore,
        ttl_ms: int,
        keeps_texts: bool = True,
    ) -> None:
        self.connection = connection
        self.index = index
        self.profiles = profiles
        self.ttl_ms = ttl_ms
        self.keeps_texts = keeps_texts
        self._log = NodeLog(connection)

    async def export(self, address: Address) -> AsyncIterator[bytes] | None:
        """The lines, several at a time; None where there is no such session. Reading on raises SessionGone
        where the session is deleted meanwhile."""
        if not address.session_id:
            return None
        names = keys.of_session(address)
        meta = await self._meta(names)
        for _ in range(_QUIET_TRIES):
            entries, before = await self._entries(names), meta
            meta = await self._meta(names)
            if meta == before:
                break  # what they name is of one moment
        if "created" not in meta:
            return None
        return self._export(address, names, meta, entries, await self._requests(names))

    async def _meta(self, names: SessionKeys) -> dict[str, str]:
        stored = await self.connection.command("hgetall", names.meta)
        texts = Texts(self.connection.codec, names)
        meta = {
            field.decode(errors="replace"): texts.opened(value).decode("utf-8", "replace")
            for field, value in stored.items()
        }
        return {field: value for field, value in meta.items() if field not in lines.COUNTED}

    async def _export(
        self, address: Address, names: SessionKeys, meta: dict[str, str], entries: list[bytes], requests: Exported
    ) -> AsyncIterator[bytes]:
        yield lines.header(address, meta)
        known: set[str] = set()
        leads: set[str] = set()
        lost: list[str] = []
        nodes = 0
        async for piece in self._log.entries(names, 0, await self._log.length(names)):
            out: list[bytes | None] = []
            for lead in dict.fromkeys(node.lead for _, node in piece if node is not None):
                if lead and lead not in leads:
                    leads.add(lead)
                    out.append(await self._lead(names, lead))
            for name, node in piece:
                if name in known:
                    continue
                if node is None:
                    lost.append(name)
                    continue
                known.add(name)
                if node.parent and node.parent not in known:
                    known.add(node.parent)
                    out.append(lines.missing_line(node.parent))
                out.append(lines.node_line(node))
                nodes += 1
            yield b"".join(filter(None, out))
        created = await self.connection.command("hget", names.meta, "created")
        if created is None or created.decode("utf-8", "replace") != meta["created"]:
            raise SessionGone("the session was deleted while it was exported")
        rest = b"".join(entries)
        named = {name.decode() for name in _NODE_ID.findall(rest)} | {meta.get("head", "")}
        missing = [lines.missing_line(name) for name in dict.fromkeys(lost) if name in named and name not in known]
        for lead in requests.leads:
            if lead not in leads:
                missing.append(await self._lead(names, lead) or b"")
        yield b"".join(missing) + rest
        for begin in range(0, len(requests.lines), CHUNK_ITEMS):
            yield b"".join(requests.lines[begin : begin + CHUNK_ITEMS])
        yield lines.end_line(nodes)

    async def _lead(self, names: SessionKeys, lead: str) -> bytes | None:
        stored = await self.connection.command("hget", names.leads, lead)
        return lines.lead_line(lead, self.connection.codec.read(stored, names.leads, lead))

    async def _requests(self, names: SessionKeys) -> Exported:
        fields = dict(await self._part(names.requests, "hash"))
        return await asyncio.to_thread(exported, self.connection.codec, names.requests, fields)

    async def _entries(self, names: SessionKeys) -> list[bytes]:
        """Lines of all parts that are carried entry by entry, in an order that hangs on their contents alone."""
        found = {part: await self._part(getattr(names, part), kind.kind) for part, kind in PARTS.items()}
        now = now_ms()
        found["snapshots"] = [
            (expires, name) for expires, name in found["snapshots"] if expires is None or expires > now
        ]
        live = {name.decode(errors="replace") for _, name in found["snapshots"]}
        found["named"] = [(name, value) for name, value in found["named"] if name in live]
        texts = Texts(self.connection.codec, names)
        made = (
            lines.entry_line(part, name, texts.opened(value))
            for part, entries in found.items()
            for name, value in entries
        )
        return [line for line in made if line is not None]

    async def _part(self, key: str, kind: str) -> list[Entry]:
        if kind == "hash":
            fields: dict[bytes, bytes] = {}
            cursor = -1
            while cursor:
                cursor, piece = await self.connection.command("hscan", key, max(cursor, 0), count=CHUNK_ITEMS)
                fields |= piece
            return [(field.decode("utf-8", "replace"), value) for field, value in sorted(fields.items())]
        found: list[Entry] = []
        while True:
            begin, end = len(found), len(found) + CHUNK_ITEMS - 1
            if kind == "zset":
                members = await self.connection.command("zrange", key, begin, end, withscores=True)
                found += [(_score(score), member) for member, score in members]
            else:
                members = await self.connection.command("lrange", key, begin, end)
                found += list(enumerate(members, begin))
            if len(members) < CHUNK_ITEMS:
                return found

    def importing(self, tenant: str, *, replace: bool = False) -> Import:
        """An import into that tenant's sessions, to be fed with lines."""
        return Import(self, tenant, replace)

    async def read_in(self, tenant: str, source: AsyncIterable[bytes], *, replace: bool = False) -> Imported:
        """Imports a stream of bytes. Raises what Import.finish does."""
        running = self.importing(tenant, replace=replace)
        try:
            async for piece in source:
                await running.feed(piece)
            return await running.finish()
        finally:
            await running.close()


class Import:
    """One import on its way. `feed` and `finish` raise LineError and SessionExists, `finish` also AliasTaken and
    SessionGone; `close` is always called."""

    def __init__(self, transfer: Transfer, tenant: str, replace: bool) -> None:
        self._transfer = transfer
        self._connection = transfer.connection
        self._replace = replace
        self._reader = Reader(tenant, transfer.connection.codec, transfer.keeps_texts)
        self._token = token_hex(8)
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._staged: SessionKeys | None = None

    async def feed(self, piece: bytes) -> None:
        """Takes the next bytes of the body; its lines may lie across pieces."""
        end = piece.rfind(b"\n") + 1
        if end:
            await self._take(b"".join([*self._rest, piece[:end]]))
            self._rest, self._rest_bytes = [], 0
        if rest := piece[end:]:
            self._rest.append(rest)
            self._rest_bytes += len(rest)
        if self._rest_bytes > lines.MAX_LINE_BYTES:
            await self._take(b"".join(self._rest))  # refuses the line for its length

    async def finish(self) -> Imported:
        """Puts the session in its place."""
        if self._rest:
            await self._take(b"".join(self._rest))
        self._reader.finish()
        address, staged = self._reader.address, self._staged
        assert address is not None and staged is not None
        names = keys.of_session(address)
        key_list = [staged.tomb, names.tomb, names.links]
        key_list += [getattr(names, part) for part in KINDS]
        key_list += [getattr(staged, part) for part in KINDS]
        number = ""
        if address.family:
            number = str(address.number)
            key_list.append(keys.counter(address))
            key_list += [keys.first(address, reply) for reply in self._reader.replies[:_FIRST_REPLIES]]
        args = [self._transfer.ttl_ms, len(KINDS), "1" if self._replace else "0", number, _DONE_MS]
        if not await self._transfer.profiles.claim(address, self._reader.aliases):
            raise AliasTaken("another session has one of its aliases")
        done = await self._connection.run("import", key_list, args)
        if done != 1:
            if done < 0:
                await self._transfer.profiles.release(address, self._reader.aliases)
                raise SessionGone("the import took too long")
            raise SessionExists(address.session_id)
        self._staged = None
        self._transfer.index.touch(address, now_ms())
        await self._transfer.index.flush()
        return Imported(address, self._reader.nodes, dict(self._reader.entries))

    async def close(self) -> None:
        """Takes away what was brought in for nothing."""
        if self._staged is not None:
            staged, self._staged = self._staged, None
            for key in (*staged.data, staged.tomb):
                await self._connection.command("unlink", key)

    async def _take(self, text: bytes) -> None:
        """Reads whole lines, and brings in what they say."""
        for begin, end in _pieces(text):
            writes = await asyncio.to_thread(self._read, text[begin:end])
            await self._bring(writes)

    def _read(self, text: bytes) -> list[Write]:
        return [write for line in text.removesuffix(b"\n").split(b"\n") for write in self._reader.read(line)]

    async def _bring(self, writes: Sequence[Write]) -> None:
        address = self._reader.address
        if address is None:
            return
        if self._staged is None:
            if not self._replace and await self._connection.command("exists", keys.of_session(address).meta):
                raise SessionExists(address.session_id)
            self._staged = keys.staged(address, self._token)
        parts = {part: at for at, part in enumerate(KINDS, 2)}
        key_list = [self._staged.tomb, *(getattr(self._staged, part) for part in KINDS)]
        args: list[str | bytes | int] = [STAGED_MS]
        size = 0
        for write in writes:
            args += (parts[write.part], KINDS[write.part], write.place, write.value)
            size += len(write.value)
            if size >= CHUNK_BYTES or len(args) >= 4 * CHUNK_ITEMS:
                await self._connection.run("import_stage", key_list, args)
                args, size = [STAGED_MS], 0
        if len(args) > 1:
            await self._connection.run("import_stage", key_list, args)


def _pieces(text: bytes) -> list[tuple[int, int]]:
    """Runs of whole lines, of about CHUNK_BYTES each."""
    found, begin = [], 0
    while begin < len(text):
        end = text.find(b"\n", min(begin + CHUNK_BYTES, len(text)))
        end = len(text) if end < 0 else end + 1
        found.append((begin, end))
        begin = end
    return found


def _score(score: float) -> float | None:
    """Whole numbers without a fraction; None for the end of time."""
    return None if isinf(score) else int(score) if score == int(score) else score
