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
from proxy_plugin.metrics import (
    BREAKS,
    ENDPOINTS,
    MODES,
    OPERATIONS,
    OUTCOMES,
    PASSTHROUGH_REASONS,
    STORES,
    SUBTASK_ENDS,
    SUBTASK_STATES,
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
            "audited_repairs_total{kind=ids_renamed}": 3,
            "audited_repairs_total{kind=orphans_moved}": 1,
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
    (ValueLocked(), {"store_errors_total{operation=decrypt}": 1}),
    (SnapshotRestored(), {"snapshot_restored_total": 1}),
    (SnapshotRestoreFailed(), {"snapshot_restore_failed_total": 1}),
    (SubtaskChanged("failed"), {"subtasks_total{state=failed}": 1}),
    (SubtaskRecovered(), {"recovered_subtasks_total": 1}),
    (
        SubtaskChanged("failed", 42.0),
        {
            "subtasks_total{state=failed}": 1,
            "subtask_seconds_count{state=failed}": 1,
            "subtask_seconds_sum{state=failed}": 42,
        },
    ),
    (PrefixBroken("repair"), {"prefix_breaks_total{cause=repair}": 1}),
    (Refused(rewritten=True), {"refusals_total{sent=rewritten}": 1}),
    (Refused(rewritten=False), {"refusals_total{sent=unchanged}": 1}),
    (
        UsageReported("", 1000, 600, 300),
        {
            "prompt_tokens_total{kind=cached}": 600,
            "prompt_tokens_total{kind=uncached}": 400,
            "model_prompt_tokens_total{kind=cached,model=other}": 600,
            "model_prompt_tokens_total{kind=uncached,model=other}": 400,
            "cache_written_tokens_total{model=other}": 300,
        },
    ),
    (
        HistoryEstimated("", "audit", Prompt(1000, 600), Prompt(500, 300), (0.25, 0.5)),
        {
            "estimated_tokens_total{mode=audit,model=other,side=received}": 1000,
            "estimated_tokens_total{mode=audit,model=other,side=rewritten}": 500,
            "estimated_cached_tokens_total{mode=audit,model=other,side=received}": 600,
            "estimated_cached_tokens_total{mode=audit,model=other,side=rewritten}": 300,
            "estimated_dollars_total{mode=audit,model=other,side=received}": 350,
            "estimated_dollars_total{mode=audit,model=other,side=rewritten}": 175,
        },
    ),
]
STATES: list[tuple[Event, Series]] = [
    (BreakerTurned(True), {"store_breaker_open": 1}),
    (StoreChosen("embedded"), {"store_workers{kind=embedded}": 1}),
    (SessionsCounted(7), {"sessions_active": 7}),
    (ModelsNamed(("gpt",)), {}),
]


@pytest.mark.parametrize(("event", "expected"), CASES, ids=lambda value: type(value).__name__)
def test_an_event_moves_its_series_and_no_other(event: Event, expected: Series) -> None:
    assert moved_by(event) == expected
    assert moved_by(event, event) == {name: 2 * value for name, value in expected.items()}


@pytest.mark.parametrize(("event", "expected"), STATES, ids=lambda value: type(value).__name__)
def test_a_state_is_shown_as_it_is_now(event: Event, expected: Series) -> None:
    assert moved_by(event) == moved_by(event, event) == expected
    assert moved_by(BreakerTurned(True), BreakerTurned(False)) == {}


def test_every_kind_of_event_is_counted() -> None:
    assert {type(event) for event, _ in CASES + STATES} == set(get_args(Event))


