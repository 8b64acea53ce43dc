"""A real proxy under the load of many agents: with the plugin and without it, in one run.

Both proxies run side by side and are loaded in turn, in slices, so that a busy machine slows both. First each
session of the soak is sent once (warm-up). Then each cycle holds, for each side:

soak   `clients` at once, each with its next request as soon as it has a reply: the worker is saturated
paced  requests at half the rate that the slower side reached in the warm-up, at the same random times and the same
       ones for both: the latency that the plugin adds is the difference here
400    the soak again, with histories of 400 messages that are finished subtasks but for the last

    python -m tests.benchmarks load [--seconds 600] [--clients 64] [--sessions 1000] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.load.processes import thirds
from tests.benchmarks.load.provider import Provider
from tests.benchmarks.load.recordings import BURST, BURSTS, Recording, recordings, script
from tests.benchmarks.load.side import Side, side
from tests.benchmarks.load.stored import faults
from tests.benchmarks.proxying import cpu_seconds
from tests.proxy import Proxy

SHORTEST, LONGEST = 10, 800
SAMPLE = 100  # sessions that are compared message by message
_SHARES = {"soak": 0.4, "paced": 0.4, "400": 0.2}
_CYCLE_SECONDS = 120.0
_PACED_SECONDS = 5.0  # of one slice: nothing has to run dry behind it, so it can be short
_SESSIONS_400 = 100


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one side."""

    requests: int
    errors: dict[str, int]
    rate: float  # requests per second, soak
    soak_cpu_ms: float  # per request
    soak_p50_ms: float
    soak_p99_ms: float
    paced_p50_ms: float
    paced_p99_ms: float
    cpu_400_ms: float
    store_cpu_ms: float  # of the store's server, soak
    memory_mib: tuple[float, float, float]  # medians of the thirds after the warm-up
    stood_aside: dict[str, int]


@dataclass(frozen=True, slots=True)
class Result:
    seconds: float
    clients: int
    sessions: int  # that had a reply with the plugin
    paced_rate: float
    without: Figures
    plugged: Figures
    store_faults: tuple[str, ...]
    generator_cpu: float  # part of one core
    provider_cpu: float


