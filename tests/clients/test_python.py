"""Python client libraries as their users install them, each in a process of its own, on one real proxy.

They live in `.clients/python` (make test-deps), since their pins and LiteLLM's do not fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.stage import Stage, check, require, run_client

PYTHON = Path(__file__).parents[2] / ".clients" / "python" / "bin" / "python"
SCRIPTS = Path(__file__).parent / "python"

CLIENTS = [
    ("openai_client", "chat", False),
    ("openai_client", "chat", True),
    ("openai_client", "responses", False),
    ("openai_client", "responses", True),
    ("anthropic_client", "messages", False),
    ("anthropic_client", "messages", True),
    ("langchain_client", "chat", True),
    ("langchain_client", "responses", False),
    ("langchain_client", "messages", True),
    ("openai_agents_client", "chat", False),
    ("openai_agents_client", "responses", True),
    ("pydantic_ai_client", "chat", True),
    ("pydantic_ai_client", "messages", False),
    ("llm_client", "chat", True),
    ("llm_client", "responses", False),
]

INSTRUCTION = "Calculate with the tools alone."
INSTRUCTED = {"langchain_client", "openai_agents_client", "pydantic_ai_client"}


@pytest.fixture(scope="session")
def python() -> Path:
    """First among a test's parameters: where it is missing, no proxy starts."""
    return require(PYTHON)


@pytest.mark.parametrize(
    ("client", "api", "stream"),
    [pytest.param(*row, id="-".join([*row[:2], "stream" if row[2] else "whole"])) for row in CLIENTS],
)
def test_a_conversation_of_three_subtasks(python: Path, stage: Stage, client: str, api: str, stream: bool) -> None:
    play = stage.play(f"{client}-{api}-{stream}", api=api, stream=stream)
    outcome = run_client([python, SCRIPTS / f"{client}.py"], play.environ)
    session = check(play, outcome)
    if client in INSTRUCTED:
        assert INSTRUCTION in json.dumps(stage.history(session, api))


@pytest.mark.parametrize(("client", "api"), [("openai_client", "chat"), ("anthropic_client", "messages")])
def test_a_conversation_that_the_client_names(python: Path, stage: Stage, client: str, api: str) -> None:
    play = stage.play(f"named-{client}", api=api)
    outcome = run_client([python, SCRIPTS / f"{client}.py"], play.environ | {"SESSION": f"talk:{client}"})
    check(play, outcome, session=f"talk:{client}")


def test_without_the_proxy_the_same_client_is_refused(python: Path, stage: Stage) -> None:
    """That the other tests pass is the plugin's doing."""
    play = stage.play("refused", api="chat")
    provider = stage.provider
    environ = play.environ | {"BASE_URL": provider.base_url}
    outcome = run_client([python, SCRIPTS / "openai_client.py"], environ)
    assert outcome.code != 0 and "Duplicate value for 'tool_call_id'" in outcome.output
    assert [fault.rule for fault in provider.refused()[0].faults] == ["reused-id"]
