"""What is measured: times of appends, bytes on the wire, memory of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any

from proxy_plugin.sessions.bodies import Codec
from tests.benchmarks.store.contestants import Contestant, Messages
from tests.benchmarks.store.messages import Texts

APPENDS = 20
"""Of one session in one round: few, so that a session stays about as long as it was."""
_CODEC_REPEATS = 20
_names = (f"s-{number}" for number in count())


@dataclass(slots=True)
class Times:
    """Of appends of one contestant. `rates`: appends per second of each round; `wire`: bytes per append, both ways."""

    ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    wire: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        return sorted(self.ms)[min(len(self.ms) - 1, int(share * len(self.ms)))]

    @property
    def rate(self) -> float:
        return median(self.rates)


class Server:
    """The server's own counters."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def traffic(self) -> int:
        """Bytes that went over the network since it started, but for what asking costs."""
        stats = await self._client.info("stats")
        return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])

    async def cost_of_asking(self) -> int:
        return -(await self.traffic()) + await self.traffic()

    async def memory(self) -> int:
        """Bytes that all keys take, without what the server itself needs."""
        usages = [await self._client.memory_usage(key, samples=0) async for key in self._client.scan_iter(count=1_000)]
        return sum(usage or 0 for usage in usages)

    async def empty(self) -> None:
        await self._client.flushall()


async def one_round(
    contestant: Contestant, server: Server, texts: Texts, at_once: int, length: int, times: Times
) -> None:
    """Fills new sessions, then appends to all of them at once. Checks that all of it is there."""
    sessions = [next(_names) for _ in range(at_once)]
    messages = texts.conversation(length)
    for session in sessions:
        await contestant.fill(session, messages)
    new = texts.turn if contestant.new_subtasks else texts.tool_round
    added = [[new() for _ in range(APPENDS)] for _ in sessions]
    await contestant.settle()
    cost, before, begun = await server.cost_of_asking(), await server.traffic(), perf_counter()
    await asyncio.gather(
        *(_append(contestant, session, pieces, times.ms) for session, pieces in zip(sessions, added, strict=True))
    )
    seconds = perf_counter() - begun
    await contestant.settle()
    times.wire.append((await server.traffic() - before - cost) / (at_once * APPENDS))
    times.rates.append(at_once * APPENDS / seconds)
    assert await contestant.count(sessions[0]) == length + 2 * APPENDS


async def _append(contestant: Contestant, session: str, pieces: Sequence[Messages], into: list[float]) -> None:
    for messages in pieces:
        begun = perf_counter()
        await contestant.append(session, messages)
        into.append((perf_counter() - begun) * 1000)


async def by_length(contestant: Contestant, texts: Texts, lengths: Sequence[int], appends: int) -> dict[int, float]:
    """Median ms of an append to a session of each length, in turn."""
    sessions = {length: next(_names) for length in lengths}
    times: dict[int, list[float]] = {length: [] for length in lengths}
    for length, session in sessions.items():
        await contestant.fill(session, texts.conversation(length - 1))
    await contestant.settle()
    for _ in range(appends):
        pieces = [texts.tool_round()]
        for length, session in sessions.items():
            await _append(contestant, session, pieces, times[length])
    return {length: median(of_one) for length, of_one in times.items()}


def codec_us(codec: Codec, bodies: Sequence[bytes]) -> tuple[float, float]:
    """Median microseconds of writing one body, and of reading it."""

    def timed(work: Callable[[], object]) -> float:
        begun = perf_counter()
        for _ in range(_CODEC_REPEATS):
            work()
        return (perf_counter() - begun) / _CODEC_REPEATS * 1e6

    stored = [codec.encode(body, "key", "field") for body in bodies]
    write = median(timed(lambda body=body: codec.encode(body, "key", "field")) for body in bodies)  # type: ignore[misc]
    return write, median(timed(lambda one=one: codec.decode(one, "key", "field")) for one in stored)  # type: ignore[misc]


async def memory_per_session(contestant: Contestant, server: Server, texts: Texts, sessions: int, length: int) -> float:
    await server.empty()
    for _ in range(sessions):
        await contestant.fill(next(_names), texts.conversation(length))
    await contestant.settle()
    return await server.memory() / sessions
