"""What happened, as frozen values. The store and the gateway emit them; metrics and logs subscribe.

Nothing in an event identifies a session, a key or a text: whatever subscribes may export every field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy_plugin.history.report import Report


@dataclass(frozen=True, slots=True)
class RequestHandled:
    """One client request through the pre-call hook.

    outcome: "rewritten" (what left differs), "unchanged", "audited" (computed, original sent),
    "passed" (see PassedThrough for the reason). `seconds`: CPU and wall of parsing and rewriting."""

    endpoint: str
    outcome: str
    report: Report
    seconds: float


@dataclass(frozen=True, slots=True)
class PassedThrough:
    """The plugin stood aside, in whole or in part; `reason` is one of metrics.PASSTHROUGH_REASONS."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreCalled:
    """One awaited store operation; `error` is a bounded kind ("timeout", "connection", …) or None."""

    operation: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotCreated:
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotRestored:
    pass


@dataclass(frozen=True, slots=True)
class SnapshotRestoreFailed:
    pass


Event = RequestHandled | PassedThrough | StoreCalled | SnapshotCreated | SnapshotRestored | SnapshotRestoreFailed
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not listen."""
