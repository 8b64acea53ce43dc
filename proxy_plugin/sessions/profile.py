"""What a user gives to a session: title, description, metadata, and aliases that lead to it.

The session's own list of aliases is the truth. A hash of the tenant, in another slot, leads from an alias to a
session; an entry there whose session is gone, or does not list it, counts as free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from proxy_plugin.sessions import identity, keys, tree
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.edits import Edits, Refused
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.reader import SessionReader
from proxy_plugin.sessions.tree import SessionInfo


@dataclass(frozen=True, slots=True)
class Profile:
    """What is to be changed: None stays as it is, empty takes away."""

    title: str | None = None
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    aliases: Sequence[str] | None = None


class ProfileStore:
    """Raises redis-py's errors. `ttl_ms`: how long a session is kept."""

    def __init__(self, connection: Connection, reader: SessionReader, edits: Edits, ttl_ms: int) -> None:
        self._connection = connection
        self._reader = reader
        self._edits = edits
        self._ttl_ms = ttl_ms

    async def change(self, address: Address, profile: Profile) -> SessionInfo | Refused:
        """The session with these values. Nothing is changed where an alias is another session's."""
        session = await self._reader.session(address)
        if session is None:
            return Refused.NO_SESSION
        said = {
            name: tree.clean(text)
            for name, text in (("title", profile.title), ("description", profile.description))
            if text is not None
        }
        if profile.metadata is not None:
            said["metadata"] = orjson.dumps(profile.metadata).decode() if profile.metadata else ""
        new = () if profile.aliases is None else tuple(dict.fromkeys(map(tree.clean, profile.aliases)))
        added = [alias for alias in new if alias not in session.aliases]
        if profile.aliases is not None:
            said["aliases"] = orjson.dumps(new).decode() if new else ""
            if not await self.claim(address, added):
                return Refused.ALIAS_TAKEN
        texts = self._edits.texts(address)
        said = texts.sealed("meta", texts.sealed("profile", said))
        reply = await self._edits.run("profile", address, said)
        if reply[0] == b"gone":
            await self.release(address, added)
            return Refused.NO_SESSION
        if profile.aliases is not None:
            await self.release(address, [alias for alias in session.aliases if alias not in new])
        return await self._reader.session(address) or Refused.NO_SESSION

    async def find(self, tenant: str, alias: str) -> SessionInfo | None:
        """The session that has this alias."""
        session_id = await self._leads_to(tenant, tree.clean(alias))
        if not session_id:
            return None
        session = await self._reader.session(identity.address(tenant, session_id))
        return session if session is not None and tree.clean(alias) in session.aliases else None

    async def owners(self, tenants: Sequence[str], alias: str) -> list[SessionInfo]:
        """The sessions that have this alias, whichever tenant each belongs to."""
        found = await asyncio.gather(*(self.find(tenant, alias) for tenant in tenants))
        return [session for session in found if session is not None]

    async def release(self, address: Address, aliases: Sequence[str]) -> None:
        """Frees those that lead to this session."""
        for alias in aliases:
            await self._set(address.tenant, alias, address.session_id, "")

    async def claim(self, address: Address, aliases: Sequence[str]) -> bool:
        """Makes all of them lead to this session, or none of them."""
        for index, alias in enumerate(aliases):
            owner = await self.find(address.tenant, alias)
            seen = await self._leads_to(address.tenant, alias)
            taken = owner is not None and owner.session_id != address.session_id
            if taken or not await self._set(address.tenant, alias, seen, address.session_id):
                await self.release(address, aliases[:index])
                return False
        return True

    async def _leads_to(self, tenant: str, alias: str) -> str:
        stored: bytes | None = await self._connection.command("hget", keys.aliases(tenant), alias)
        return stored.decode(errors="replace") if stored else ""

    async def _set(self, tenant: str, alias: str, seen: str, session_id: str) -> bool:
        values: list[str | bytes | int] = [alias, seen, session_id, self._ttl_ms]
        return bool(await self._connection.run("alias", [keys.aliases(tenant)], values))
