"""What a cluster carries: memory and operations of sessions, and whether an append stays as fast as they grow many.

Three nodes of a real cluster on this machine are filled with small sessions through the plugin's own pipeline, by
several processes, as workers would. At each size appends to sessions that this process never saw are timed. From
that come bytes a session and CPU of the servers a request, and from these what larger clusters carry.

    python -m tests.benchmarks scale [--sessions 1000000] [--gigabytes 4] [--processes 4] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import redis
import uvloop

from proxy_plugin import events
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import tenant_of
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Settings, Store
from tests.benchmarks.store.messages import Texts
from tests.sessions import servers

PASSWORD = "scale"
NODES = (3, 10, 100)
NODE_GB, NODE_CPU = 12.0, 0.5
"""Of a node that the projection fills: memory for data (16 GB less what forks and buffers need), part of its core."""
_TENANTS = 1_000
_AT_ONCE = 32
_STEPS = 4  # sizes at which appends are timed, each ten times the one before
_APPENDS = 1_000
_LONG, _LONG_SESSIONS = 400, 50
_ASKING = {"info", "ping", "hello", "client|setinfo", "cluster|slots", "auth", "command", "cluster|shards"}
"""Commands of this program and of its connections."""
_Given = TypeVar("_Given")


@dataclass(frozen=True, slots=True)
class Step:
    """`sessions` stored, in how many keys, in `memory` bytes of all nodes; ms of an append: a request and its reply."""

    sessions: int
    keys: int
    memory: int
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # of the servers, per append


@dataclass(frozen=True, slots=True)
class Figures:
    """`operations`: commands of a request and its reply, by name. `small`, `long`: bytes of a session of 4 messages,
    and of one of 400 with 2 KB each."""

    server: str
    steps: tuple[Step, ...]
    operations: dict[str, float]
    wire: int
    small: int
    long: int


class Cluster:
    """The servers' own counters, of all nodes together."""

    def __init__(self, url: str) -> None:
        seed = url.rpartition("@")[2].split(",")[0]
        host, port = seed.split(":")
        self._all = redis.RedisCluster(host=host, port=int(port), password=PASSWORD)

    def sum(self, section: str, *fields: str) -> float:
        found = self._all.info(section, target_nodes=redis.RedisCluster.ALL_NODES)
        return sum(float(node[field]) for node in found.values() for field in fields)

    def cpu(self) -> float:
        return self.sum("cpu", "used_cpu_user", "used_cpu_sys")

    def wire(self) -> float:
        return self.sum("stats", "total_net_input_bytes", "total_net_output_bytes")

    def keys(self) -> int:
        found = self._all.info("keyspace", target_nodes=redis.RedisCluster.ALL_NODES)
        return sum(int(node.get("db0", {}).get("keys", 0)) for node in found.values())

    def calls(self) -> Counter[str]:
        found = self._all.info("commandstats", target_nodes=redis.RedisCluster.ALL_NODES)
        counted: Counter[str] = Counter()
        for node in found.values():
            for name, stats in node.items():
                counted[name.removeprefix("cmdstat_")] += int(stats["calls"])
        return counted

    def version(self) -> str:
        node = next(iter(self._all.info("server", target_nodes=redis.RedisCluster.ALL_NODES).values()))
        return f"{node.get('server_name', 'redis')} {node.get('valkey_version', node['redis_version'])}"


class Agents:
    """Conversations through a pipeline of its own, as a worker's. Session n is the same wherever it is made."""

    def __init__(self, url: str) -> None:
        settings = Settings(deadlines=Deadlines(store_ms=60_000, total_ms=60_000), store=Store(url=url))
        connection = Connection.open(settings, {})
        assert connection is not None
        self._connection = connection
        self._store = SessionStore(connection, settings)
        self._guarded = GuardedStore(self._store, settings)
        self._pipeline = Pipeline(settings, self._guarded, events.ignore)

    async def start(self, number: int) -> None:
        """A session of four messages."""
        await self._ask(number, small(number)[:1], small(number)[1:2])
        await self._ask(number, small(number)[:3], small(number)[3:])

    async def append(self, number: int) -> None:
        """The next question to a session that was started, and its answer: the client sends all of it."""
        asked = [*small(number), {"role": "user", "content": f"And order {number + 1}?"}]
        await self._ask(number, asked, [{"role": "assistant", "content": f"Order {number + 1} is late."}])

    async def long(self, number: int, texts: Texts) -> None:
        wire = texts.conversation(_LONG - _LONG % 2)
        await self._ask(number, wire[:-1], wire[-1:])

    async def _ask(self, number: int, wire: list[Any], reply: list[Any]) -> None:
        tenant = tenant_of("key", key_hash=f"key-{number % _TENANTS}")
        headers = {"x-litellm-session-id": f"session-{number}"}
        turn = await self._pipeline.before(Incoming("chat", wire, headers, {}, tenant, dialect_of("openai"), "enforce"))
        assert turn is not None
        await self._pipeline.after(turn, reply, complete=True)

    async def settle(self) -> None:
        await self._store.index.flush()
        await self._store.requests.settled()

    async def close(self) -> None:
        await self.settle()
        await self._guarded.close(60)
        await self._connection.close()


