"""A circuit breaker: after some failures in a row calls are refused at once, until one is let through to see
whether the other side is back. Pure: the clock is given."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Breaker:
    """closed -> (`failures` in a row) -> open -> (`reset_seconds`) -> half open: one call -> closed or open."""

    def __init__(self, failures: int, reset_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._limit = failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._failures = 0
        self._next_probe = 0.0

    @property
    def closed(self) -> bool:
        return self._failures < self._limit

    def allow(self) -> bool:
        """Whether a call may be made now. While open, one call each `reset_seconds` may."""
        if self.closed:
            return True
        now = self._clock()
        if now < self._next_probe:
            return False
        self._next_probe = now + self._reset_seconds  # a probe that never reports back is followed by another
        return True

    def success(self) -> None:
        self._failures = 0

    def failure(self) -> None:
        self._failures += 1
        if not self.closed:
            self._next_probe = self._clock() + self._reset_seconds