async def measure(
    sides: tuple[Side, Side], soaked: list[Recording], provider_pid: int, seconds: float, clients: int
) -> Result:
    without, plugged = sides
    full = [Recording(number, 400 - BURST * BURSTS) for number in range(0, 4 * _SESSIONS_400, 4)]
    for each in sides:
        each.asks = {
            "soak": script("soak", soaked, len(soaked), 2 * clients, all_first=True),
            "paced": script("paced", soaked, len(soaked), clients // 2 or 1),
            "400": script("400", full, len(full), 2 * clients, all_first=True),
        }
    rates = [(await each.closed("soak", clients, requests=len(soaked), into="warm-up")).rate for each in sides]
    rate = min(rates) / 2
    for each in sides:
        await each.closed("400", clients, requests=len(full), into="warm-up")
        each.memory.clear()
    cycles = max(2, round(seconds / _CYCLE_SECONDS))
    began, used, provider_used = time.perf_counter(), time.process_time(), cpu_seconds(provider_pid)
    for cycle in range(cycles):
        for kind, share in _SHARES.items():
            length = seconds * share / cycles / 2
            parts = max(1, round(length / _PACED_SECONDS)) if kind == "paced" else 1
            for part in range(parts):
                for each in sides if (cycle + part) % 2 else sides[::-1]:
                    if kind == "paced":
                        await each.paced(kind, rate, seconds=length / parts, seed=1000 * cycle + part)
                    else:
                        await each.closed(kind, clients, seconds=length)
    wall = time.perf_counter() - began
    return Result(
        seconds=wall,
        clients=clients,
        sessions=len(plugged.clients.sessions),
        paced_rate=rate,
        without=figures(without, {}),
        plugged=figures(plugged, plugged.stood_aside()),
        store_faults=tuple(faults(plugged.proxy, plugged.clients.sessions.values(), SAMPLE)),
        generator_cpu=(time.process_time() - used) / wall,
        provider_cpu=(cpu_seconds(provider_pid) - provider_used) / wall,
    )


def figures(measured: Side, stood_aside: dict[str, int]) -> Figures:
    soak, paced = measured.stretches["soak"], measured.stretches["paced"]
    return Figures(
        requests=sum(len(stretch.load.seconds) for stretch in measured.stretches.values()),
        errors=measured.errors,
        rate=soak.load.rate,
        soak_cpu_ms=soak.cpu_ms,
        soak_p50_ms=soak.percentile_ms(50),
        soak_p99_ms=soak.percentile_ms(99),
        paced_p50_ms=paced.percentile_ms(50),
        paced_p99_ms=paced.percentile_ms(99),
        cpu_400_ms=measured.stretches["400"].cpu_ms,
        store_cpu_ms=soak.store_cpu_ms,
        memory_mib=thirds(measured.memory),
        stood_aside=stood_aside,
    )


def table(result: Result) -> str:
    without, plugged = result.without, result.plugged
    rows: list[tuple[str, float, float, str]] = [
        ("soak: requests/s", without.rate, plugged.rate, ".1f"),
        ("soak: CPU ms per request", without.soak_cpu_ms, plugged.soak_cpu_ms, ".1f"),
        ("soak: p50 ms", without.soak_p50_ms, plugged.soak_p50_ms, ".0f"),
        ("soak: p99 ms", without.soak_p99_ms, plugged.soak_p99_ms, ".0f"),
        (f"paced, {result.paced_rate:.1f}/s: p50 ms", without.paced_p50_ms, plugged.paced_p50_ms, ".1f"),
        (f"paced, {result.paced_rate:.1f}/s: p99 ms", without.paced_p99_ms, plugged.paced_p99_ms, ".1f"),
        ("400 messages, collapsible: CPU ms per request", without.cpu_400_ms, plugged.cpu_400_ms, ".1f"),
        ("memory MiB, first third", without.memory_mib[0], plugged.memory_mib[0], ".0f"),
        ("memory MiB, last third", without.memory_mib[2], plugged.memory_mib[2], ".0f"),
    ]
    lines = ["| | without | with | difference |", "|---|---:|---:|---:|"]
    lines += [f"| requests | {without.requests} | {plugged.requests} | |"]
    lines += [f"| errors | {sum(without.errors.values())} | {sum(plugged.errors.values())} | |"]
    for name, left, right, form in rows:
        lines.append(f"| {name} | {left:{form}} | {right:{form}} | {right - left:+{form}} ({right / left - 1:+.0%}) |")
    lines += [
        "",
        f"{result.seconds:.0f} s of load, {result.clients} clients, {result.sessions} sessions with the plugin; the "
        f"generator used {result.generator_cpu:.0%} and the provider {result.provider_cpu:.0%} of a core.",
        f"CPU of the store's server beside that: {plugged.store_cpu_ms:.2f} ms per request (soak).",
        f"The plugin stood aside: {_counts(plugged.stood_aside)}.",
        f"Store: {len(result.store_faults)} faults in {result.sessions} sessions, {SAMPLE} of them read whole.",
    ]
    lines += [f"- {fault}" for fault in result.store_faults[:10]]
    lines += [f"- {error}: {times}" for errors in (without.errors, plugged.errors) for error, times in errors.items()]
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {times}" for reason, times in counts.items()) or "never"


async def run(seconds: float, clients: int, sessions: int) -> Result:
    made = recordings(sessions, SHORTEST, LONGEST)
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        Provider() as provider,
        Proxy(Path(one), {"gpt": provider.base_url}, plugin=False, fresh=True) as without,
        Proxy(Path(two), {"gpt": provider.base_url}, patient=False, fresh=True) as plugged,
    ):
        async with AsyncExitStack() as stack:
            sides = (await stack.enter_async_context(side(without)), await stack.enter_async_context(side(plugged)))
            return await measure(sides, made, provider.process.pid, seconds, clients)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks load", description="A proxy under load.")
    parser.add_argument("--seconds", type=float, default=600, help="of load after the warm-up, all slices together")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--sessions", type=int, default=1000, help="in the soak")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        raise SystemExit("this benchmark reads /proc and so needs Linux")
    result = asyncio.run(run(given.seconds, given.clients, given.sessions))
    print(json.dumps(asdict(result), indent=2) if given.json else table(result), flush=True)
    if result.without.errors or result.plugged.errors or result.store_faults:
        raise SystemExit(1)
