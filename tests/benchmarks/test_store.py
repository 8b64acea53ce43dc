"""The benchmark of the store: every contestant keeps what it is given, and only new messages go over the wire."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy_plugin.sessions.embedded import Embedded
from tests.benchmarks.store import report, scale
from tests.benchmarks.store.contestants import CONTESTANTS, Blob, Plugin
from tests.sessions import servers
from tests.sessions.conftest import free_port


def test_it_measures_all_that_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "AT_ONCE", (1, 4))
    server = Embedded(tmp_path, free_port())
    try:
        figures = asyncio.run(report.measure(server.ensure(), 0, length=61, lengths=(20, 60), appends=5))
    finally:
        server.stop()
    rows = {row.name: row for row in figures.rows}
    assert {*rows, *figures.absent} == {kind.name for kind in CONTESTANTS}
    assert {Plugin.name, Blob.name} <= {*rows}
    new = 2 * 2_000
    assert rows[Plugin.name].wire_bytes < 2 * new
    assert rows[Blob.name].wire_bytes > 2 * 61 * 2_000
    assert all(row.memory > 0 and row.rate[4] > 0 for row in figures.rows)
    assert set(figures.by_length) == {Plugin.name, Blob.name}
    printed = report.tables(figures)
    assert all(f"| {kind.name} |" in printed for kind in CONTESTANTS)


def test_it_fills_a_cluster_and_reckons_what_larger_ones_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_LONG_SESSIONS", 2)
    with servers.cluster(tmp_path, scale.PASSWORD) as url:
        figures = scale.measure(url, sessions=60, gigabytes=1.0, processes=1)
    assert [step.sessions for step in figures.steps] == [6, 60]  # those of fewer than three are too few to time
    assert figures.operations["evalsha"] > 1 and figures.wire > 0
    assert figures.long > 10 * figures.small > 0
    assert all(f"\n| {nodes} | " in scale.tables(figures) for nodes in scale.NODES)
