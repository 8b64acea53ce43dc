"""Figures that are added up: over the requests of a conversation, its file, and all files."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proxy_plugin.history.report import Report
from proxy_plugin.replay.prices import Prices


@dataclass(frozen=True, slots=True)
class Side:
    """One request as it came, or as it would be sent.

    cached  tokens that it has in common with the beginning of the request before it
    broken  the request before it is no prefix of it
    faults  the rules for which the provider would refuse it"""

    tokens: int
    cached: int
    broken: bool
    faults: tuple[str, ...]


class Values(NamedTuple):
    """Of the values that the calls made next use: how many stood in this request.

    kept          that stand in what is sent
    at_risk       that stood in no message that is sent as it came
    at_risk_kept  those of them that stand in what is sent, in another message"""

    used: int = 0
    kept: int = 0
    at_risk: int = 0
    at_risk_kept: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One replayed request.

    collapsed  more subtasks are collapsed in it than in the request before
    limited    "", or why the plugin did less than everything
    ms         milliseconds of reading and rewriting"""

    before: Side
    after: Side
    report: Report
    changed: bool
    collapsed: bool
    limited: str
    values: Values
    ms: float


@dataclass(slots=True)
class SideSums:
    tokens: int = 0
    cached: int = 0
    breaks: int = 0
    refused: int = 0
    bytes: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, side: Side, size: int) -> None:
        self.tokens += side.tokens
        self.cached += side.cached
        self.breaks += side.broken
        self.refused += bool(side.faults)
        self.bytes += size
        self.faults.update(side.faults)

    def merge(self, other: SideSums) -> None:
        self.tokens += other.tokens
        self.cached += other.cached
        self.breaks += other.breaks
        self.refused += other.refused
        self.bytes += other.bytes
        self.faults.update(other.faults)


@dataclass(slots=True)
class Figures:
    """Bytes, subtasks, tool messages and repairs are summed per request, as the plugin's metrics count them."""

    conversations: int = 0
    requests: int = 0
    changed: int = 0
    before: SideSums = field(default_factory=SideSums)
    after: SideSums = field(default_factory=SideSums)
    breaks_by_collapse: int = 0
    subtasks_collapsed: int = 0
    tool_messages_cleared: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    limited: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    milliseconds: array[float] = field(default_factory=lambda: array("d"))
    course: list[list[int]] = field(default_factory=list)
    """[requests, tokens before, tokens after] of all conversations' first requests, second requests, …"""
    broken_lines: int = 0

    def add(self, step: Step, number: int) -> None:
        """`number`: which request of its conversation it is, from 0."""
        report = step.report
        self.requests += 1
        self.before.add(step.before, report.bytes_before)
        self.after.add(step.after, report.bytes_after if step.changed else report.bytes_before)
        self.breaks_by_collapse += step.after.broken and step.collapsed
        if step.changed:
            self.changed += 1
            self.subtasks_collapsed += report.subtasks_collapsed
            self.tool_messages_cleared += report.tool_messages_cleared
            self.repairs.update(report.repairs)
        if step.limited:
            self.limited[step.limited] += 1
        self.values.update(step.values._asdict())
        self.milliseconds.append(step.ms)
        self._along(number, [1, step.before.tokens, step.after.tokens])

    def merge(self, other: Figures) -> None:
        for name in ("conversations", "requests", "changed", "breaks_by_collapse", "broken_lines"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("subtasks_collapsed", "tool_messages_cleared"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("repairs", "limited", "values"):
            getattr(self, name).update(getattr(other, name))
        self.before.merge(other.before)
        self.after.merge(other.after)
        self.milliseconds.extend(other.milliseconds)
        for number, sums in enumerate(other.course):
            self._along(number, sums)

    def _along(self, number: int, sums: list[int]) -> None:
        while len(self.course) <= number:
            self.course.append([0, 0, 0])
        self.course[number] = [a + b for a, b in zip(self.course[number], sums, strict=True)]

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` of the requests do not exceed; 0 without any."""
        if not self.milliseconds:
            return 0.0
        ordered = sorted(self.milliseconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def costs(self, prices: Prices) -> tuple[float, float]:
        """Before and after, in tokens at the full input price."""
        before, after = self.before, self.after
        return prices.cost(before.tokens, before.cached), prices.cost(after.tokens, after.cached)

    def as_json(self, prices: Prices) -> dict[str, Any]:
        cost_before, cost_after = self.costs(prices)
        values: dict[str, Any] = {
            "conversations": self.conversations,
            "requests": self.requests,
            "requests_changed": self.changed,
            "tokens_before": self.before.tokens,
            "tokens_after": self.after.tokens,
            "cached_tokens_before": self.before.cached,
            "cached_tokens_after": self.after.cached,
            "cached_cost_before": round(cost_before, 1),
            "cached_cost_after": round(cost_after, 1),
            "prefix_breaks": self.after.breaks,
            "prefix_breaks_before": self.before.breaks,
            "prefix_breaks_by_collapse": self.breaks_by_collapse,
            "invalid_before": self.before.refused,
            "invalid_after": self.after.refused,
            "faults_before": dict(self.before.faults),
            "faults_after": dict(self.after.faults),
            "bytes_before": self.before.bytes,
            "bytes_after": self.after.bytes,
            "subtasks_collapsed": self.subtasks_collapsed,
            "tool_messages_cleared": self.tool_messages_cleared,
            "repairs": {kind: self.repairs[kind] for kind in Report.REPAIRS},
            "passthrough": dict(self.limited),
            "values_used": self.values["used"],
            "values_kept": self.values["kept"],
            "values_collapsed": self.values["at_risk"],
            "values_collapsed_kept": self.values["at_risk_kept"],
            "ms_p50": round(self.percentile(0.5), 3),
            "ms_p90": round(self.percentile(0.9), 3),
            "broken_lines": self.broken_lines,
        }
        if prices.dollars is not None:
            values["dollars_before"] = round(cost_before * prices.dollars, 6)
            values["dollars_after"] = round(cost_after * prices.dollars, 6)
        return values
