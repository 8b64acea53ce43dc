"""What happened, as frozen values. The store and the gateway emit them; metrics and logs subscribe.

Nothing in an event identifies a session, a key or a text: whatever subscribes may export every field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy_plugin.history.report import Report

ACTIVE_SECONDS = 900
"""A session that was used within these is active."""


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
class PrefixBroken:
    """What leaves is no continuation of what the session's request before it had sent from this worker, and
    `Report.prefix_break` does not say why; `cause` is one of metrics.BREAKS."""

    cause: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Estimated tokens of a history; `cached`: those of the beginning that it shares with the one before it."""

    tokens: int
    cached: int


@dataclass(frozen=True, slots=True)
class HistoryEstimated:
    """What a request was reckoned to cost that the model answered, as it came and as it leaves (in audit mode:
    would leave).

    model   the model group, "" where its name is not one of a bounded set
    mode    "enforce" | "audit"
    received, rewritten  the two histories
    dollars  prices of an input token: read from the cache, any other; None where the price is not known"""

    model: str
    mode: str
    received: Prompt
    rewritten: Prompt
    dollars: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class UsageReported:
    """Prompt tokens of one call, by the provider's own usage. `tokens` is all of them; `cached` were read from its
    cache, `written` to it."""

    model: str
    tokens: int
    cached: int
    written: int


@dataclass(frozen=True, slots=True)
class ModelsNamed:
    """The model groups that stand in labels from now on."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider took a request as malformed; `rewritten`: what it got was not what the client had sent."""

    rewritten: bool


@dataclass(frozen=True, slots=True)
class StoreChosen:
    """Where this worker keeps sessions: one of metrics.STORES."""

    kind: str


@dataclass(frozen=True, slots=True)
class BreakerTurned:
    """This worker takes the store for down (`open`), or no longer does."""

    open: bool


@dataclass(frozen=True, slots=True)
class SessionsCounted:
    """Sessions of all tenants that were used within ACTIVE_SECONDS, as the store says."""

    active: int


@dataclass(frozen=True, slots=True)
class StoreCalled:
    """One awaited store operation; `error` is a bounded kind ("timeout", "connection", …) or None."""

    operation: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ValueLocked:
    """Something stored could not be read, because it is encrypted by a key that this worker does not have."""


@dataclass(frozen=True, slots=True)
class SnapshotCreated:
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotRestored:
    pass


@dataclass(frozen=True, slots=True)
class SnapshotRestoreFailed:
    pass


@dataclass(frozen=True, slots=True)
class SubtaskRecovered:
    """A subtask whose call was cut off when its worker was lost is pending again, or running again already."""


@dataclass(frozen=True, slots=True)
class SubtaskChanged:
    """A subtask came into this state, one of metrics.SUBTASK_STATES; each attempt at it is "in_progress" once.
    `seconds`: how long the attempt ran that ends so; None where none ends, or that is not known."""

    state: str
    seconds: float | None = None


Event = (
    RequestHandled
    | PassedThrough
    | PrefixBroken
    | Refused
    | HistoryEstimated
    | UsageReported
    | ModelsNamed
    | StoreChosen
    | BreakerTurned
    | SessionsCounted
    | StoreCalled
    | ValueLocked
    | SnapshotCreated
    | SnapshotRestored
    | SnapshotRestoreFailed
    | SubtaskChanged
    | SubtaskRecovered
)
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not listen."""