def small(number: int) -> list[dict[str, Any]]:
    call = {"name": "find_order", "arguments": json.dumps({"order": number})}
    found = {"id": f"ord-{number}", "status": "open", "customer": f"c{number % 977}@example.com", "lines": [number, 7]}
    return [
        {"role": "user", "content": f"What became of order {number}?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(found)},
        {"role": "assistant", "content": f"Order {number} is open."},
    ]


async def _each(numbers: Sequence[int], work: Any) -> None:
    waiting = iter(numbers)

    async def one() -> None:
        for number in waiting:
            await work(number)

    await asyncio.gather(*(one() for _ in range(_AT_ONCE)))


def _run(main: Coroutine[Any, Any, _Given]) -> _Given:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def fill(url: str, begin: int, end: int, step: int) -> None:
    async def main() -> None:
        agents = Agents(url)
        await _each(range(begin, end, step), agents.start)
        await agents.close()

    _run(main())


def filled(url: str, begin: int, end: int, processes: int, cluster: Cluster, memory: float) -> int:
    """Adds sessions up to `end`, or as many as the memory holds; the first number that is not there."""
    context, part = multiprocessing.get_context("spawn"), 20_000
    with context.Pool(processes) as pool:
        while begin < end and cluster.sum("memory", "used_memory") < memory:
            last = min(end, begin + part)
            pool.starmap(fill, [(url, begin + offset, last, processes) for offset in range(processes)])
            begin = last
            print(f"{begin:,} sessions, {cluster.sum('memory', 'used_memory') / 1e9:.2f} GB", file=sys.stderr)
    return begin


class Cost(NamedTuple):
    """Of appends, one after the other: ms of each; and per append CPU ms, commands and bytes of the servers."""

    times: list[float]
    cpu_ms: float
    operations: dict[str, float]
    wire: float


async def appended(url: str, cluster: Cluster, numbers: Sequence[int]) -> Cost:
    agents = Agents(url)
    await agents.append(numbers[0])  # connections, scripts
    await agents.settle()
    used, calls, wire = cluster.cpu(), cluster.calls(), cluster.wire()
    times = []
    for number in numbers[1:]:
        begun = perf_counter()
        await agents.append(number)
        times.append((perf_counter() - begun) * 1e3)
    await agents.settle()
    cpu, moved, done = cluster.cpu() - used, cluster.wire() - wire, cluster.calls() - calls
    await agents.close()
    share = 1 / len(times)
    operations = {name: times * share for name, times in done.items() if times * share >= 0.05 and name not in _ASKING}
    return Cost(times, cpu * share * 1e3, operations, moved * share)


async def of_long_sessions(url: str, cluster: Cluster) -> int:
    agents, texts = Agents(url), Texts(seed=3)
    before = cluster.sum("memory", "used_memory_dataset")
    for number in range(_LONG_SESSIONS):
        await agents.long(-1 - number, texts)
    await agents.close()
    return round((cluster.sum("memory", "used_memory_dataset") - before) / _LONG_SESSIONS)


def measure(url: str, sessions: int, gigabytes: float, processes: int) -> Figures:
    cluster = Cluster(url)
    long = _run(of_long_sessions(url, cluster))
    empty, steps, stored = cluster.sum("memory", "used_memory"), [], 0
    chosen, cost = random.Random(7), Cost([], 0.0, {}, 0.0)
    for size in [sessions // 10**power for power in reversed(range(_STEPS))]:
        before = stored
        stored = filled(url, stored, size, processes, cluster, empty + gigabytes * 1e9)
        if stored - before < 3:
            continue
        memory = cluster.sum("memory", "used_memory") - empty
        cost = _run(appended(url, cluster, chosen.sample(range(before, stored), min(_APPENDS + 1, stored - before))))
        p99 = quantiles(cost.times, n=100)[98]
        steps.append(Step(stored, cluster.keys(), round(memory), median(cost.times), p99, cost.cpu_ms))
    small_bytes = round(steps[-1].memory / steps[-1].sessions)
    return Figures(cluster.version(), tuple(steps), cost.operations, round(cost.wire), small_bytes, long)


def tables(figures: Figures) -> str:
    lines = [
        f"A cluster of 3 nodes on one machine, {figures.server}; sessions of 4 messages of {_TENANTS:,} tenants. An "
        "append is a request with its reply, to a session that the worker never saw.",
        "",
        "| sessions | keys | memory GB | append p50 ms | p99 ms | CPU of the servers ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for step in figures.steps:
        lines.append(
            f"| {step.sessions:,} | {step.keys:,} | {step.memory / 1e9:.2f} | {step.p50_ms:.2f} | {step.p99_ms:.2f} "
            f"| {step.cpu_ms:.3f} |"
        )
    first, last = figures.steps[0], figures.steps[-1]
    slower = last.p50_ms / first.p50_ms
    asked = ", ".join(f"{name} {count:.1f}" for name, count in sorted(figures.operations.items()))
    lines += [
        "",
        f"An append at {last.sessions:,} sessions takes {slower:.2f}× of one at {first.sessions:,}.",
        f"Commands of an append, those inside scripts too: {asked}; {figures.wire:,} bytes on the wire.",
        f"A session of 4 messages takes {figures.small:,} bytes with everything, one of {_LONG} messages of 2 KB "
        f"{figures.long / 1e3:,.0f} KB.",
        "",
        f"Nodes with {NODE_GB:.0f} GB for data, their core half busy:",
        "",
        "| nodes | small sessions | sessions of 400 messages | requests per second |",
        "|---:|---:|---:|---:|",
    ]
    for nodes in NODES:
        room = nodes * NODE_GB * 1e9
        rate = nodes * NODE_CPU / (max(step.cpu_ms for step in figures.steps) / 1e3)
        lines.append(f"| {nodes} | {room / figures.small:,.0f} | {room / figures.long:,.0f} | {rate:,.0f} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks scale", description="What a cluster carries.")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of memory at most, all nodes together")
    parser.add_argument("--processes", type=int, default=4, help="that fill the cluster")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, servers.cluster(Path(folder), PASSWORD) as url:
        figures = measure(url, given.sessions, given.gigabytes, given.processes)
    print(json.dumps(asdict(figures), indent=2) if given.json else tables(figures))
