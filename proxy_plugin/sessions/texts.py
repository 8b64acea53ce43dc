"""Texts in the small records of a session, which scripts read, change and copy: encrypted one by one.

A record is JSON, or a text alone. What of it only people read (TEXTS) is kept as a token where there are keys:

    pp-sealed-1:<base64url>    the JSON value, encrypted, bound to the session

To a script that is a text like any other; the title of a session that it copies into a snapshot is copied as a token.
Names by which something is found, compared or shown as an address stay as they are: ids, agents, branches, aliases.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy_plugin.history.model import dump
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.encryption import ID_BYTES, Locked
from proxy_plugin.sessions.keys import SessionKeys

TEXTS: Mapping[str, frozenset[str]] = {
    "meta": frozenset({"title"}),
    "profile": frozenset({"description", "metadata"}),
    "subtasks": frozenset({"description", "metadata", "text", "error"}),
    "named": frozenset({"name", "title"}),
    "agents": frozenset({"reason"}),
}
"""Part of the session (SessionKeys) -> what of its records is text; `meta` and `profile` hold each under its own
field."""

_PREFIX = b"pp-sealed-1:"
_FORM = rb"pp-sealed-1:[A-Za-z0-9_-]+={0,2}"
_NAMES = "|".join(sorted(frozenset[str]().union(*TEXTS.values()))).encode()
_TOKEN = re.compile(rb"%s\Z" % _FORM)
_IN_JSON = re.compile(rb'("(?:%s)":\s*)"(%s)"' % (_NAMES, _FORM))


@dataclass(frozen=True, slots=True)
class Texts:
    """Those of one session."""

    codec: Codec
    names: SessionKeys

    def sealed(self, part: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record to be stored, each of its texts as a token; the same where there are no keys."""
        keyring = self.codec.keyring
        if keyring is None:
            return dict(record)
        wanted, bound = TEXTS.get(part, frozenset()), self.names.meta.encode()
        tokens = {
            name: (_PREFIX + urlsafe_b64encode(keyring.seal(dump(value), bound))).decode()
            for name, value in record.items()
            if name in wanted and value
        }
        return {**record, **tokens}

    def resealed(self, part: str, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored record with its texts under the key that encrypts now, None where all of them are. Raises Locked
        where one is under a key that is not here, and ValueError where one is damaged."""
        keyring = self.codec.keyring
        if keyring is None:
            return None
        texts: dict[str, Any] = {}
        for name in TEXTS.get(part, frozenset()) & record.keys():
            value = record[name]
            if isinstance(value, str) and _TOKEN.match(value.encode("utf-8", "surrogatepass")):
                sealed = _unwrapped(value.encode())
                if sealed[:ID_BYTES].hex() == keyring.ids[0]:
                    continue
                value = orjson.loads(keyring.open(sealed, self.names.meta.encode()))
            if value:
                texts[name] = value
        return {**record, **self.sealed(part, texts)} if texts else None

    def opened(self, stored: bytes) -> bytes:
        """The record as it was before it was sealed. A text that cannot be read is null, or "" where it stands
        alone."""
        if _PREFIX not in stored:
            return stored
        if _TOKEN.match(stored):
            text = orjson.loads(self._value(stored))
            return text.encode() if isinstance(text, str) else b""
        if not stored.startswith(b"{"):
            return stored
        return _IN_JSON.sub(lambda found: found[1] + self._value(found[2]), stored)

    def _value(self, token: bytes) -> bytes:
        try:
            sealed = _unwrapped(token)
            if self.codec.keyring is None:
                raise Locked(sealed[:ID_BYTES].hex())
            return self.codec.keyring.open(sealed, self.names.meta.encode())
        except Locked as locked:
            self.codec.on_locked(locked.key_id)
        except ValueError:
            pass
        return b"null"


def _unwrapped(token: bytes) -> bytes:
    return urlsafe_b64decode(token.removeprefix(_PREFIX))