def test_the_series_of_a_model_begin_at_zero_before_its_first_request() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.observe(ModelsNamed(("gpt",)))
    shown = parse(metrics.exposition()[0])
    assert {name: value for name, value in shown.items() if "model=gpt" in name} == dict.fromkeys(
        [f"model_prompt_tokens_total{{kind={kind},model=gpt}}" for kind in ("cached", "uncached")]
        + ["cache_written_tokens_total{model=gpt}"]
        + [
            f"estimated_{what}_total{{mode={mode},model=gpt,side={side}}}"
            for what, mode, side in product(("tokens", "cached_tokens", "dollars"), MODES, ("received", "rewritten"))
        ],
        0.0,
    )


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
        + [f"{name}{{kind={kind}}}" for name in ("repairs_total", "audited_repairs_total") for kind in Report.REPAIRS]
        + [f"history_bytes_total{{stage={stage}}}" for stage in ("received", "sent")]
        + [f"subtasks_total{{state={state}}}" for state in SUBTASK_STATES]
        + [f"{name}{{operation={operation}}}" for name, operation in store]
        + [
            "subtasks_collapsed_total",
            "tool_messages_cleared_total",
            "rewrite_seconds_count",
            "rewrite_seconds_sum",
        ]
        + ["snapshot_created_total", "snapshot_restored_total", "snapshot_restore_failed_total"]
        + ["recovered_subtasks_total"]
        + ["snapshot_size_bytes_count", "snapshot_size_bytes_sum"]
        + ["recovered_subtasks_total", "store_breaker_open", "sessions_active", "store_errors_total{operation=decrypt}"]
        + [f"subtasks_total{{state={state}}}" for state in SUBTASK_STATES]
        + [f"subtask_seconds_{part}{{state={state}}}" for part, state in product(("count", "sum"), SUBTASK_ENDS)]
        + [f"prefix_breaks_total{{cause={cause}}}" for cause in BREAKS]
        + [f"refusals_total{{sent={sent}}}" for sent in ("rewritten", "unchanged")]
        + [f"store_workers{{kind={kind}}}" for kind in STORES]
        + [f"prompt_tokens_total{{kind={kind}}}" for kind in ("cached", "uncached")]
        + [f"model_prompt_tokens_total{{kind={kind},model=other}}" for kind in ("cached", "uncached")]
        + ["cache_written_tokens_total{model=other}"]
        + [
            f"estimated_{what}_total{{mode={mode},model=other,side={side}}}"
            for what, mode, side in product(("tokens", "cached_tokens", "dollars"), MODES, ("received", "rewritten"))
        ],
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
    assert [record.levelname for record in caplog.records] == ["WARNING"]
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
from proxy_plugin.events import BreakerTurned, PassedThrough, SessionsCounted, StoreCalled, StoreChosen
from proxy_plugin.metrics import Metrics
metrics = Metrics()
metrics.observe(StoreChosen("external"))
metrics.observe(BreakerTurned(True))
Counter("somebody_elses_total", "Not ours.").inc()
for line in sys.stdin:
    metrics.observe(PassedThrough("deadline"))
    metrics.observe(StoreCalled("commit_request", 0.25))
    metrics.observe(SessionsCounted(int(line)))
    sys.stdout.write(metrics.exposition()[0].decode() + "# end\\n")
    sys.stdout.flush()
"""


DEADLINES = "passthrough_total{reason=deadline}"


def count(worker: subprocess.Popen[str], sessions: int = 5) -> Series:
    """Lets the worker count one of each, and the sessions, and returns what it shows then."""
    assert worker.stdin and worker.stdout
    worker.stdin.write(f"{sessions}\n")
    worker.stdin.flush()
    lines = list(takewhile(lambda line: line != "# end\n", worker.stdout))
    assert not any("somebody" in line for line in lines)
    return parse("".join(lines).encode())


def test_every_worker_shows_the_sum_of_all_also_of_those_that_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "made by the first worker [1]"
    one, two, three = (python(WORKER, PROMETHEUS_MULTIPROC_DIR=str(folder)) for _ in range(3))
    try:
        assert count(one)[DEADLINES] == 1
        (folder / "counter_1.db").touch()  # of a worker that is just starting
        assert count(two)[DEADLINES] == 2
        shown = count(one, sessions=9)
        assert shown[DEADLINES] == 3
        assert shown["sessions_active"] == 9  # each says how many there are in all: the newest word counts
        assert shown["store_workers{kind=external}"] == shown["store_breaker_open"] >= 2
        one.kill()
        one.communicate(timeout=60)
        shown = count(three)
        assert shown[DEADLINES] == 4
        assert shown["passthrough_total{reason=header_off}"] == 0
        assert shown["store_seconds_count{operation=commit_request}"] == 4
        assert shown["store_seconds_sum{operation=commit_request}"] == 1.0
        assert shown["sessions_active"] == 5
        assert shown["store_workers{kind=external}"] == shown["store_breaker_open"] == 2  # not that of the killed one
    finally:
        for worker in (one, two, three):
            worker.kill()
            worker.communicate()


def test_a_restart_begins_anew_in_an_emptied_folder_and_goes_on_in_a_used_one(tmp_path: Path) -> None:
    """Either way nothing is counted twice, and of the workers before only what they counted is left."""

    def one_start() -> tuple[float, float, int]:
        """Deadlines and workers that its first worker shows, and files of gauges that there are."""
        worker = python(WORKER, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
        try:
            shown = count(worker)
            gauges = len(list(tmp_path.glob("gauge_live*.db")))
            return shown[DEADLINES], shown["store_workers{kind=external}"], gauges
        finally:
            worker.kill()
            worker.communicate()

    first, again, third = one_start(), one_start(), one_start()
    assert [start[0] for start in (first, again, third)] == [1, 2, 3]
    assert {start[1] for start in (first, again, third)} == {1}
    assert {start[2] for start in (first, again, third)} == {2}  # of two kinds, whoever came before
    for file in tmp_path.glob("*.db"):
        file.unlink()
    assert one_start() == first
