"""The replay's judge of histories agrees with the tests' own, which shares no line with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.replay.refusals import refusals
from tests.replay import recordings as made
from tests.validators import violations


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_a_reused_id_is_refused_and_a_fresh_one_is_not(api: str) -> None:
    wire = getattr(made, api)
    assert refusals(wire(), api, "openai") == ["reused_id"]
    assert refusals(wire("call_2"), api, "openai") == []


@pytest.mark.parametrize(
    ("api", "gone", "rule"),
    [
        ("chat", 2, "unanswered_call"),
        ("chat", 1, "orphan_result"),
        ("messages", 2, "unanswered_call"),
        ("messages", 1, "orphan_result"),
        ("responses", 3, "unanswered_call"),
        ("responses", 2, "orphan_result"),
    ],
)
def test_half_a_pair_is_refused(api: str, gone: int, rule: str) -> None:
    wire = getattr(made, api)("call_2")
    del wire[gone]
    assert refusals(wire, api, "openai") == [rule]


def test_a_result_of_what_the_provider_keeps_is_not_refused() -> None:
    wire = made.responses()[3:5]
    assert refusals(wire, "responses", "openai", continued=True) == []


def test_rules_of_one_provider() -> None:
    assert refusals(made.chat("call_2"), "chat", "mistral") == ["refused_id", "refused_id"]
    hasty = [*made.chat("call_2")[:3], {"role": "user", "content": "And?"}]
    fitting = [dict(item) for item in hasty]
    fitting[1] = made.call("abcdefgh1", "look_up", made.LOOK_UP)
    fitting[2]["tool_call_id"] = "abcdefgh1"
    assert refusals(fitting, "chat", "mistral") == ["user_after_tool"]
    assert refusals(hasty, "chat", "openai") == []


_IDS = st.sampled_from(["a", "b", "c" * 41, "d!", None])


@st.composite
def _chats(draw: st.DrawFn) -> list[Any]:
    wire: list[Any] = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["user", "call", "result", "text"]))
        if kind == "call":
            calls = [made.call("", "f", "{}")["tool_calls"][0] | {"id": call_id} for call_id in draw(st.lists(_IDS))]
            wire.append({"role": "assistant", "content": None, "tool_calls": calls})
        elif kind == "result":
            wire.append({"role": "tool", "tool_call_id": draw(_IDS), "content": "x"})
        else:
            wire.append({"role": "user" if kind == "user" else "assistant", "content": "x"})
    return wire


@given(_chats(), st.sampled_from(["openai", "anthropic", "bedrock", "gemini"]))
def test_agrees_with_the_tests_own_judge(wire: list[Any], provider: str) -> None:
    assert bool(refusals(wire, "chat", provider)) == bool(violations(wire, provider))
