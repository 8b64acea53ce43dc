"""What a history of twice the size costs: CPU time and memory of the rewriting, shape by shape.

Time is that of the process, the smallest of several runs on fresh objects; memory is the most that Python held at
once beyond the list itself. Both at a size and at twice that size.
"""

from __future__ import annotations

import gc
import math
import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

from proxy_plugin.history.model import dump
from proxy_plugin.history.rewrite import Rewrite, rewrite_history
from proxy_plugin.history.summary import cells
from tests.fuzz.shapes import RAISED, Shape, Wire

AT_MOST = 2.4
"""Times the cost of a list at twice its size."""
_SHORTEST = 0.05  # seconds that a measurement takes at least
_RUNS = 3
_CACHES = (cells._is_identifier, cells._short_word)


@dataclass(frozen=True, slots=True)
class Growth:
    """size (bytes of the list's JSON) and seconds at the size and at twice the size; memory (bytes a byte of the list)
    at a size that may be smaller, since it needs no clock, and at twice that."""

    name: str
    size: tuple[int, int]
    seconds: tuple[float, float]
    memory: tuple[float, float]

    @property
    def time_ratio(self) -> float:
        """Per factor of the bytes, which is not exactly 2."""
        return self.seconds[1] / self.seconds[0] * 2 * self.size[0] / self.size[1]

    @property
    def memory_ratio(self) -> float:
        return 2 * self.memory[1] / self.memory[0]

    @property
    def fine(self) -> bool:
        return self.time_ratio <= AT_MOST and self.memory_ratio <= AT_MOST


@dataclass(frozen=True, slots=True)
class Met:
    """What becomes of a list under the limits as they are by default. `size`: bytes of its JSON."""

    name: str
    messages: int
    size: int
    outcome: str
    seconds: float


def met(shape: Shape) -> Met:
    wire = shape.make(shape.size)
    result = rewritten(shape, wire)
    whole = "collapsed" if result.report.subtasks_collapsed else "as it came"
    outcome = {"": whole, "repair_only": "repaired only", "too_large": "passed"}[result.limited]
    return Met(shape.name, len(wire), len(dump(wire)), outcome, cpu_seconds(shape, shape.size))


def rewritten(shape: Shape, wire: Wire, memo: Any = None) -> Rewrite:
    context = shape.context(wire)
    return rewrite_history(
        wire, api=shape.api, provider=shape.provider, settings=shape.settings, context=context, memo=memo
    )


def cpu_seconds(shape: Shape, size: int, runs: int = _RUNS) -> float:
    """The smallest of several, so that what else the machine does counts least."""
    best = float("inf")
    for _ in range(runs):
        wire = shape.make(size)
        context = shape.context(wire)
        for cache in _CACHES:  # what an earlier run left there makes a small list cheaper than a large one
            cache.cache_clear()
        gc.collect()
        gc.disable()
        started = time.process_time()
        result = rewrite_history(wire, api=shape.api, provider=shape.provider, settings=shape.settings, context=context)
        best = min(best, time.process_time() - started)
        gc.enable()
        assert shape.settings.limits != RAISED or not result.limited, f"{shape.name}: {result.limited} {result.error}"
    return best


def peak_bytes(shape: Shape, size: int) -> float:
    """A byte of the list."""
    wire = shape.make(size)
    context = shape.context(wire)
    gc.collect()
    tracemalloc.start()
    try:
        rewrite_history(wire, api=shape.api, provider=shape.provider, settings=shape.settings, context=context)
        return max(tracemalloc.get_traced_memory()[1], 1) / len(dump(wire))
    finally:
        tracemalloc.stop()


def growth(shape: Shape) -> Growth:
    """Measured again at twice the size where a ratio is too large: what grows faster does so there, too."""
    smallest = size = max(shape.size // 4, 1)
    while (first := cpu_seconds(shape, size)) < _SHORTEST and size < shape.size * 256:
        size = math.ceil(size * max(1.5, min(1.2 * _SHORTEST / first, 16.0)))
    found = _growth(shape, size, first, smallest)
    if found.fine:
        return found
    return _growth(shape, 2 * size, cpu_seconds(shape, 2 * size, 2 * _RUNS), 2 * smallest, 2 * _RUNS)


def _growth(shape: Shape, size: int, first: float, held: int, runs: int = _RUNS) -> Growth:
    second = cpu_seconds(shape, 2 * size, runs)
    bytes_of = len(dump(shape.make(size))), len(dump(shape.make(2 * size)))
    return Growth(shape.name, bytes_of, (first, second), (peak_bytes(shape, held), peak_bytes(shape, 2 * held)))
