"""Prometheus metrics: they subscribe to events and know nothing else.

By default they stand in `prometheus_client.REGISTRY`, which LiteLLM's own /metrics serves too. Every label
value comes from a bounded set below, and no event carries a session, a key or a text. With
PROMETHEUS_MULTIPROC_DIR set, the workers' values are added up from that folder.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from threading import Lock
from types import MappingProxyType
from typing import Any, TypeVar, assert_never

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from proxy_plugin.events import (
    Event,
    PassedThrough,
    RequestHandled,
    SnapshotCreated,
    SnapshotRestored,
    SnapshotRestoreFailed,
    StoreCalled,
)
from proxy_plugin.history.report import Report

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
)
OPERATIONS = ("commit_request", "commit_reply", "read", "background")
STAGES = ("received", "sent")
OTHER = "other"
"""Counts what is in none of the sets, so that a label never grows without bound."""

SIZE_BUCKETS = tuple(float(1024 * 4**n) for n in range(9))
"""Bytes: 1 KiB to 64 MiB."""
REWRITE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds; 0.25 is the default deadline of all the plugin does in a request."""
STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.25, 1.0)
"""Seconds; fine below 0.05, the default deadline of the store."""

_log = logging.getLogger(__name__)
_registering = Lock()
_M = TypeVar("_M", Counter, Histogram)
_Labels = Mapping[str, Sequence[str]]
_NONE: _Labels = MappingProxyType({})


class Metrics:
    """The plugin's metrics in one registry; a second one on the same registry counts on in the same values.

    Raises OSError if PROMETHEUS_MULTIPROC_DIR names a folder that cannot be made or written."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = REGISTRY if registry is None else registry
        self._own: list[Counter | Histogram] = []
        self._failed = False
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            os.makedirs(folder, exist_ok=True)

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
            "Requests whose history is no continuation of the one before it, by what the plugin did there.",
            {"cause": Report.CAUSES},
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
            {"operation": OPERATIONS},
        )
        self._created = self._counter("proxy_plugin_snapshot_created_total", "Snapshots made.")
        self._restored = self._counter("proxy_plugin_snapshot_restored_total", "Snapshots restored.")
        self._restore_failed = self._counter(
            "proxy_plugin_snapshot_restore_failed_total", "Snapshots that could not be restored."
        )
        self._snapshot_size = self._histogram(
            "proxy_plugin_snapshot_size_bytes", "Bytes of the history that a snapshot names.", SIZE_BUCKETS
        )

    def observe(self, event: Event) -> None:
        """Counts one event. Never raises: a metric must not cost a request."""
        try:
            self._count(event)
        except Exception:
            if not self._failed:  # once: it may be the same at every request
                self._failed = True
                _log.exception("An event could not be counted; further ones that fail are not logged.")

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
        files = [file for file in glob.glob(os.path.join(glob.escape(folder), "*.db")) if _size(file)]
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
            case SnapshotCreated():
                self._created.inc()
                self._snapshot_size.observe(event.size_bytes)
            case SnapshotRestored():
                self._restored.inc()
            case SnapshotRestoreFailed():
                self._restore_failed.inc()
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


def _size(file: str) -> int:
    """Bytes; 0 for a file that is gone, as those of gauges are when their worker ends."""
    try:
        return os.path.getsize(file)
    except FileNotFoundError:
        return 0
