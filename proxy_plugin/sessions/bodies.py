"""How the bytes of a node, or of a lead, lie in the store. Pure, but for the nonces of encrypted ones.

    0    layout version "1"
    1    codec: "0" as they were given, "1" zstd, a frame that says how long its content is, "2" encrypted
    2..  the bytes; encrypted ones:

    2..5   bytes of the body, big-endian         6..  see encryption.py: the codec "0" or "1", and its bytes

What is short, or does not shrink, stays as it was given: most messages of a chat do. Values that an older version
wrote are brought to this one when they are read (`MIGRATIONS`); nothing is rewritten in place. So bodies that were
stored before encryption was switched on, or after it was switched off, lie beside encrypted ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import local

import zstandard

from proxy_plugin.sessions.encryption import ID_BYTES, Keyring, Locked

VERSION = b"1"
PLAIN, ZSTD, SEALED = b"0", b"1", b"2"
COMPRESSED_FROM = 1024
"""Bytes; below, a frame saves less than its time is worth."""
MAX_BYTES = 256_000_000
"""Of a body; a frame that says more is damaged."""

MIGRATIONS: Mapping[bytes, Callable[[bytes], bytes]] = {}
"""Layout version -> what makes a whole stored value of that version one of the next. There has been one version."""

_LEVEL = 3
_HEADER = len(VERSION + PLAIN)
_SEALED_HEADER = _HEADER + 4


class _Zstd(local):
    """zstd's contexts serve one thread at a time."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()


def _unheard(key_id: str) -> None:
    """Hears of locked values where nobody listens."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Writes and reads values, encrypted ones where there are keys. A value is named by where it lies: the key in
    Redis and the field there. `on_locked` hears the id of the key of each value that cannot be decrypted here."""

    keyring: Keyring | None = None
    on_locked: Callable[[str], None] = _unheard

    def encode(self, body: bytes, key: str, field: str) -> bytes:
        packed = _packed(body)
        if self.keyring is None:
            return VERSION + packed
        header = VERSION + SEALED + len(body).to_bytes(4, "big")
        return header + self.keyring.seal(packed, _bound(header, key, field))

    def decode(self, stored: bytes, key: str, field: str) -> bytes:
        """Raises ValueError for a layout or codec that this version does not know, and for damaged bytes; Locked, one
        too, for those of a key that is not here."""
        stored = _migrated(stored)
        if stored[1:2] != SEALED:
            return _unpacked(stored[1:])
        if self.is_locked(stored):
            raise Locked(key_of(stored))
        if self.keyring is None:
            raise ValueError("damaged body: too short")
        header = stored[:_SEALED_HEADER]
        return _unpacked(self.keyring.open(stored[_SEALED_HEADER:], _bound(header, key, field)))

    def read(self, stored: bytes | None, key: str, field: str) -> bytes | None:
        """None for what is not there, damaged or locked."""
        try:
            return None if stored is None else self.decode(stored, key, field)
        except Locked as locked:
            self.on_locked(locked.key_id)
            return None
        except ValueError:
            return None

    def is_locked(self, stored: bytes | None) -> bool:
        """Whether it is encrypted by a key that is not here: others may read it, so that it is not damaged."""
        key = key_of(stored) if stored is not None else ""
        return bool(key) and (self.keyring is None or key not in self.keyring.ids)


def size_of(stored: bytes) -> int:
    """Bytes of the body itself. Raises ValueError for a layout that is not known or says no size."""
    stored = _migrated(stored)
    match stored[1:2]:
        case b"2":
            return int.from_bytes(stored[_HEADER:_SEALED_HEADER], "big")
        case b"1":
            return _content_size(stored[_HEADER:])
    return len(stored) - _HEADER


def key_of(stored: bytes) -> str:
    """Id of the key that it is encrypted by, "" for what is not."""
    whole = stored[:_HEADER] == VERSION + SEALED and len(stored) >= _SEALED_HEADER + ID_BYTES
    return stored[_SEALED_HEADER : _SEALED_HEADER + ID_BYTES].hex() if whole else ""


def _packed(body: bytes) -> bytes:
    if len(body) > COMPRESSED_FROM:
        frame = _zstd.compress(body)
        if len(frame) < len(body):
            return ZSTD + frame
    return PLAIN + body


def _unpacked(packed: bytes) -> bytes:
    if packed[:1] == PLAIN:
        return packed[1:]
    frame = packed[1:]
    size = _content_size(frame)
    try:
        return _zstd.decompress(frame, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(f"damaged body: {error}") from None


def _migrated(stored: bytes) -> bytes:
    for _ in range(len(MIGRATIONS)):
        migrate = MIGRATIONS.get(stored[:1])
        if migrate is None:
            break
        stored = migrate(stored)
    if stored[:1] != VERSION or stored[1:2] not in (PLAIN, ZSTD, SEALED):
        raise ValueError("no body of this version")
    return stored


def _content_size(frame: bytes) -> int:
    try:
        size = zstandard.get_frame_parameters(frame).content_size
    except zstandard.ZstdError as error:
        raise ValueError(f"damaged body: {error}") from None
    if size > MAX_BYTES:  # also where the frame does not say it
        raise ValueError("damaged body: no frame of a body")
    return int(size)


def _bound(header: bytes, key: str, field: str) -> bytes:
    return b"%s%s\0%s" % (header, key.encode(), field.encode())
