"""After a change of keys: what is stored in the clear, or under an older key, comes under the one that encrypts now.

A session that is used does not expire, and what it holds stays under the key that encrypted it. So this is what lets
an old key go. It runs beside workers that read and write: each value changes only where it is still the one that was
read, and means the same then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from proxy_plugin.history.model import dump
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.bodies import key_of
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.encryption import Locked
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.reader import CHUNK_BYTES, CHUNK_ITEMS
from proxy_plugin.sessions.requests import body_of
from proxy_plugin.sessions.texts import TEXTS, Texts

_BODIES = ("bodies", "leads", "requests")
_ALONE = frozenset({"meta", "profile"})
"""Parts that hold each text under its own field, not in a record."""
_PIECE = 100


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many values came under the key, and how many are under keys that are not here."""

    values: int = 0
    locked: int = 0

    def __add__(self, other: Resealed) -> Resealed:
        return Resealed(self.values + other.values, self.locked + other.locked)


class Resealing:
    """Raises redis-py's errors. Does nothing where there are no keys."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codec = connection.codec

    async def session(self, address: Address) -> Resealed:
        done = Resealed()
        if self._codec.keyring is None or not address.session_id:
            return done
        names = keys.of_session(address)
        for part in (*_BODIES, *TEXTS):
            done += await self._part(names, part)
        return done

    async def _part(self, names: SessionKeys, part: str) -> Resealed:
        args: list[str | bytes | int] = []
        size = put = locked = 0
        async for place, stored in self._entries(getattr(names, part), part):
            try:
                renewed = self._body if part in _BODIES else self._record
                new = renewed(names, part, place, stored)
            except Locked:
                locked += 1
                continue
            except ValueError:
                continue  # damaged: the client's next history brings it back
            if new is not None:
                args += (place, stored, new)
                size += len(stored) + len(new)
            if size >= CHUNK_BYTES:
                put += await self._put(names, part, args)
                args, size = [], 0
        return Resealed(put + (await self._put(names, part, args) if args else 0), locked)

    async def _put(self, names: SessionKeys, part: str, args: list[str | bytes | int]) -> int:
        counted = "1" if part in _BODIES else ""
        return int(await self._connection.run("reseal", [names.meta, getattr(names, part)], [counted, *args]))

    async def _entries(self, key: str, part: str) -> AsyncIterator[tuple[str, bytes]]:
        """Fields or places of a part, and their values, in bounded replies."""
        if part == "agents":
            for place, entry in enumerate(await self._connection.command("lrange", key, 0, CHUNK_ITEMS)):
                yield str(place), entry
            return
        cursor = -1
        while cursor:
            cursor, piece = await self._connection.command("hscan", key, max(cursor, 0), count=_PIECE)
            for field, value in piece.items():
                yield field.decode("utf-8", "replace"), value

    def _body(self, names: SessionKeys, part: str, field: str, stored: bytes) -> bytes | None:
        """The value under the key of now; None where it is already, or holds no body."""
        assert self._codec.keyring is not None
        named, body = body_of(field, stored) if part == "requests" else (field, stored)
        if not body or key_of(body) == self._codec.keyring.ids[0]:
            return None
        key = getattr(names, part)
        before = stored[: len(stored) - len(body)]
        return before + self._codec.encode(self._codec.decode(body, key, named), key, named)

    def _record(self, names: SessionKeys, part: str, field: str, stored: bytes) -> bytes | None:
        """The same of a record, or of a text alone."""
        texts = Texts(self._codec, names)
        if part in _ALONE:
            alone = texts.resealed(part, {field: stored.decode()})
            return None if alone is None else str(alone[field]).encode()
        record: Any = orjson.loads(stored)
        new = texts.resealed(part, record) if isinstance(record, dict) else None
        return None if new is None else dump(new)
