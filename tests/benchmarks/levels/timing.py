"""Time of the rewriting of one request, in floors: one orjson dump and one sha256 of each of its messages.

The requests of a conversation whose length is near a size, in order and with the conversation's memo, each
freshly parsed, as a request is; the one before them is rewritten first. Floor and rewriting take turns, so
that a busy machine slows both.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from tests.benchmarks.conversations import requests
from tests.benchmarks.levels.replay import Rewriting
from tests.benchmarks.peers.peer import Message
from tests.benchmarks.rewriting import floor, timed

SIZES = (400, 800)
NEAR = 0.1  # of the size, to either side
SHORTEST = round((1 - NEAR) * min(SIZES))  # messages of a request that is timed
FEWEST = 10  # requests that percentiles are taken of


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each request."""

    floors: list[float]
    rewritings: list[float]


@dataclass(frozen=True, slots=True)
class Timing:
    requests: int
    floor_ms: float
    p50: float  # in floors
    p90: float


def times(messages: list[Message], size: int, rewriting: Rewriting) -> Times:
    """`rewriting`: that of a new conversation. Empty where no request is of this size."""
    sent = requests(messages)
    near = [number for number, wire in enumerate(sent) if abs(len(wire) - size) <= NEAR * size]
    out = Times([], [])
    if not near:
        return out
    bodies = [orjson.dumps(wire) for wire in sent[max(near[0] - 1, 0) : near[-1] + 1]]
    rewriting(orjson.loads(bodies[0]))
    gc.collect()
    gc.disable()
    try:
        for body in bodies[1:]:
            wire = orjson.loads(body)
            out.floors.append(timed(lambda wire=wire: floor(wire)))
            wire = orjson.loads(body)
            out.rewritings.append(timed(lambda wire=wire: rewriting(wire)))
    finally:
        gc.enable()
    return out


def timing(measured: Sequence[Times]) -> Timing | None:
    """None where there are too few requests."""
    floors = [seconds for one in measured for seconds in one.floors]
    if len(floors) < FEWEST:
        return None
    base = statistics.median(floors)
    shares = [seconds / base for one in measured for seconds in one.rewritings]
    return Timing(len(floors), base * 1e3, statistics.median(shares), statistics.quantiles(shares, n=10)[-1])
