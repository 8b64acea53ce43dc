"""What every event counts, and that labels stay bounded, nothing raises, and workers add up."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import product, takewhile
from pathlib import Path
from typing import get_args

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from proxy_plugin import metrics as module
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
from proxy_plugin.metrics import (
    ENDPOINTS,
    OPERATIONS,
    OUTCOMES,
    PASSTHROUGH_REASONS,
    Metrics,
)

ROOT = Path(module.__file__).parents[1]
REPORT = Report(
    subtasks_collapsed=2,
    tool_messages_cleared=5,
    ids_renamed=3,
    orphans_moved=1,
    bytes_before=1000,
    bytes_after=400,
)

Series = Mapping[str, float]


def parse(body: bytes) -> Series:
    """`name{label=value,…}` without the plugin's prefix -> value; buckets and creation times left out."""
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if not sample.name.endswith(("_bucket", "_created")):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[sample.name.removeprefix("proxy_plugin_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def moved_by(*events: Event) -> Series:
    """The series that the events change in a fresh registry, and by how much."""
    metrics = Metrics(CollectorRegistry())
    before = parse(metrics.exposition()[0])
    for event in events:
        metrics.observe(event)
    after = parse(metrics.exposition()[0])
    return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}


WORK = {
    "subtasks_collapsed_total": 2,
    "tool_messages_cleared_total": 5,
    "repairs_total{kind=ids_renamed}": 3,
    "repairs_total{kind=orphans_moved}": 1,
}
REWRITTEN_IN = {
    "rewrite_seconds_count": 1,
    "rewrite_seconds_sum": 0.5,
    "history_bytes_total{stage=received}": 1000,
}

CASES: list[tuple[Event, Series]] = [
    (
        RequestHandled("chat", "rewritten", REPORT, 0.5),
        {
            "requests_total{endpoint=chat,outcome=rewritten}": 1,
            "history_bytes_total{stage=sent}": 400,
            **REWRITTEN_IN,
            **WORK,
        },
    ),
    (  # computed and counted, but the original left
        RequestHandled("messages", "audited", REPORT, 0.5),
        {
            "requests_total{endpoint=messages,outcome=audited}": 1,
            "history_bytes_total{stage=sent}": 1000,
            **REWRITTEN_IN,
            **WORK,
        },
    ),
    (
        RequestHandled("responses", "unchanged", Report(bytes_before=1000, bytes_after=1000), 0.5),
        {
            "requests_total{endpoint=responses,outcome=unchanged}": 1,
            "history_bytes_total{stage=sent}": 1000,
            **REWRITTEN_IN,
        },
    ),
    (  # what may have been computed before the plugin stood aside did not happen
        RequestHandled("chat", "passed", REPORT, 0.5),
        {
            "requests_total{endpoint=chat,outcome=passed}": 1,
            "history_bytes_total{stage=received}": 1000,
            "history_bytes_total{stage=sent}": 1000,
        },
    ),
    (PassedThrough("too_large"), {"passthrough_total{reason=too_large}": 1}),
    (
        StoreCalled("read", 0.25),
        {"store_seconds_count{operation=read}": 1, "store_seconds_sum{operation=read}": 0.25},
    ),
    (
        StoreCalled("commit_reply", 0.25, "timeout"),
        {
            "store_seconds_count{operation=commit_reply}": 1,
            "store_seconds_sum{operation=commit_reply}": 0.25,
            "store_errors_total{operation=commit_reply}": 1,
        },
    ),
    (
        SnapshotCreated(4096),
        {"snapshot_created_total": 1, "snapshot_size_bytes_count": 1, "snapshot_size_bytes_sum": 4096},
    ),
    (SnapshotRestored(), {"snapshot_restored_total": 1}),
    (SnapshotRestoreFailed(), {"snapshot_restore_failed_total": 1}),
]


@pytest.mark.parametrize(("event", "expected"), CASES, ids=lambda value: type(value).__name__)
def test_an_event_moves_its_series_and_no_other(event: Event, expected: Series) -> None:
    assert moved_by(event) == expected
    assert moved_by(event, event) == {name: 2 * value for name, value in expected.items()}


def test_every_kind_of_event_is_counted() -> None:
    assert {type(event) for event, _ in CASES} == set(get_args(Event))


@pytest.mark.parametrize("kind", Report.REPAIRS)
def test_every_kind_of_repair_is_counted(kind: str) -> None:
    moved = moved_by(RequestHandled("chat", "rewritten", Report(**{kind: 4}), 0.1))
    assert {name: value for name, value in moved.items() if name.startswith("repairs_total")} == {
        f"repairs_total{{kind={kind}}}": 4
    }


def test_all_series_are_there_from_the_start_at_zero() -> None:
    store = product(("store_seconds_count", "store_seconds_sum", "store_errors_total"), OPERATIONS)
    assert parse(Metrics(CollectorRegistry()).exposition()[0]) == dict.fromkeys(
        [f"requests_total{{endpoint={e},outcome={o}}}" for e, o in product(ENDPOINTS, OUTCOMES)]
        + [f"passthrough_total{{reason={reason}}}" for reason in PASSTHROUGH_REASONS]
        + [f"repairs_total{{kind={kind}}}" for kind in Report.REPAIRS]
        + [f"prefix_breaks_total{{cause={cause}}}" for cause in Report.CAUSES]
        + [f"history_bytes_total{{stage={stage}}}" for stage in ("received", "sent")]
        + [f"{name}{{operation={operation}}}" for name, operation in store]
        + [
            "subtasks_collapsed_total",
            "tool_messages_cleared_total",
            "rewrite_seconds_count",
            "rewrite_seconds_sum",
        ]
        + ["snapshot_created_total", "snapshot_restored_total", "snapshot_restore_failed_total"]
        + ["snapshot_size_bytes_count", "snapshot_size_bytes_sum"],
        0.0,
    )


def test_values_out_of_the_bounded_sets_are_counted_together() -> None:
    strange = ["", "other", "zzz", 'a"b\n', *(f"session-{n}" for n in range(96))]
    moved = moved_by(
        *(RequestHandled(text, text, REPORT, 0.5) for text in strange),
        *(PassedThrough(text) for text in strange),
        *(StoreCalled(text, 0.25, text) for text in strange),
    )
    assert moved == {
        "requests_total{endpoint=other,outcome=other}": 100,
        "history_bytes_total{stage=received}": 100_000,
        "history_bytes_total{stage=sent}": 100_000,
        "rewrite_seconds_count": 100,
        "rewrite_seconds_sum": 50,
        "passthrough_total{reason=other}": 100,
        "store_seconds_count{operation=other}": 100,
        "store_seconds_sum{operation=other}": 25,
        "store_errors_total{operation=other}": 100,
    }


def test_what_cannot_be_counted_is_logged_once_and_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(CollectorRegistry())
    with caplog.at_level(logging.DEBUG):
        metrics.observe(object())  # type: ignore[arg-type]
        metrics.observe(StoreCalled("read", "soon"))  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    metrics.observe(SnapshotRestored())
    assert parse(metrics.exposition()[0])["snapshot_restored_total"] == 1


def test_sizes_and_times_fall_into_buckets_that_tell_them_apart() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for size in (500, 20_000, 900_000, 10**9):
        metrics.observe(SnapshotCreated(size))
    for seconds in (0.0008, 0.045, 0.2):
        metrics.observe(StoreCalled("commit_request", seconds))

    def at_most(name: str, bound: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"proxy_plugin_{name}_bucket", {"le": bound, **labels})

    sizes = [at_most("snapshot_size_bytes", bound) for bound in ("1024.0", "65536.0", "1.048576e+06", "+Inf")]
    assert sizes == [1, 2, 3, 4]
    times = [at_most("store_seconds", bound, operation="commit_request") for bound in ("0.001", "0.05", "0.25")]
    assert times == [1, 2, 3]


def test_a_second_instance_counts_on_in_the_same_values() -> None:
    registry = CollectorRegistry()
    first, second = Metrics(registry), Metrics(registry)
    first.observe(SnapshotRestored())
    second.observe(SnapshotRestored())
    assert parse(first.exposition()[0])["snapshot_restored_total"] == 2
    assert first.exposition() == second.exposition()


def test_the_default_registry_shows_them_and_the_own_exposition_nothing_else() -> None:
    foreign = prometheus_client.Counter("somebody_elses_total", "Not ours.")
    try:
        metrics = Metrics()
        metrics.observe(SnapshotRestored())
        host = prometheus_client.generate_latest().decode()
        assert "somebody_elses_total" in host and "proxy_plugin_snapshot_restored_total" in host
        body, content_type = metrics.exposition()
        families = [family.name for family in text_string_to_metric_families(body.decode())]
        assert families and all(name.startswith("proxy_plugin_") for name in families)
        assert content_type.startswith("text/plain; version=")
    finally:
        prometheus_client.REGISTRY.unregister(foreign)


def python(code: str, **environ: str) -> subprocess.Popen[str]:
    env = {**os.environ, **environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], env=env, text=True, stdin=pipe, stdout=pipe)


