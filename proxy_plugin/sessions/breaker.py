"""A circuit breaker: after some failures in a row calls are refused at once, until one is let through to see
whether the other side is back. Pure: the clock is given."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Breaker:
    """closed -> (`failures` in a row) -> open -> (`reset_seconds`) -> half open: one call -> closed or open."""

    def __init__(
        self,
        failures: int,
        reset_seconds: float,
        clock: Callable[[], float] = monotonic,
        turned: Callable[[bool], None] = lambda is_open: None,
    ) -> None:
        """`turned` hears of it when the breaker opens (True) and when it closes again."""
        self._limit = failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._turned = turned
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
        was_closed, self._failures = self.closed, 0
        if not was_closed:
            self._turned(False)

    def failure(self) -> None:
        was_closed = self.closed
        self._failures += 1
        if not self.closed:
            self._next_probe = self._clock() + self._reset_seconds
            if was_closed:
                self._turned(True)
