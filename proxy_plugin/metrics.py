"""Prometheus metrics: they subscribe to events and know nothing else.

By default they stand in `prometheus_client.REGISTRY`, which LiteLLM's own /metrics serves too. Every label
value comes from a bounded set below, and no event carries a session, a key or a text. With
PROMETHEUS_MULTIPROC_DIR set, the workers' values are added up from that folder.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from threading import Lock
from types import MappingProxyType
from typing import Any, TypeVar, assert_never

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from proxy_plugin.events import (
    ACTIVE_SECONDS,
    BreakerTurned,
    Event,
    HistoryEstimated,
    ModelsNamed,
    PassedThrough,
    PrefixBroken,
    Prompt,
    Refused,
    RequestHandled,
    SessionsCounted,
    SnapshotCreated,
    SnapshotRestored,
    SnapshotRestoreFailed,
    StoreCalled,
    StoreChosen,
    SubtaskChanged,
    SubtaskRecovered,
    UsageReported,
    ValueLocked,
)
from proxy_plugin.history.report import Report
from proxy_plugin.logs import describe

PREFIX = "proxy_plugin_"

ENDPOINTS = ("chat", "messages", "responses")
OUTCOMES = ("rewritten", "unchanged", "audited", "passed")
PASSTHROUGH_REASONS = (
    "header_off",
    "mode_off",
    "not_understood",
    "too_large",
    "repair_only",
    "deadline",
    "internal_error",
    "store_timeout",
    "store_down",
    "context_missing",
    "safety_fallback",
    "resume_unavailable",
    "subtask_refused",
    "dependency_missing",
    "session_full",
    "tenant_full",
    "newer_layout",
)
OPERATIONS = ("commit_request", "commit_reply", "read", "background")
STAGES = ("received", "sent")
BREAKS = (*Report.CAUSES, "client_edit", "repair", "settings", "context", "unexplained")
"""Why what leaves is no continuation of what left before. By design: those of the report. client_edit: the client
changed what it had sent before. repair: an earlier message was mended that was not before, or otherwise. settings:
they differ (the safety fallback is such a difference). context: what the client said of its subtasks was known for
one of the two only. unexplained: none of these, which would be a defect."""
KINDS = ("cached", "uncached")
SIDES = ("received", "rewritten")
MODES = ("enforce", "audit")
SENT = ("rewritten", "unchanged")
STORES = ("embedded", "external", "none")
SUBTASK_STATES = ("pending", "in_progress", "completed", "failed", "rolled_back")
SUBTASK_ENDS = ("completed", "failed", "rolled_back")
OTHER = "other"
"""Counts what is in none of the sets, so that a label never grows without bound."""

SIZE_BUCKETS = tuple(float(1024 * 4**n) for n in range(9))
"""Bytes: 1 KiB to 64 MiB."""
REWRITE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds; 0.25 is the default deadline of all the plugin does in a request."""
SUBTASK_BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
"""Seconds: a second to a day."""
STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.25, 1.0)
"""Seconds; fine below 0.05, the default deadline of the store."""

_LIVE = re.compile(r"gauge_live\w+_(\d+)\.db")
_log = logging.getLogger(__name__)
_registering = Lock()
_M = TypeVar("_M", Counter, Gauge, Histogram)
_Labels = Mapping[str, Sequence[str]]
_NONE: _Labels = MappingProxyType({})


