"""`python -m tests.fuzz [histories growth traps boundary stored http] [--seconds N] [--seed N]`: hostile input.

Without names all of them, `--seconds` (default 60) for each that is bounded by time. Every fault is printed with what
makes it again; the exit code is the number of kinds that found one.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # read when LiteLLM is imported: no network

from tests.fuzz import boundary, stored
from tests.fuzz.bench import server
from tests.fuzz.growth import AT_MOST, growth, met
from tests.fuzz.histories import broken_promises
from tests.fuzz.mutation import mutants
from tests.fuzz.shapes import DEFAULT, PLACES, SHAPES, TRAPPED, Shape

_BATCH = 50


def histories(number: int, seconds: float) -> bool:
    """Mutated conversations through the rewriting."""
    until, tried = time.monotonic() + seconds, Counter[str]()
    faults = 0
    for mutant in mutants(number):
        if time.monotonic() > until:
            break
        tried[mutant.api] += 1
        for fault in broken_promises(mutant):
            faults += 1
            print(f"FAULT {mutant}: {fault}")
    _table(["form", "mutants", "faults"], [[*row, faults if not at else ""] for at, row in enumerate(tried.items())])
    return not faults


def rewriting(number: int, seconds: float) -> bool:
    return _growth([shape] for shape in SHAPES) & _limits()


def traps(number: int, seconds: float) -> bool:
    """Of each text the place where it grows fastest."""
    return _growth(TRAPPED[at : at + len(PLACES)] for at in range(0, len(TRAPPED), len(PLACES)))


def _growth(groups: Iterable[Sequence[Shape]]) -> bool:
    """A row for each group: the shape in it that grows fastest."""
    print(f"| shape | MB | ms | ms at twice the size | × (at most {AT_MOST}) | memory × | peak bytes a byte |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    fine = True
    for group in groups:
        g = max(map(growth, group), key=lambda found: max(found.time_ratio, found.memory_ratio))
        fine = fine and g.fine
        print(
            f"| {g.name}{'' if g.fine else ' **FAULT**'} | {g.size[0] / 1e6:.1f} "
            f"| {g.seconds[0] * 1000:.0f} | {g.seconds[1] * 1000:.0f} | {g.time_ratio:.2f} "
            f"| {g.memory_ratio:.2f} | {g.memory[1]:.1f} |",
            flush=True,
        )
    return fine


def _limits() -> bool:
    print("\nUnder the limits as they are by default:\n")
    print("| history | messages | MB | what happens | ms |\n|---|---:|---:|---|---:|")
    for shape in DEFAULT:
        m = met(shape)
        print(f"| {m.name} | {m.messages:,} | {m.size / 1e6:.1f} | {m.outcome} | {m.seconds * 1000:.0f} |", flush=True)
    return True


def hooks(number: int, seconds: float) -> bool:
    tally = boundary.Tally()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as endpoint:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            asyncio.run(boundary.fuzz(endpoint, number, _BATCH, tally))
            number += 1
    _table(
        ["requests", "handled", "replies not read", "faults"],
        [[tally.requests, tally.handled, tally.unread, tally.faults.total()]],
    )
    return _no_faults(tally.faults, tally.examples)


def store(number: int, seconds: float) -> bool:
    tally = stored.Tally()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as endpoint:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            asyncio.run(stored.fuzz(endpoint, number, _BATCH, tally))
            number += 1
    statuses = ", ".join(f"{status}: {times}" for status, times in sorted(tally.statuses.items()))
    _table(
        ["mutations", "whole again after one request", "answers by status", "faults"],
        [[tally.mutations, tally.whole, statuses, tally.faults.total()]],
    )
    return _no_faults(tally.faults, tally.examples)


def http(number: int, seconds: float) -> bool:
    from tests.fuzz import api

    fine = True
    with tempfile.TemporaryDirectory() as folder, api.staged(Path(folder)) as proxy:
        print("| operation | requests | answers by status | slowest s | faults |\n|---|---:|---|---:|---:|")
        for operation, tally in api.fuzz(proxy, examples=200, number=number, seconds=seconds):
            statuses = ", ".join(f"{status}: {times}" for status, times in sorted(tally.statuses.items()))
            print(
                f"| {operation} | {tally.statuses.total()} | {statuses} | {tally.slowest:.2f} | {len(tally.faults)} |",
                flush=True,
            )
            fine = fine and not tally.faults
            for fault in tally.faults[:3]:
                print(f"FAULT {fault}")
    return fine


def _no_faults(faults: Counter[str], examples: dict[str, str]) -> bool:
    for fault, times in faults.most_common():
        print(f"FAULT {times} × {fault}: {examples[fault]}")
    return not faults


def _table(header: list[str], rows: list[list[object]]) -> None:
    print("|", " | ".join(header), "|\n" + "|---" * len(header) + "|")
    for row in rows:
        print("|", " | ".join(map(str, row)), "|")


KINDS: dict[str, Callable[[int, float], bool]] = {
    "histories": histories,
    "growth": rewriting,
    "traps": traps,
    "boundary": hooks,
    "stored": store,
    "http": http,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Hostile input.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all of them without one")
    parser.add_argument("--seconds", type=float, default=60, help="for each kind that is bounded by time")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the same again")
    chosen = parser.parse_args()
    for kind in chosen.kinds:
        if kind not in KINDS:
            parser.error(f"there is no {kind!r}; there are: {', '.join(KINDS)}")
    logging.getLogger("proxy_plugin").setLevel(logging.ERROR)  # it warns of every harm, as it should
    failed = 0
    for kind in chosen.kinds or KINDS:
        print(f"\n{kind}, seed {chosen.seed}\n")
        failed += not KINDS[kind](chosen.seed, chosen.seconds)
    return failed


if __name__ == "__main__":
    sys.exit(main())
