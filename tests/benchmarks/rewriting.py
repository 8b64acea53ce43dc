"""Time of the rewriting as a ratio to the floor: one orjson dump and one sha256 of every message.

Each call gets freshly parsed objects, as a request does. Warm: the memo of the conversation's previous
request. Cold: no memo. Floor and rewriting are timed in turn, so that a busy machine slows both.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from hashlib import sha256
from time import perf_counter
from typing import Any

import orjson

from proxy_plugin import rewrite_history
from tests.benchmarks.conversations import conversation, requests

SIZES = (60, 400, 800)
REQUESTS = 120  # the newest ones of each conversation


def floor(wire: list[Any]) -> None:
    for message in wire:
        sha256(orjson.dumps(message)).digest()


def timed(work: Callable[[], Any]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def measure(size: int) -> dict[str, float]:
    """Ratios and milliseconds for one conversation of `size` messages."""
    sent = [orjson.dumps(request) for request in requests(conversation(size))][-REQUESTS:]
    memo: dict[str, Any] = {}
    rewrite_history(orjson.loads(sent[0]), memo=memo)
    floors, warm, cold = [], [], []
    gc.collect()
    gc.disable()
    try:
        for body in sent[1:]:
            wire = orjson.loads(body)
            floors.append(timed(lambda w=wire: floor(w)))
            wire = orjson.loads(body)
            warm.append(timed(lambda w=wire: rewrite_history(w, memo=memo)))
            wire = orjson.loads(body)
            cold.append(timed(lambda w=wire: rewrite_history(w)))
    finally:
        gc.enable()
    base = statistics.median(floors)
    return {
        "messages": size,
        "floor_ms": base * 1e3,
        "warm_p50": statistics.median(warm) / base,
        "warm_p90": statistics.quantiles(warm, n=10)[-1] / base,
        "warm_p99": statistics.quantiles(warm, n=100)[-1] / base,
        "cold_p50": statistics.median(cold) / base,
        "cold_ms": statistics.median(cold) * 1e3,
    }


def main() -> None:
    print("Rewriting of chat histories, in floors (one orjson dump and one sha256 of every message)\n")
    print("| messages | floor ms | warm p50 | warm p90 | warm p99 | no memo p50 | no memo ms |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    results = [measure(size) for size in SIZES]
    for r in results:
        print(
            f"| {r['messages']:.0f} | {r['floor_ms']:.2f} | {r['warm_p50']:.2f} | {r['warm_p90']:.2f} "
            f"| {r['warm_p99']:.2f} | {r['cold_p50']:.1f} | {r['cold_ms']:.1f} |"
        )
    print(
        f"\nWithout a memo 800 messages take {results[2]['cold_ms'] / results[1]['cold_ms']:.2f} times as long as 400."
    )


if __name__ == "__main__":
    main()
