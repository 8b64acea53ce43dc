from __future__ import annotations

from proxy_plugin.sessions.breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_in_a_row_and_lets_one_call_through_at_a_time() -> None:
    clock = Clock()
    breaker = Breaker(3, 1.0, clock)
    for _ in range(2):
        breaker.failure()
    breaker.success()
    for _ in range(2):
        assert breaker.allow()
        breaker.failure()
    assert breaker.closed
    breaker.failure()
    assert not breaker.closed
    clock.now += 0.99
    assert not breaker.allow()
    clock.now += 0.01
    assert breaker.allow()
    assert not breaker.allow()  # the probe is under way
    breaker.failure()
    clock.now += 0.99
    assert not breaker.allow()
    clock.now += 0.01
    assert breaker.allow()
    breaker.success()
    assert breaker.closed and breaker.allow()


def test_it_tells_once_when_it_opens_and_when_it_closes() -> None:
    told: list[bool] = []
    breaker = Breaker(2, 1.0, Clock(), told.append)
    for _ in range(3):
        breaker.failure()
    assert told == [True]
    for _ in range(2):
        breaker.success()
    assert told == [True, False]


def test_a_probe_that_never_reports_back_does_not_keep_it_open() -> None:
    clock = Clock()
    breaker = Breaker(1, 2.0, clock)
    breaker.failure()
    clock.now += 2.0
    assert breaker.allow()
    clock.now += 2.0
    assert breaker.allow()
