"""How the bytes of a node, or of a lead, lie in the store. Pure.

    0    layout version "1"
    1    codec: "0" as they were given, "1" zstd, a frame that says how long its content is
    2..  the bytes

What is short, or does not shrink, stays as it was given: most messages of a chat do. Values that an older version
wrote are brought to this one when they are read (`MIGRATIONS`); nothing is rewritten in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import local

import zstandard

VERSION = b"1"
PLAIN, ZSTD = b"0", b"1"
COMPRESSED_FROM = 1024
"""Bytes; below, a frame saves less than its time is worth."""
MAX_BYTES = 256_000_000
"""Of a body; a frame that says more is damaged."""

MIGRATIONS: Mapping[bytes, Callable[[bytes], bytes]] = {}
"""Layout version -> what makes a whole stored value of that version one of the next. There has been one version."""

_LEVEL = 3
_HEADER = len(VERSION + PLAIN)


class _Codec(local):
    """zstd's contexts serve one thread at a time."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codec = _Codec()


def encode_body(body: bytes) -> bytes:
    if len(body) > COMPRESSED_FROM:
        frame = _codec.compress(body)
        if len(frame) < len(body):
            return VERSION + ZSTD + frame
    return VERSION + PLAIN + body


def decode_body(stored: bytes) -> bytes:
    """Raises ValueError for a layout or codec that this version does not know, and for a damaged frame."""
    stored = _migrated(stored)
    if stored[1:2] == PLAIN:
        return stored[_HEADER:]
    size = _content_size(stored)
    try:
        return _codec.decompress(stored[_HEADER:], max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(f"damaged body: {error}") from None


def size_of(stored: bytes) -> int:
    """Bytes of the body itself. Raises ValueError as `decode_body` does."""
    stored = _migrated(stored)
    return len(stored) - _HEADER if stored[1:2] == PLAIN else _content_size(stored)


def _migrated(stored: bytes) -> bytes:
    for _ in range(len(MIGRATIONS)):
        migrate = MIGRATIONS.get(stored[:1])
        if migrate is None:
            break
        stored = migrate(stored)
    if stored[:1] != VERSION or stored[1:2] not in (PLAIN, ZSTD):
        raise ValueError("no body of this version")
    return stored


def _content_size(stored: bytes) -> int:
    try:
        size = zstandard.get_frame_parameters(stored[_HEADER:]).content_size
    except zstandard.ZstdError as error:
        raise ValueError(f"damaged body: {error}") from None
    if size > MAX_BYTES:  # also where the frame does not say it
        raise ValueError("damaged body: no frame of a body")
    return int(size)