class Metrics:
    """The plugin's metrics in one registry; a second one on the same registry counts on in the same values.

    Raises OSError if PROMETHEUS_MULTIPROC_DIR names a folder that cannot be made or written."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = REGISTRY if registry is None else registry
        self._own: list[Counter | Gauge | Histogram] = []
        self._failed = False
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            os.makedirs(folder, exist_ok=True)
            _forget_the_dead(folder)

        self._requests = self._counter(
            "proxy_plugin_requests_total",
            "Client requests handled, by wire form and by what became of their history.",
            {"endpoint": ENDPOINTS, "outcome": OUTCOMES},
        )
        self._passthrough = self._counter(
            "proxy_plugin_passthrough_total",
            "Times the plugin stood aside, in whole or in part, by reason.",
            {"reason": PASSTHROUGH_REASONS},
        )
        self._repairs = self._counter(
            "proxy_plugin_repairs_total",
            "Repairs of histories (in audit mode: that would be made), by kind, counted per request.",
            {"kind": Report.REPAIRS},
        )
        self._audited_repairs = self._counter(
            "proxy_plugin_audited_repairs_total",
            "Those of them that were not made, because the request was audited.",
            {"kind": Report.REPAIRS},
        )
        self._collapsed = self._counter(
            "proxy_plugin_subtasks_collapsed_total",
            "Finished subtasks sent as a summary (in audit mode: that would be), counted per request.",
        )
        self._cleared = self._counter(
            "proxy_plugin_tool_messages_cleared_total",
            "Tool messages that such summaries stand for, counted per request.",
        )
        self._prefix_breaks = self._counter(
            "proxy_plugin_prefix_breaks_total",
            "Requests whose history is no continuation of the one before it (in audit mode: would be none), by cause.",
            {"cause": BREAKS},
        )
        self._refusals = self._counter(
            "proxy_plugin_refusals_total",
            "Requests that the provider refused as malformed, by whether it got what the client had sent.",
            {"sent": SENT},
        )
        self._prompt_tokens = self._counter(
            "proxy_plugin_prompt_tokens_total",
            "Prompt tokens by the provider's own usage, read from its cache or not.",
            {"kind": KINDS},
        )
        self._model_tokens = self._counter(
            "proxy_plugin_model_prompt_tokens_total",
            "The same by model group.",
            {"model": (OTHER,), "kind": KINDS},
        )
        self._written_tokens = self._counter(
            "proxy_plugin_cache_written_tokens_total",
            "Prompt tokens that the provider says it wrote to its cache; they are uncached ones too.",
            {"model": (OTHER,)},
        )
        estimated = {"model": (OTHER,), "mode": MODES, "side": SIDES}
        self._estimated_tokens = self._counter(
            "proxy_plugin_estimated_tokens_total",
            "Tokens of the histories of answered requests, estimated, as received and as rewritten.",
            estimated,
        )
        self._estimated_cached = self._counter(
            "proxy_plugin_estimated_cached_tokens_total",
            "Those of them that a provider's cache can know: the beginning shared with the request before.",
            estimated,
        )
        self._estimated_dollars = self._counter(
            "proxy_plugin_estimated_dollars_total",
            "Dollars that these tokens cost by LiteLLM's price map, where it has a price.",
            estimated,
        )
        self._history_bytes = self._counter(
            "proxy_plugin_history_bytes_total",
            "Bytes of the histories received from clients and of those really sent on.",
            {"stage": STAGES},
        )
        self._rewrite_seconds = self._histogram(
            "proxy_plugin_rewrite_seconds", "Seconds of parsing and rewriting one history.", REWRITE_BUCKETS
        )
        self._store_seconds = self._histogram(
            "proxy_plugin_store_seconds",
            "Seconds of one store operation, failed ones included.",
            STORE_BUCKETS,
            {"operation": OPERATIONS},
        )
        self._store_errors = self._counter(
            "proxy_plugin_store_errors_total",
            "Store operations that failed or ran into their deadline.",
            {"operation": (*OPERATIONS, "decrypt")},
        )
        self._subtasks = self._counter(
            "proxy_plugin_subtasks_total",
            "Times a subtask came into a state; each attempt at one is in_progress once.",
            {"state": SUBTASK_STATES},
        )
        self._subtask_seconds = self._histogram(
            "proxy_plugin_subtask_seconds",
            "Seconds from the begin of a subtask's attempt to its end, by the state it ended in.",
            SUBTASK_BUCKETS,
            {"state": SUBTASK_ENDS},
        )
        self._breaker = self._gauge(
            "proxy_plugin_store_breaker_open", "Workers that take the store for down and leave it alone.", "livesum"
        )
        self._store = self._gauge(
            "proxy_plugin_store_workers", "Workers by where they keep sessions.", "livesum", {"kind": STORES}
        )
        self._sessions = self._gauge(
            "proxy_plugin_sessions_active",
            f"Sessions used within the last {ACTIVE_SECONDS // 60} minutes, as the store knew it lately.",
            "livemostrecent",
        )
        self._created = self._counter("proxy_plugin_snapshot_created_total", "Snapshots made.")
        self._restored = self._counter("proxy_plugin_snapshot_restored_total", "Snapshots restored.")
        self._restore_failed = self._counter(
            "proxy_plugin_snapshot_restore_failed_total", "Snapshots that could not be restored."
        )
        self._recovered = self._counter(
            "proxy_plugin_recovered_subtasks_total",
            "Subtasks whose call was cut off when its worker was lost, and that are pending or running again.",
        )
        self._snapshot_size = self._histogram(
            "proxy_plugin_snapshot_size_bytes", "Bytes of the history that a snapshot names.", SIZE_BUCKETS
        )

    def observe(self, event: Event) -> None:
        """Counts one event. Never raises: a metric must not cost a request."""
        try:
            self._count(event)
        except Exception as error:
            if not self._failed:  # once: it may be the same at every request
                self._failed = True
                _log.warning("an event is not counted, and further ones are not logged: %s", describe(error))

    def exposition(self) -> tuple[bytes, str]:
        """The body and the content type of an answer to a scrape: the plugin's metrics only (LiteLLM's name keys
        and users and are its own to show), of all workers if PROMETHEUS_MULTIPROC_DIR is set."""
        encode, content_type = choose_encoder("")
        return encode(self), content_type

    def collect(self) -> Iterable[Metric]:
        """The metrics as prometheus_client's encoders ask for them."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder:
            for metric in self._own:
                yield from metric.collect()
            return
        # The file of a worker that is just starting is still empty: to the collector, a broken one.
        found = glob.glob(os.path.join(glob.escape(folder), "*.db"))
        files = [file for file in found if _size(file) and not _of_the_dead(file)]
        everything: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        yield from (metric for metric in everything if metric.name.startswith(PREFIX))

    def _count(self, event: Event) -> None:
        match event:
            case RequestHandled():
                self._count_request(event)
            case PassedThrough():
                self._passthrough.labels(_bounded(event.reason, PASSTHROUGH_REASONS)).inc()
            case StoreCalled():
                operation = _bounded(event.operation, OPERATIONS)
                self._store_seconds.labels(operation).observe(event.seconds)
                if event.error is not None:
                    self._store_errors.labels(operation).inc()
            case ValueLocked():
                self._store_errors.labels("decrypt").inc()
            case SnapshotCreated():
                self._created.inc()
                self._snapshot_size.observe(event.size_bytes)
            case SnapshotRestored():
                self._restored.inc()
            case SnapshotRestoreFailed():
                self._restore_failed.inc()
            case SubtaskRecovered():
                self._recovered.inc()
            case SubtaskChanged():
                self._subtasks.labels(_bounded(event.state, SUBTASK_STATES)).inc()
                if event.seconds is not None:
                    self._subtask_seconds.labels(_bounded(event.state, SUBTASK_ENDS)).observe(event.seconds)
            case PrefixBroken():
                self._prefix_breaks.labels(_bounded(event.cause, BREAKS)).inc()
            case Refused():
                self._refusals.labels("rewritten" if event.rewritten else "unchanged").inc()
            case UsageReported():
                self._count_usage(event)
            case HistoryEstimated():
                self._count_estimate(event)
            case ModelsNamed():
                self._name(event.names)
            case BreakerTurned():
                self._breaker.set(event.open)
            case StoreChosen():
                self._store.labels(_bounded(event.kind, STORES)).set(1)
            case SessionsCounted():
                self._sessions.set(event.active)
            case _:
                assert_never(event)

    def _count_request(self, event: RequestHandled) -> None:
        report, outcome = event.report, event.outcome
        self._requests.labels(_bounded(event.endpoint, ENDPOINTS), _bounded(outcome, OUTCOMES)).inc()
        sent = report.bytes_after if outcome == "rewritten" else report.bytes_before
        self._history_bytes.labels("received").inc(report.bytes_before)
        self._history_bytes.labels("sent").inc(sent)
        if outcome != "passed":  # nothing was rewritten there: its zeros would only flatter the percentiles
            self._rewrite_seconds.observe(event.seconds)
        if outcome in ("rewritten", "audited"):
            self._collapsed.inc(report.subtasks_collapsed)
            self._cleared.inc(report.tool_messages_cleared)
            if report.prefix_break:
                self._prefix_breaks.labels(_bounded(report.prefix_break, Report.CAUSES)).inc()
            for kind, count in report.repairs.items():
                self._repairs.labels(kind).inc(count)
                if outcome == "audited":
                    self._audited_repairs.labels(kind).inc(count)

    def _name(self, models: Iterable[str]) -> None:
        """Begins the series of these models: one that began with its first event would hide that event from rate()."""
        for model in models:
            self._count_usage(UsageReported(model, 0, 0, 0))
            for mode in MODES:
                self._count_estimate(HistoryEstimated(model, mode, Prompt(0, 0), Prompt(0, 0), (0.0, 0.0)))

    def _count_usage(self, event: UsageReported) -> None:
        model = event.model or OTHER
        for kind, tokens in (("cached", event.cached), ("uncached", max(0, event.tokens - event.cached))):
            self._prompt_tokens.labels(kind).inc(tokens)
            self._model_tokens.labels(model, kind).inc(tokens)
        self._written_tokens.labels(model).inc(event.written)

    def _count_estimate(self, event: HistoryEstimated) -> None:
        for side, prompt in (("received", event.received), ("rewritten", event.rewritten)):
            labels = (event.model or OTHER, _bounded(event.mode, MODES), side)
            self._estimated_tokens.labels(*labels).inc(prompt.tokens)
            self._estimated_cached.labels(*labels).inc(prompt.cached)
            if event.dollars is not None:
                cached, other = event.dollars
                cost = cached * prompt.cached + other * (prompt.tokens - prompt.cached)
                self._estimated_dollars.labels(*labels).inc(cost)

    def _gauge(self, name: str, text: str, mode: str, labels: _Labels = _NONE) -> Gauge:
        return self._registered(Gauge, name, text, labels, multiprocess_mode=mode)

    def _counter(self, name: str, text: str, labels: _Labels = _NONE) -> Counter:
        return self._registered(Counter, name, text, labels)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], labels: _Labels = _NONE) -> Histogram:
        return self._registered(Histogram, name, text, labels, buckets=buckets)

    def _registered(self, kind: type[_M], name: str, text: str, labels: _Labels, **options: Any) -> _M:
        with _registering:
            # A second registration of a name is refused, and there is no public way to ask for the first.
            metric = self._registry._names_to_collectors.get(name)
            if not isinstance(metric, kind):
                metric = kind(name, text, tuple(labels), registry=self._registry, **options)
        if labels:  # a series that appears with its first event hides that event from rate()
            for values in product(*labels.values()):
                metric.labels(*values)
        self._own.append(metric)
        return metric


def _bounded(value: str, allowed: Sequence[str]) -> str:
    return value if value in allowed else OTHER


def _forget_the_dead(folder: str) -> None:
    """Removes what only living workers can say, of those that were killed; what they counted stays counted."""
    for file in filter(_of_the_dead, glob.glob(os.path.join(glob.escape(folder), "*.db"))):
        with suppress(OSError):  # another worker that starts now was quicker, or may and this one may not
            os.remove(file)


def _of_the_dead(file: str) -> bool:
    """Whether a file holds what only a living worker can say, and that worker was killed."""
    named = _LIVE.fullmatch(os.path.basename(file))
    if named is None or os.name != "posix":
        return False
    try:
        os.kill(int(named[1]), 0)  # signals nothing, and asks whether it could
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is there, and somebody else's
    return False


def _size(file: str) -> int:
    """Bytes; 0 for a file that is gone, as those of gauges are when their worker ends."""
    try:
        return os.path.getsize(file)
    except FileNotFoundError:
        return 0
