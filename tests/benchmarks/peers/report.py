"""The command: replays, times and prints. Tools run side by side in processes, timing comes after them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

from tests.benchmarks.conversations import KINDS
from tests.benchmarks.peers import timing
from tests.benchmarks.peers.installed import INSTALLED
from tests.benchmarks.peers.malformed import MALFORMED, repaired
from tests.benchmarks.peers.measures import Request, evaluate, figures, replayed
from tests.benchmarks.peers.own import EVERYTHING, OWN
from tests.benchmarks.peers.peer import Message, Peer, offline
from tests.benchmarks.peers.specs import SPECS

PEERS = (EVERYTHING, *OWN, *INSTALLED, *SPECS)
CONVERSATIONS = 3  # of each kind, unless --limit says otherwise
SECONDS = 60.0  # for one tool's replay; what it did not get to is left out and shown

Conversations = dict[str, list[list[Message]]]


def generated(number: int) -> Conversations:
    return {kind: [make(seed) for seed in range(1, number + 1)] for kind, make in KINDS.items()}


def recorded(folder: Path, limit: int | None) -> Conversations:
    """Each `*.jsonl` of a folder, one conversation a line: chat messages, or an object that has `messages`."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise SystemExit(f"{folder}: no *.jsonl file")
    return {path.stem: _conversations(path)[:limit] for path in files}


def _conversations(path: Path) -> list[list[Message]]:
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            value = json.loads(line)
            messages = value["messages"] if isinstance(value, dict) else value
            assert isinstance(messages, list) and all(isinstance(message, dict) for message in messages)
        except (ValueError, KeyError, AssertionError):
            raise SystemExit(f"{path}:{number}: no conversation") from None
        out.append(messages)
    return out


# One tool, in a process of its own

_replayed: dict[str, list[list[Request]]] = {}


def _prepare(conversations: Conversations) -> None:
    """Once per process: what later calls need does not depend on the tool."""
    offline()
    for kind, many in conversations.items():
        _replayed[kind] = [replayed(messages) for messages in many]


def replay(peer: Peer, seconds: float) -> dict[str, Any]:
    """Sums of each kind, how many requests there would have been, and which malformed histories are
    repaired. Kinds take turns, so that the time limit cuts all of them alike."""
    sums: dict[str, Counter[str]] = {kind: Counter() for kind in _replayed}
    end = monotonic() + seconds
    for kind, requests in _in_turn(_replayed):
        sums[kind].update(evaluate(requests, peer.make(), end))
    healed = [name for name, history in MALFORMED.items() if repaired(peer.make(), history)]
    of = sum(len(requests) for many in _replayed.values() for requests in many)
    return {"sums": sums, "of": of, "repaired": healed}


def _in_turn(kinds: dict[str, list[list[Request]]]) -> Iterator[tuple[str, list[Request]]]:
    for number in range(max(map(len, kinds.values()), default=0)):
        for kind, many in kinds.items():
            if number < len(many):
                yield kind, many[number]


# All of them


def compare(conversations: Conversations, seconds: float, workers: int) -> list[dict[str, Any]]:
    """One row per tool, in the order of PEERS."""
    offline()
    rows: dict[str, dict[str, Any]] = {}
    present = []
    for peer in PEERS:
        rows[peer.name] = {"name": peer.name, "version": peer.version, "settings": peer.settings}
        if reason := peer.missing:
            rows[peer.name]["missing"] = reason
        else:
            present.append(peer)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (conversations,))
    with pool:
        names = {pool.submit(replay, peer, seconds): peer.name for peer in present}
        for number, future in enumerate(as_completed(names), 1):
            name, result = names[future], future.result()
            kinds = {kind: figures(sums) for kind, sums in result["sums"].items() if sums["requests"]}
            whole = figures(sum(result["sums"].values(), Counter()))
            rows[name].update(all=whole, kinds=kinds, repaired=result["repaired"], of=result["of"])
            _say(f"[{number}/{len(present)}] {name}: {whole['requests']} of {result['of']} requests replayed")
    for peer in present:
        took = timing.measure(peer.make())
        rows[peer.name]["timing"] = asdict(took) if took else None
        _say(f"{peer.name}: timed")
    return list(rows.values())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# Tables

HEAD = (
    "what edits the history", "tokens %", "cost ×1.0 %", "cost ×1.25 %", "breaks", "values %", "prior values %",
    "beside their object %", "invalid", "repaired", "ms @400 (floors)",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = [_row(HEAD), _row(["---", *["---:"] * (len(HEAD) - 1)])]
    for row in rows:
        if "missing" in row:
            lines.append(_row([row["name"], row["missing"], *[""] * (len(HEAD) - 2)]))
            continue
        total, took = row["all"], row["timing"]
        partly = f" ({total['requests']} of {row['of']} requests)" if total["requests"] < row["of"] else ""
        cells = [
            f"{row['name']}{' (spec)' if row['version'] == 'spec' and row['settings'] else ''}{partly}",
            *(_percent(total[key]) for key in ("tokens", "cost_1.0", "cost_1.25")),
            f"{total['breaks']} of {total['pairs']}",
            *(_percent(total[key]) for key in ("values", "prior", "beside")),
            f"{total['invalid']}" + (f" ({total['failed']} failed)" if total["failed"] else ""),
            f"{len(row['repaired'])} of {len(MALFORMED)}",
            f"{took['milliseconds']:.2f} ({took['floors']:.1f})" if took else "fails",
        ]
        lines.append(_row(cells))
    return "\n".join(lines)


def by_kind(rows: list[dict[str, Any]]) -> str:
    kinds = next((list(row["kinds"]) for row in rows if "kinds" in row), [])
    lines = [_row(["tokens / cost ×1.25 / prior values, %", *kinds]), _row(["---", *["---:"] * len(kinds)])]
    for row in rows:
        if "missing" not in row:
            cells = [row["kinds"].get(kind) for kind in kinds]
            keys = ("tokens", "cost_1.25", "prior")
            shown = [" / ".join(_percent(cell[key]) for key in keys) if cell else "" for cell in cells]
            lines.append(_row([row["name"], *shown]))
    return "\n".join(lines)


def _settings(rows: list[dict[str, Any]]) -> str:
    shown = [row for row in rows if "missing" not in row and row["settings"]]
    return "\n".join(f"- {row['name']} ({row['version']}): {row['settings']}" for row in shown)


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks peers", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of *.jsonl conversations instead of the generated ones")
    parser.add_argument("--json", action="store_true", help="everything as JSON instead of tables")
    parser.add_argument("--limit", type=int, help=f"conversations of each kind or file (generated: {CONVERSATIONS})")
    parser.add_argument("--quick", action="store_true", help="one conversation of each kind, 10 s a tool at most")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of one tool's replay (%(default)s)")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes (%(default)s)")
    options = parser.parse_args(arguments)
    limit = options.limit or (1 if options.quick else None)
    seconds = min(options.seconds, 10.0) if options.quick else options.seconds
    conversations = recorded(options.data, limit) if options.data else generated(limit or CONVERSATIONS)
    rows = compare(conversations, seconds, options.workers)
    if options.json:
        print(json.dumps({"peers": rows}, indent=1))
        return
    number = sum(map(len, conversations.values()))
    print(f"{number} conversations, one request before each assistant message. 100%: everything is sent.\n")
    print(table(rows), by_kind(rows), _settings(rows), sep="\n\n")
