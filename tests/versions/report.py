"""The table, as README has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.versions.outcome import Outcome
from tests.versions.plan import Row

HEADER = "| Python | LiteLLM | redis-py | other dependencies | server | passed | failed | skipped |"
RULE = "| --- | --- | --- | --- | --- | ---: | ---: | ---: |"


@dataclass(frozen=True, slots=True)
class Line:
    """`versions`: "python" and packages -> version; `server` with its patch release. Both empty where the row could
    not be run here; `missing` says for want of what."""

    row: Row
    versions: Mapping[str, str] = field(default_factory=dict)
    server: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    missing: str = ""


def text(line: Line) -> str:
    """One line of the table. What was not found out, because the row did not get that far, is named as planned."""
    environment, seen, result = line.row.environment, line.versions, line.outcome
    floors = environment.floors
    packages = [seen.get(name) or ("floor" if name in floors else "newest") for name in ("litellm", "redis")]
    cells = [seen.get("python", environment.python), *packages, _others(floors), line.server or line.row.server]
    reason = line.missing or result.problem
    counts = (reason, "", "") if reason else (result.passed, len(result.failures), result.skipped)
    return f"| {' | '.join(map(str, (*cells, *counts)))} |"


def _others(floors: Sequence[str]) -> str:
    return "oldest declared" if set(floors) - {"litellm", "redis"} else "newest"


def as_json(line: Line) -> dict[str, Any]:
    return asdict(line)
