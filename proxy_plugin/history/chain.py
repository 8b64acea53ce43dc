"""A hash over a list that goes on where that of an earlier list stopped being alike. Pure.

Each link is a hash over the link before it and one piece, so that the last one stands for the whole list. What two
lists begin with is found by comparing the pieces themselves: nothing is taken over that was not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

LINK = 16
"""Bytes of a link: 128 bits of SHA-256, since contents are chosen by strangers."""


class Chain:
    """pieces  the list           links  one for each piece, one behind the other
    alike   how many pieces the earlier list begins with too"""

    __slots__ = ("alike", "links", "pieces")

    def __init__(self, pieces: Sequence[bytes], before: Chain | None = None) -> None:
        self.pieces = pieces
        self.alike: int = common(pieces, before.pieces) if before is not None else 0
        links = bytearray(before.links[: LINK * self.alike] if before is not None else b"")
        link = bytes(links[-LINK:]) or bytes(LINK)
        for piece in pieces[self.alike :]:
            digest = sha256(link)
            digest.update(piece)
            link = digest.digest()[:LINK]
            links += link
        self.links: bytes = bytes(links)

    @property
    def hash(self) -> str:
        """32 hexadecimal characters; all "0" for a list without pieces."""
        return (self.links[-LINK:] or bytes(LINK)).hex()


def common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items both begin with."""
    shared = min(len(one), len(other))
    if one[:shared] == other[:shared]:
        return shared
    return next(index for index in range(shared) if one[index] != other[index])
