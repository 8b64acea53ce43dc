"""Everything that a Redis holds, in the clear, for tests that look for what must not be there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from proxy_plugin.sessions.bodies import Codec

_HEADS = (0, 16, 49)
"""Where a body may begin in a value: behind the token of a record of a request, behind the head of a step."""


async def everything(redis: Callable[..., Awaitable[Any]]) -> list[tuple[str, bytes]]:
    """(key, value) of each field, member and value, and of each name; what is a body also decoded. `redis` runs a
    command."""
    found: list[tuple[str, bytes]] = []
    for key in await redis("KEYS", "*"):
        name = key.decode()
        kind = (await redis("TYPE", key)).decode()
        match kind:
            case "hash":
                stored = await redis("HGETALL", key)
                pieces = [piece for pair in stored.items() for piece in pair] if isinstance(stored, dict) else stored
            case "zset":
                pieces = await redis("ZRANGE", key, 0, -1)
            case "list":
                pieces = await redis("LRANGE", key, 0, -1)
            case "set":
                pieces = list(await redis("SMEMBERS", key))
            case "string":
                pieces = [await redis("GET", key)]
            case _:
                raise AssertionError(f"{name} is a {kind}")
        for piece in (key, *pieces):
            found += [(name, piece), *((name, body) for body in _decoded(piece))]
    return found


def _decoded(piece: bytes) -> list[bytes]:
    bodies = []
    for at in _HEADS:
        try:
            bodies.append(Codec().decode(piece[at:], "", ""))
        except ValueError:
            continue
    return bodies