def test_importing_them_imports_neither_litellm_nor_redis() -> None:
    code = "import sys, proxy_plugin.metrics; print({'litellm', 'redis'} & set(sys.modules))"
    out, _ = python(code).communicate(timeout=60)
    assert out.strip() == "set()"


WORKER = """
import sys
from prometheus_client import Counter
from proxy_plugin.events import PassedThrough, StoreCalled
from proxy_plugin.metrics import Metrics
metrics = Metrics()
Counter("somebody_elses_total", "Not ours.").inc()
for line in sys.stdin:
    metrics.observe(PassedThrough("deadline"))
    metrics.observe(StoreCalled("commit_request", 0.25))
    sys.stdout.write(metrics.exposition()[0].decode() + "# end\\n")
    sys.stdout.flush()
"""


def test_every_worker_shows_the_sum_of_all_also_of_those_that_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "made by the first worker [1]"

    def count(worker: subprocess.Popen[str]) -> Series:
        """Lets the worker count one of each and returns what it shows then."""
        assert worker.stdin and worker.stdout
        worker.stdin.write("count\n")
        worker.stdin.flush()
        lines = list(takewhile(lambda line: line != "# end\n", worker.stdout))
        assert not any("somebody" in line for line in lines)
        return parse("".join(lines).encode())

    deadlines = "passthrough_total{reason=deadline}"
    one, two, three = (python(WORKER, PROMETHEUS_MULTIPROC_DIR=str(folder)) for _ in range(3))
    try:
        assert count(one)[deadlines] == 1
        (folder / "counter_1.db").touch()  # of a worker that is just starting
        assert count(two)[deadlines] == 2
        assert count(one)[deadlines] == 3
        one.communicate(timeout=60)
        shown = count(three)
        assert shown[deadlines] == 4
        assert shown["passthrough_total{reason=header_off}"] == 0
        assert shown["store_seconds_count{operation=commit_request}"] == 4
        assert shown["store_seconds_sum{operation=commit_request}"] == 1.0
    finally:
        for worker in (one, two, three):
            worker.kill()
            worker.communicate()
