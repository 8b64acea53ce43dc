"""`python -m tests.benchmarks store [--json] [--seconds N]`: one run, printed as Markdown tables."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

import redis.asyncio as redis
import uvloop

from proxy_plugin.sessions.embedded import Embedded, Endpoint
from tests.benchmarks.store.contestants import Blob, Contestant, Plugin, closed, opened
from tests.benchmarks.store.measures import Server, Times, by_length, codec_us, memory_per_session, one_round
from tests.benchmarks.store.messages import SIZE, Texts

SESSION, AT_ONCE = 400, (1, 32)
LENGTHS = (100, 1_000, 10_000)
_LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """Of a contestant, by the number of sessions that are appended to at once; `memory`: bytes of a session."""

    name: str
    p50_ms: dict[int, float]
    p99_ms: dict[int, float]
    wire_bytes: int
    rate: dict[int, float]
    memory: int


@dataclass(frozen=True, slots=True)
class Figures:
    """`by_length`: median ms of an append by messages stored; `codec_us`: median µs of writing and of reading the body
    of one message, without the store; `absent`: who could not take part, and why.
    `text_bytes`: of the messages of one session, as JSON."""

    server: str
    rounds: int
    text_bytes: int
    rows: tuple[Row, ...]
    by_length: dict[str, dict[int, float]]
    codec_us: dict[str, tuple[float, float]]
    absent: dict[str, str] = field(default_factory=dict)


async def measure(
    endpoint: Endpoint, seconds: float, length: int = SESSION, lengths: Sequence[int] = LENGTHS, appends: int = 200
) -> Figures:
    texts = Texts(seed=5)
    length -= 1 - length % 2
    client = redis.Redis(host=endpoint.host, port=endpoint.port, password=endpoint.password)
    server = Server(client)
    there, absent = await opened(endpoint)
    times = {(one.name, at_once): Times() for one in there for at_once in AT_ONCE}
    for one in there:
        await one_round(one, server, texts, AT_ONCE[-1], 21, Times())  # connections, scripts
    rounds, deadline = 0, monotonic() + seconds
    while rounds < _LEAST_ROUNDS or monotonic() < deadline:
        rounds += 1
        for at_once in AT_ONCE:
            for one in there:
                await one_round(one, server, texts, at_once, length, times[one.name, at_once])
        await server.empty()
    info = await client.info("server")
    memory = {one.name: await memory_per_session(one, server, texts, 20, length) for one in there}
    # Ten thousand messages in one value take so long that fewer appends must do.
    repeats: dict[type[Contestant], int] = {Plugin: appends, Blob: max(1, appends // 8)}
    flat = {one.name: await by_length(one, texts, lengths, repeats[type(one)]) for one in there if type(one) in repeats}
    text_bytes = len(json.dumps(texts.conversation(length)))
    bodies = [json.dumps(texts.message(index)).encode() for index in range(200)]
    codecs = {
        one.name: codec_us(one.codec(), bodies) for one in there if isinstance(one, Plugin) and not one.new_subtasks
    }
    await closed(there)
    await client.aclose()
    name = f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"
    rows = tuple(_row(one, times, memory[one.name]) for one in there)
    return Figures(name, rounds, text_bytes, rows, flat, codecs, absent)


def _row(one: Contestant, times: dict[tuple[str, int], Times], memory: float) -> Row:
    mine = {at_once: times[one.name, at_once] for at_once in AT_ONCE}
    return Row(
        one.name,
        {at_once: of.percentile(0.5) for at_once, of in mine.items()},
        {at_once: of.percentile(0.99) for at_once, of in mine.items()},
        round(sum(mine[1].wire) / len(mine[1].wire)),
        {at_once: of.rate for at_once, of in mine.items()},
        round(memory),
    )


def tables(figures: Figures) -> str:
    one, many = AT_ONCE
    blob = next(row for row in figures.rows if row.name == Blob.name)
    lines = [
        f"Append of 2 messages (a call of a tool and its result) to a session of {SESSION} messages of "
        f"{SIZE // 1000} KB ({figures.text_bytes / 1000:,.0f} KB of JSON); "
        f"{figures.server}, append-only file, loopback; {figures.rounds} rounds.",
        "",
        f"| store | {one} session, p50 / p99 ms | {many} sessions, p50 / p99 ms | bytes on the wire "
        f"| appends/s at {many} | beside the blob | memory a session |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures.rows:
        lines.append(
            f"| {row.name} | {row.p50_ms[one]:.2f} / {row.p99_ms[one]:.2f} | {row.p50_ms[many]:.2f} / "
            f"{row.p99_ms[many]:.2f} | {row.wire_bytes:,} | {row.rate[many]:,.0f} "
            f"| {row.rate[many] / blob.rate[many]:.1f}× | {row.memory / 1000:,.0f} KB |"
        )
    lines += [f"| {name} | {why} | | | | | |" for name, why in figures.absent.items()]
    lengths = next(iter(figures.by_length.values()))
    lines += [
        "",
        "| time of an append, p50 ms | "
        + " | ".join(f"{length:,} messages stored" for length in lengths)
        + " | longest / shortest |",
        "|---" * (len(lengths) + 2) + "|",
    ]
    for name, of_one in figures.by_length.items():
        times = list(of_one.values())
        shown = " | ".join(f"{time:.3f}" for time in times)
        lines.append(f"| {name} | {shown} | {times[-1] / times[0]:.2f}× |")
    lines += ["", f"| one message of {SIZE // 1000} KB, without the store | written, µs | read, µs |", "|---|---|---|"]
    lines += [f"| {name} | {write:.1f} | {read:.1f} |" for name, (write, read) in figures.codec_us.items()]
    return "\n".join(lines)


def run(seconds: float) -> Figures:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        server = Embedded(Path(folder), port)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop that LiteLLM runs on
                return runner.run(measure(server.ensure(), seconds))
        finally:
            server.stop()


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks store")
    parser.add_argument("--seconds", type=float, default=30.0, help="for how long to repeat the rounds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    figures = run(options.seconds)
    print(json.dumps(asdict(figures), indent=2) if options.json else tables(figures))
