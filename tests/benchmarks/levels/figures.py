"""Sums of conversations as shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.benchmarks.levels.needs import KINDS
from tests.benchmarks.peers.measures import WRITES

COUNTS = (
    "conversations", "requests", "limited", "refused_before", "refused_after", "running_valid", "running_changed",
)  # fmt: skip
KEPT = (*KINDS, "assoc", "errors")
WORST = "1.25"  # the cost at which the worst conversation is looked for: the dearer one

Figures = dict[str, float | None]


def figures(conversations: Sequence[Counter[str]]) -> Figures:
    """Counts and percentages (None: nothing to measure) of some conversations' sums.

    removed   tokens that are gone, of the completed subtasks' tool traffic
    tokens, cost_*   of sending everything
    stable    requests that begin with the whole request before them
    worst     the highest cost of one conversation, at writes of 1.25
    leaf, atom, answer, assoc, errors   still there; `*_n`: of how many"""
    sums = sum(conversations, Counter[str]())
    out: Figures = {name: sums[name] for name in COUNTS}
    out["removed"] = _share(sums["tokens_before"] - sums["tokens_after"], sums["collapsible"])
    out["tokens"] = _share(sums["tokens_after"], sums["tokens_before"])
    for write in WRITES:
        out[f"cost_{write}"] = _cost(sums, write)
    out["worst"] = max((cost for each in conversations if (cost := _cost(each, WORST)) is not None), default=None)
    out["stable"] = _share(sums["stable"], sums["pairs"])
    for name in KEPT:
        out[name] = _share(sums[f"{name}_kept"], sums[name])
        out[f"{name}_n"] = sums[name]
    return out


def _cost(sums: Counter[str], write: str) -> float | None:
    return _share(sums[f"cost_{write}_after"], sums[f"cost_{write}_before"])


def _share(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None
