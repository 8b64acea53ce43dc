"""Every client wire form against every provider dialect, all pairs of them: each pair streamed or not, in turn, so
that each form and each dialect is both. `python -m tests.matrix` plays all pairs both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.matrix import COLUMNS, FORMS, Bench, bench
from tests.strategies import ORIGINS


def in_turn(columns: Sequence[str]) -> list[Any]:
    """(form, column, stream), as a chessboard has its colours."""
    return [
        pytest.param(form, column, stream, id=f"{form}-{column}-{'stream' if stream else 'whole'}")
        for row, form in enumerate(FORMS)
        for number, column in enumerate(columns)
        for stream in [(row + number) % 2 == 1]
    ]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("matrix")) as started:
        yield started


@pytest.mark.parametrize(("form", "dialect", "stream"), in_turn(list(COLUMNS)))
def test_reused_ids_are_repaired_and_closed_subtasks_collapse(
    running: Bench, form: str, dialect: str, stream: bool
) -> None:
    assert running.play(form, dialect, stream) == []


@pytest.mark.parametrize("form", FORMS)
def test_the_same_conversation_without_the_plugin_fails(running: Bench, form: str) -> None:
    headers = {**running.http.headers, "x-proxy-plugin": "off"}
    with httpx.Client(base_url=running.http.base_url, headers=headers, timeout=60) as http:
        assert replace(running, http=http).play(form, "openai", False) != []


@pytest.mark.parametrize("dialect", COLUMNS)
@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_begun_with_the_ids_of_any_provider_goes_on(running: Bench, form: str, dialect: str) -> None:
    faults = {origin: running.carry(form, dialect, ids) for origin, ids in ORIGINS.items()}
    assert {origin: found for origin, found in faults.items() if found} == {}


@pytest.mark.parametrize(("form", "first", "stream"), in_turn(["gemini", "openai", "mistral"]))
def test_every_request_of_a_subtask_may_go_to_another_provider(
    running: Bench, form: str, first: str, stream: bool
) -> None:
    assert running.switch(form, stream, first) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_result_that_says_nothing_still_answers_its_call(running: Bench, form: str) -> None:
    """LiteLLM drops it on the way to Mistral; every other provider gets it as it came."""
    for dialect, provider in running.providers.items():
        provider.requests.clear()
        client = FORMS[form](running.http, [dialect], False)
        client.wire.append({"role": "user", "content": f"nothing of {dialect} in {form}"})
        client.wire += client.calls([("call_A234", "find", "{}")]) + client.results([("call_A234", "")])
        client.go_on()
        assert provider.refused() == []
        assert ("no output" in str(provider.requests[-1].messages)) == (dialect == "mistral")
