"""What a worker remembers of conversations, so that a request costs what is new in it.

The newest stand ready. Older ones are packed: at a tenth of the size or less, and unpacked in a small part of the time
that working everything out again takes. Both are bounded. What was dropped is worked out anew, and nothing but time
is lost.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import NamedTuple

import zstandard

from proxy_plugin.gateway.recorder import Digests
from proxy_plugin.gateway.trail import Trail
from proxy_plugin.history.memo import Memo

_LEVEL = 1  # a higher one saves a tenth of the size and takes twice the time


class Remembered(NamedTuple):
    """What a conversation's last request left: for the rewriting, for the account of prefixes, for the record."""

    memo: Memo
    trail: Trail | None = None
    digests: Digests | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of memory, about."""
        return self.memo.size_bytes + (self.digests.size_bytes if self.digests is not None else 0)


class Memos:
    """Of one worker. `limit`: bytes of memory, half of them for what stands ready; 0: nothing is remembered."""

    def __init__(self, limit: int) -> None:
        self._limit = limit // 2
        self._ready: OrderedDict[str, tuple[Remembered, int]] = OrderedDict()
        self._packed: OrderedDict[str, bytes] = OrderedDict()
        self._ready_bytes = self._packed_bytes = 0
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def take(self, key: str) -> Remembered:
        """Of a conversation, and away from here while it is used: two requests never share one."""
        ready, packed = self._pop(key)
        if ready is None and packed:
            ready = self._unpack(packed)
        return ready or Remembered(Memo())

    def put(self, key: str, left: Remembered) -> None:
        if not self._limit:
            return
        self._pop(key)  # what another request of the conversation, answered meanwhile, has left
        size = left.size_bytes
        self._ready[key] = left, size
        self._ready_bytes += size
        while self._ready_bytes > self._limit:
            oldest, (dropped, size) = self._ready.popitem(last=False)
            self._ready_bytes -= size
            self._pack(oldest, dropped)

    def _pop(self, key: str) -> tuple[Remembered | None, bytes]:
        ready, size = self._ready.pop(key, (None, 0))
        packed = self._packed.pop(key, b"")
        self._ready_bytes -= size
        self._packed_bytes -= len(packed)
        return ready, packed

    def _pack(self, key: str, left: Remembered) -> None:
        try:
            packed = self._compressor.compress(pickle.dumps(left, protocol=5))
        except Exception:  # hundreds of levels, or what is no JSON: worked out anew each time
            return
        self._packed[key] = packed
        self._packed_bytes += len(packed)
        while self._packed_bytes > self._limit:
            _, gone = self._packed.popitem(last=False)
            self._packed_bytes -= len(gone)

    def _unpack(self, packed: bytes) -> Remembered:
        left: Remembered = pickle.loads(self._decompressor.decompress(packed))  # this process packed it, nobody else
        return left
