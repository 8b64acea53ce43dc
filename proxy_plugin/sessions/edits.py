"""Changes of a session that are no commit: one atomic script each, and what they may be refused for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import orjson

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.index import SessionIndex
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.sessions.texts import Texts


class Refused(Enum):
    """Why nothing was changed."""

    NO_SESSION = "no such session"
    NO_NODE = "the session has no such node"
    NO_BRANCH = "the session has no such branch"
    NO_SNAPSHOT = "the session has no such snapshot, or it has expired"
    NAME_TAKEN = "the session has a branch of this name"
    BRANCH_CURRENT = "the current branch cannot be deleted: switch to another one first"
    ALIAS_TAKEN = "another session has this alias"
    DAMAGED = "what is stored of the session is damaged: its next whole history mends it"


class Contended(Exception):
    """The session changes faster than it can be read and changed."""


class Edits:
    """Runs the scripts that take the keys of one session. Raises redis-py's errors. `ttl_ms`: how long a session is
    kept after its last activity, which an edit is."""

    def __init__(self, connection: Connection, index: SessionIndex, ttl_ms: int) -> None:
        self._connection = connection
        self._index = index
        self._ttl_ms = ttl_ms

    @property
    def codec(self) -> Codec:
        return self._connection.codec

    def texts(self, address: Address) -> Texts:
        return Texts(self.codec, keys.of_session(address))

    async def run(self, name: str, address: Address, said: Mapping[str, str], *values: str | bytes) -> list[bytes]:
        """The script's answer; [b"gone"] where the session is not there. `said`: what the script is told beside
        the time and the TTL."""
        if not address.session_id:
            return [b"gone"]
        names, now = keys.of_session(address), now_ms()
        told = {"now": str(now), "now_hex": f"{now:012x}", "ttl": str(self._ttl_ms), **said}
        reply: Any = await self._connection.run(name, [*names.data, names.tomb], [orjson.dumps(told), *values])
        if reply[0] != b"gone":
            self._index.touch(address, now)
        return list(reply)
