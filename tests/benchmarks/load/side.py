"""One of the proxies that are compared under load, and what its stretches of load have come to."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from statistics import median, quantiles

from tests.benchmarks.load.clients import Clients, Load
from tests.benchmarks.load.processes import children, sampled
from tests.benchmarks.load.recordings import Ask
from tests.benchmarks.proxying import cpu_seconds
from tests.proxy import Proxy

_PASSED = re.compile(r'proxy_plugin_passthrough_total\{reason="(\w+)"\} ([\d.e+]+)')


@dataclass
class Stretch:
    """All load of one kind. CPU is the proxy's process; that of the store's server stands beside it."""

    load: Load = field(default_factory=Load)
    cpu: list[float] = field(default_factory=list)  # seconds per request, of each slice
    store_cpu: list[float] = field(default_factory=list)

    @property
    def cpu_ms(self) -> float:
        """Median of the slices: a busy machine spoils some of them."""
        return median(self.cpu) * 1e3

    @property
    def store_cpu_ms(self) -> float:
        return median(self.store_cpu) * 1e3

    def percentile_ms(self, percent: int) -> float:
        return quantiles(self.load.seconds, n=100, method="inclusive")[percent - 1] * 1e3


class Side:
    """`asks`: kind of load -> what its clients send, the same for every side."""

    def __init__(self, proxy: Proxy, clients: Clients) -> None:
        assert proxy.process is not None
        self.proxy, self.clients, self.pid = proxy, clients, proxy.process.pid
        self.asks: dict[str, Iterator[Ask]] = {}
        self.stretches: dict[str, Stretch] = {}
        self.memory: list[float] = []  # MiB, while there is load

    async def closed(
        self, kind: str, clients: int, *, seconds: float = inf, requests: float = inf, into: str = ""
    ) -> Load:
        """A slice of load, added to what there is of its kind, or `into` that name."""
        async with self._counted(into or kind) as load:
            await self.clients.closed(load, self.asks[kind], clients, seconds=seconds, requests=requests)
        return load

    async def paced(self, kind: str, rate: float, *, seconds: float, seed: int) -> Load:
        async with self._counted(kind) as load:
            await self.clients.paced(load, self.asks[kind], rate, seconds=seconds, seed=seed)
        return load

    @asynccontextmanager
    async def _counted(self, kind: str) -> AsyncIterator[Load]:
        stretch, load = self.stretches.setdefault(kind, Stretch()), Load()
        own, store = self._used()
        async with sampled(self.pid, self.memory):
            yield load
        own_after, store_after = self._used()
        answered = max(1, len(load.seconds))
        stretch.cpu.append((own_after - own) / answered)
        stretch.store_cpu.append((store_after - store) / answered)
        stretch.load.add(load)

    def _used(self) -> tuple[float, float]:
        return cpu_seconds(self.pid), sum(cpu_seconds(child) for child in children(self.pid))

    @property
    def errors(self) -> dict[str, int]:
        return dict(sum((stretch.load.errors for stretch in self.stretches.values()), Load().errors))

    def stood_aside(self) -> dict[str, int]:
        """How often the plugin let a request pass or did without its store, by reason."""
        found = _PASSED.findall(self.proxy.get("/metrics").text)
        return {reason: int(float(times)) for reason, times in found if float(times)}


@asynccontextmanager
async def side(proxy: Proxy) -> AsyncIterator[Side]:
    async with Clients(proxy.base_url, proxy.key) as clients:
        yield Side(proxy, clients)
