"""The benchmark of what observing costs: the switch switches everything off and on again, and the table adds up."""

from __future__ import annotations

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest

import proxy_plugin
from proxy_plugin.events import ignore
from proxy_plugin.gateway import hooks, pipeline
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.metrics import Metrics
from proxy_plugin.settings import Settings
from tests.benchmarks.conversations import conversation
from tests.benchmarks.overhead import SWITCHED, Slices, table


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = SimpleNamespace(keep=7)
    store = SimpleNamespace(store=SimpleNamespace(requests=requests))
    handler = SimpleNamespace(_pipeline=SimpleNamespace(_store=store))
    monkeypatch.setattr(proxy_plugin, "handler", handler, raising=False)
    seen: list[Any] = []
    monkeypatch.setattr(Metrics, "observe", lambda _, event: seen.append(event))
    places = [(pipeline, "follow"), (pipeline, "_reckoned"), (hooks, "usage_of"), (requests, "keep")]
    full = [getattr(*place) for place in places]
    for place, value in zip(places, full, strict=True):
        monkeypatch.setattr(*place, value)  # as they were, when this is over
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        exec(SWITCHED, {})
        signal.raise_signal(signal.SIGUSR2)
        assert not any(getattr(*place) is value for place, value in zip(places, full, strict=True))
        Metrics.observe(None, "unheard")  # type: ignore[arg-type]
        asked = Incoming("chat", conversation(60), {}, {}, "t", dialect_of("openai"), "enforce")
        one = Pipeline(Settings(), None, ignore)
        for _ in range(2):
            turn = asyncio.run(one.before(asked))
            assert turn is not None and turn.collapsed
            asyncio.run(one.after(turn, None, complete=True))
        signal.raise_signal(signal.SIGUSR1)
        assert [getattr(*place) for place in places] == full
        Metrics.observe(None, "heard")  # type: ignore[arg-type]
        assert seen == ["heard"] and requests.keep == 7
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)


def test_the_table_compares_slices_that_lie_beside_each_other() -> None:
    full, none = Slices([0.0103, 0.0206, 0.0309], [0.002]), Slices([0.010, 0.020, 0.030], [0.001])
    lines = table({True: full, False: none}).split("\n")
    assert lines[2:] == ["| all | 20.60 | 2.00 |", "| none | 20.00 | 1.00 |", "| added | +0.60 (+3.0%) | |"]
