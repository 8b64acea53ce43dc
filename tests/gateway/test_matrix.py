"""Every client wire form against every provider dialect: what the promises are for, all pairs of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from tests.matrix import COLUMNS, FORMS, Bench, bench


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("matrix")) as started:
        yield started


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", COLUMNS)
@pytest.mark.parametrize("form", FORMS)
def test_reused_ids_are_repaired_and_closed_subtasks_collapse(
    running: Bench, form: str, dialect: str, stream: bool
) -> None:
    assert running.play(form, dialect, stream) == []


@pytest.mark.parametrize("form", FORMS)
def test_the_same_conversation_without_the_plugin_fails(running: Bench, form: str) -> None:
    headers = {**running.http.headers, "x-proxy-plugin": "off"}
    with httpx.Client(base_url=running.http.base_url, headers=headers, timeout=60) as http:
        assert replace(running, http=http).play(form, "openai", False) != []
