"""Node client libraries as their users install them (make test-deps), each in a process of its own, on one
real proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.binaries import require_binary
from tests.clients.stage import Outcome, Play, Stage, check, require, run_client
from tests.proxy import eventually

SCRIPTS = Path(__file__).parent / "node"

CLIENTS = [
    ("openai", "chat", False),
    ("openai", "chat", True),
    ("openai", "responses", False),
    ("openai", "responses", True),
    ("ai_sdk openai", "chat", False),
    ("ai_sdk openai-unstored", "responses", False),
    ("ai_sdk openai-unstored", "responses", True),
    ("ai_sdk openai-compatible", "chat", False),
    ("ai_sdk openai-compatible", "chat", True),
    ("ai_sdk anthropic", "messages", False),
    ("ai_sdk anthropic", "messages", True),
]


@pytest.mark.parametrize(
    ("client", "api", "stream"),
    [pytest.param(*row, id="-".join([*row[0].split(), row[1], "stream" if row[2] else "whole"])) for row in CLIENTS],
)
def test_a_conversation_of_three_subtasks(stage: Stage, client: str, api: str, stream: bool) -> None:
    play = stage.play(f"node-{client.replace(' ', '-')}-{api}-{stream}", api=api, stream=stream)
    check(play, run_script(client, play))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_answers_that_come_again_as_references_only(stage: Stage, stream: bool) -> None:
    """Where the provider stores responses the AI SDK sends `item_reference` for its own earlier answers."""
    play = stage.play(f"node-references-{stream}", api="responses", stream=stream)
    outcome = run_script("ai_sdk openai", play)
    assert outcome.code == 0, outcome.output[-4000:]
    assert outcome.runs == len(set(outcome.ids)) == 5
    assert stage.provider.refused() == []
    sent = stage.provider.sent("responses")
    assert len(sent) == 7
    assert [sum(_kind(item) == "item_reference" for item in items) for items in sent] == [0, 0, 0, 1, 1, 2, 2]
    assert [json.dumps(items).count("[Tool calls; full output kept: ") for items in sent] == [0, 0, 0, 1, 1, 2, 2]
    assert [sum(_kind(item) == "function_call" for item in items) for items in sent] == [0, 2, 3, 0, 1, 0, 1]
    (session,) = eventually(lambda: stage.sessions().keys() - play.before)
    assert eventually(lambda: outcome.texts[-1] in _texts(stage.history(session, "responses")["messages"][-1]))


def run_script(client: str, play: Play) -> Outcome:
    """`client`: a script's name and its arguments."""
    script, *arguments = client.split()
    require(SCRIPTS / "node_modules" / {"openai": "openai", "ai_sdk": "ai"}[script])
    return run_client([require_binary("node"), SCRIPTS / f"{script}.mjs", *arguments], play.environ)


def _kind(item: dict[str, Any]) -> str:
    return str(item.get("type", "message"))


def _texts(item: dict[str, Any]) -> list[str]:
    return [part.get("text", "") for part in item.get("content") or () if isinstance(part, dict)]
