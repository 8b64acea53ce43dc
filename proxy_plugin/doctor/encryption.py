"""Checks of encryption at rest: are its keys usable, and do they open what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.metadata import version

from proxy_plugin.doctor.finding import Finding, error, ok
from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.bodies import key_of
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.encryption import KEY_BYTES, Keyring
from proxy_plugin.sessions.index import SessionIndex
from proxy_plugin.sessions.reader import SessionReader
from proxy_plugin.settings import ENCRYPTION_KEYS, Settings, SettingsError

SAMPLE = 50
"""The newest sessions, of each of which the newest message is looked at."""


def check_keys(environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        keyring = Keyring.of(environ)
    except SettingsError as problem:
        yield error("encryption", str(problem), f"keys are {KEY_BYTES} random bytes: openssl rand -base64 {KEY_BYTES}")
        return
    if keyring is None:
        yield ok("encryption", f"off: {ENCRYPTION_KEYS} is not set")
    else:
        first, *others = keyring.ids
        more = f", older ones: {', '.join(others)}" if others else ""
        yield ok("encryption", f"AES-256-GCM (cryptography {version('cryptography')}), key {first}{more}")


async def check_stored(connection: Connection, settings: Settings) -> AsyncIterator[Finding]:
    """Whether the keys of this environment open what is there: all workers need those of each other."""
    index = SessionIndex(connection, SessionReader(connection), settings.store.session_ttl_s * 1000)
    newest = (await index.sessions(None, limit=SAMPLE)).sessions
    found: Counter[str] = Counter()
    for info in newest:
        names = keys.of_session(identity.address(info.tenant, info.session_id))
        body = await connection.command("hget", names.bodies, info.head) if info.head else None
        if body is not None:
            found[key_of(body)] += 1
    here = connection.codec.keyring.ids if connection.codec.keyring else ()
    foreign = sorted(key for key in found if key and key not in here)
    if foreign:
        text = f"{sum(found[key] for key in foreign)} of the {found.total()} newest sessions are encrypted by keys "
        cure = f"put them behind the first one in {ENCRYPTION_KEYS}; every worker needs the same keys"
        yield error("stored texts", text + f"that are not here: {', '.join(foreign)}", cure)
    elif found:
        by = [f"{count} {f'by key {key}' if key else 'not encrypted'}" for key, count in sorted(found.items())]
        yield ok("stored texts", f"of the {found.total()} newest sessions: {', '.join(by)}")
