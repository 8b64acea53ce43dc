"""The command: replays, then times, then prints. One task is one conversation, under every policy."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from proxy_plugin import Settings, rewrite_history
from proxy_plugin.settings import Collapse
from tests.benchmarks.conversations import conversation
from tests.benchmarks.levels.conversations import Conversation, generated, recorded
from tests.benchmarks.levels.figures import Figures, figures
from tests.benchmarks.levels.replay import Recording
from tests.benchmarks.levels.timing import SHORTEST, SIZES, Times, Timing, times, timing
from tests.benchmarks.peers.peer import Message, offline
from tests.benchmarks.peers.text import text_tokens
from tests.validators import PROVIDERS

POLICIES = ("always", "economical", "never")
TOTAL = "total"


class Plugin:
    """The rewriting of one conversation, with a memo, as the proxy calls it.

    `limited`: requests on which it did less than everything."""

    def __init__(self, policy: Any, provider: str) -> None:
        self.settings = Settings(collapse=Collapse(policy=policy))
        self.provider = provider
        self.memo: dict[str, Any] = {}
        self.limited = 0

    def __call__(self, messages: list[Message]) -> list[Message]:
        result = rewrite_history(messages, provider=self.provider, settings=self.settings, memo=self.memo)
        self.limited += bool(result.limited)
        return list(result.messages)


# One conversation, in a process of its own


@dataclass(frozen=True, slots=True)
class Replayed:
    source: str
    longest: int  # messages of its longest request
    sums: dict[str, Counter[str]]  # policy -> sums


def replayed(one: Conversation, policies: tuple[str, ...], provider: str) -> Replayed:
    messages = one.messages()
    recording = Recording(messages, provider)
    sums = {}
    for policy in policies:
        plugin = Plugin(policy, provider)
        sums[policy] = recording.replay(plugin)
        sums[policy]["limited"] = plugin.limited
    text_tokens.cache_clear()  # it holds every text it has counted
    return Replayed(one.source, max(recording.needs, default=0), sums)


# All of them


@dataclass(slots=True)
class Level:
    """One row: a source, or all of them, under one policy. `timings`: by messages; None: too few of this size."""

    source: str
    policy: str
    figures: Figures
    timings: dict[int, Timing | None] = field(default_factory=dict)


def levels(
    conversations: list[Conversation], policies: tuple[str, ...], provider: str, jobs: int, plan: list[Message]
) -> list[Level]:
    """Rows by source, in order, and the totals. `plan`: what the totals are timed on where no conversation has
    requests of a size ([]: nothing)."""
    sums: dict[tuple[str, str], list[Counter[str]]] = defaultdict(list)
    long: dict[str, list[Conversation]] = defaultdict(list)
    for one, done in _replays(conversations, policies, provider, jobs):
        for policy, found in done.sums.items():
            sums[done.source, policy].append(found)
            sums[TOTAL, policy].append(found)
        if done.longest >= SHORTEST:
            long[done.source].append(one)
    rows = {}
    for source in [*dict.fromkeys(one.source for one in conversations), TOTAL]:
        for policy in policies:
            rows[source, policy] = Level(source, policy, figures(sums[source, policy]))
    for policy in policies:  # after the replays: nothing else runs while it is timed
        for size in SIZES:
            for source, took in _timings(long, plan, size, partial(Plugin, policy, provider)):
                rows[source, policy].timings[size] = took
        _say(f"{policy}: timed")
    return list(rows.values())


def _timings(
    long: dict[str, list[Conversation]], plan: list[Message], size: int, new: Callable[[], Plugin]
) -> Iterator[tuple[str, Timing | None]]:
    """(source, timing) of the sources that have requests of this size, and of all."""
    whole: list[Times] = []
    for source, conversations in long.items():
        measured = [times(one.messages(), size, new()) for one in conversations]
        yield source, timing(measured)
        whole += measured
    yield TOTAL, timing(whole) or timing([times(plan, size, new())])


def _replays(
    conversations: list[Conversation], policies: tuple[str, ...], provider: str, jobs: int
) -> Iterator[tuple[Conversation, Replayed]]:
    """In the order in which they are done, the largest begun first."""
    work: Callable[[Conversation], Replayed] = partial(replayed, policies=policies, provider=provider)
    with ProcessPoolExecutor(jobs, get_context("spawn"), offline) as pool:
        tasks = {pool.submit(work, one): one for one in sorted(conversations, key=lambda one: -one.size)}
        for number, future in enumerate(as_completed(tasks), 1):
            yield tasks[future], future.result()
            if number * 10 // len(tasks) > (number - 1) * 10 // len(tasks):
                _say(f"{number} of {len(tasks)} conversations replayed")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# The table

HEAD = (
    "source", "policy", "requests", "refused before → after", "running changed", "collapsible removed %", "tokens %",
    "cost ×1.0 %", "cost ×1.25 %", "worst ×1.25 %", "prefix stable %", "leaf % (n)", "answer % (n)", "assoc % (n)",
    "errors % (n)", "atom % (n)", *(f"floors @{size} p50 / p90 (ms)" for size in SIZES),
)  # fmt: skip


def table(rows: list[Level]) -> str:
    lines = [HEAD, ["---", "---", *["---:"] * (len(HEAD) - 2)], *map(_cells, rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cells(row: Level) -> Iterable[str]:
    got = row.figures
    limited = f" ({got['limited']} limited)" if got["limited"] else ""
    yield from (row.source, row.policy, f"{got['requests']}{limited}")
    yield f"{got['refused_before']} → {got['refused_after']}"
    yield f"{got['running_changed']}"
    for name in ("removed", "tokens", "cost_1.0", "cost_1.25", "worst", "stable"):
        yield _percent(got[name])
    for name in ("leaf", "answer", "assoc", "errors", "atom"):
        yield _percent(got[name]) + (f" ({got[f'{name}_n']})" if got[f"{name}_n"] else "")
    yield from (_time(row.timings.get(size)) for size in SIZES)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _time(took: Timing | None) -> str:
    return "–" if took is None else f"{took.p50:.2f} / {took.p90:.2f} ({took.p50 * took.floor_ms:.2f})"


NOTE = """\
One request before each assistant message; 100%: everything is sent. Collapsible: tool calls and results of
completed subtasks. Cost: what the request before began with counts 0.1, the rest 1.0 or 1.25; worst: of one
conversation. Leaf, answer, atom: values of completed subtasks that later arguments, answers and long arguments
use, still there; assoc: still with their own object and field. Limited: longer than what is rewritten, or failed.
A floor: one orjson dump and one sha256 of each message."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks levels", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of *.jsonl conversations instead of the generated ones")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="may be repeated (always)")
    parser.add_argument("--provider", default="openai", choices=sorted(PROVIDERS), help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="everything as JSON instead of the table")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    options = parser.parse_args(arguments)
    policies = tuple(dict.fromkeys(options.policy or ["always"]))
    conversations = recorded(options.data) if options.data else generated()
    plan = [] if options.data else conversation(round(max(SIZES) * 1.1))
    rows = levels(conversations, policies, options.provider, options.jobs, plan)
    if options.json:
        print(json.dumps({"provider": options.provider, "levels": [asdict(row) for row in rows]}, indent=1))
        return
    print(f"{len(conversations)} conversations, provider {options.provider}.\n\n{table(rows)}\n\n{NOTE}")
