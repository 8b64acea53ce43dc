"""Conversations with anything wrong in them: what generated ones become when a stranger writes the JSON.

A `Mutant` is a recipe, not a value: `wire()` gives equal, independent lists each time it is called. So what a
rewriting does to one of them can be compared with another that it has not seen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.strategies import (
    ODD_IDS,
    broken_chats,
    broken_messages,
    broken_responses,
    valid_chats,
    valid_messages,
    valid_responses,
)

Wire = list[Any]

APIS = ("chat", "messages", "responses")
_SOURCES: dict[str, tuple[Callable[[], st.SearchStrategy[Wire]], ...]] = {
    "chat": (valid_chats, broken_chats),
    "messages": (valid_messages, broken_messages),
    "responses": (valid_responses, broken_responses),
}
_CORPUS = 60  # conversations of each kind
_DEPTHS = (5, 40, 300, 1_000, 3_000)
_IDS = [
    *ODD_IDS,
    "",
    None,
    "call_1",
    "call_1",
    "toolu_01",
    "x" * 41,
    "x" * 70_000,
    "\ud800",
    "\x00",
    7,
    True,
    ["a"],
    {},
]
_WORDS = [
    *("system", "developer", "user", "assistant", "tool", "function", "text", "tool_use", "tool_result", "thinking"),
    *("function_call", "function_call_output", "reasoning", "item_reference", "message", "computer_call"),
    *("custom_tool_call", "shell_call_output", "local_shell_call", "local_shell_call_output", "apply_patch_call"),
    *("web_search_call", "mcp_call", "server_tool_use", "image_url", "input_text", "output_text", "refusal"),
]
_KEYS = [
    *("role", "content", "tool_calls", "tool_call_id", "id", "call_id", "tool_use_id", "type", "function", "custom"),
    *("name", "arguments", "input", "output", "text", "status", "is_error", "cache_control", "source", "image_url"),
    *("summary", "encrypted_content", "action", "operation", "", "\ud800", "a.b", "provider_specific_fields"),
]


class Odd(dict[str, Any]):
    """An object of a class of its own, as libraries make them."""


def _deep(depth: int, leaf: Any) -> Any:
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"content": leaf}
    return leaf


def _texts(rng: random.Random) -> str:
    return rng.choice(
        [
            "",
            " ",
            "\ud800",
            "\udfff\ud800 \x00\x1b[0m",
            "[Tool calls; full output kept: 0123456789ab]\nfind(a=1): b=2",
            "[Tool calls]",
            "(Tool calls were made here.)",
            "Previous subtask results:",
            "{" * rng.choice([10, 3_000]),
            "[" * 20_000,
            "NaN",
            '{"a": NaN, "b": Infinity, "c": -Infinity, "d": -0.0, "e": 1e999}',
            '{"n": ' + "9" * rng.choice([20, 400, 5_000]) + "}",
            '{"a": "\\ud800"}',
            '{"id": "x1", "id": "x2"}',
            '[{"id": "r1", "v": [{"w": {}}]}, {"id": "r2", "v": null}, {"id": "r1"}]',
            "a" * rng.choice([300, 40_000]),
            "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(1, 200))),
            "1.1." * 2_000,
            "a,b,c\n1,2,3\n4,5,6\n\x00,\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
            "meta=None content=[TextContent(type='text', text='\\x')] isError=True",
        ]
    )


def anything(rng: random.Random) -> Any:
    """A value of any type."""
    kind = rng.randrange(12)
    if kind == 0:
        return rng.choice([None, True, False, 0, -0.0, 1, -1, 0.1, math.nan, math.inf, -math.inf])
    if kind == 1:
        return rng.choice([2**63, 2**64, -(2**200), 10**5_000, 1e308])
    if kind == 2:
        return rng.choice(_IDS)
    if kind == 3:
        return rng.choice([[], {}, [[]], [{}], [None], {"": None}, [""], (), ({},), Odd(role="user", content="x")])
    if kind == 4:
        return _deep(rng.choice(_DEPTHS), rng.choice([None, "leaf", 7]))
    if kind == 5:
        return rng.choice(_WORDS)
    if kind == 6:
        return rng.choice([b"bytes", bytearray(b"x"), object, frozenset({1}), 1j, range(3)])
    if kind == 7:
        return [{"type": rng.choice(_WORDS), "text": _texts(rng)} for _ in range(rng.randrange(1, 4))]
    if kind == 8:
        return {rng.choice(_KEYS): anything(rng) for _ in range(rng.randrange(4))}
    return _texts(rng)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a value with one of its keys or indices; no deeper than clients go."""
    found: list[tuple[Any, Any]] = []
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        here, depth = stack.pop()
        if depth > 8 or not isinstance(here, dict | list):
            continue
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            found.append((here, key))
            stack.append((here[key], depth + 1))
    return found


def _copy(value: Any, depth: int = 0) -> Any:
    if depth > 9:
        return value
    if isinstance(value, dict):
        return type(value)((key, _copy(inner, depth + 1)) for key, inner in value.items())
    return [_copy(inner, depth + 1) for inner in value] if isinstance(value, list) else value


def _is_id(key: Any) -> bool:
    return key in ("id", "call_id", "tool_call_id", "tool_use_id")


def mutate(wire: Wire, rng: random.Random) -> None:
    """One thing wrong more, somewhere."""
    places = _places(wire)
    if not places:
        wire.append(anything(rng))
        return
    here, key = rng.choice(places)
    kind = rng.randrange(11)
    if kind == 0:
        del here[key]
    elif kind == 1:
        here[key] = anything(rng)
    elif kind == 2 and isinstance(here, list):
        here.insert(rng.randrange(len(here) + 1), _copy(here[key]))
    elif kind == 3 and isinstance(here, list):
        other = rng.randrange(len(here))
        here[key], here[other] = here[other], here[key]
    elif kind == 4 and isinstance(here, dict):
        here[rng.choice(_KEYS)] = here.pop(key)
    elif kind == 5 and isinstance(here, dict):
        here[rng.choice(_KEYS)] = anything(rng)
    elif kind == 6:  # something from elsewhere
        there, other = rng.choice(places)
        here[key] = _copy(there[other]) if other in there or isinstance(there, list) else None
    elif kind in (7, 8):  # ids meet
        ids = [place for place in places if _is_id(place[1])] or [(here, key)]
        (one, name), (two, named) = rng.choice(ids), rng.choice(ids)
        one[name] = two[named] if rng.random() < 0.6 else rng.choice(_IDS)
    elif kind == 9:
        types = [place for place in places if place[1] in ("type", "role")] or [(here, key)]
        one, name = rng.choice(types)
        one[name] = rng.choice(_WORDS)
    else:
        texts = [place for place in places if isinstance(place[0][place[1]], str)] or [(here, key)]
        one, name = rng.choice(texts)
        one[name] = _texts(rng)


@dataclass(frozen=True, slots=True)
class Mutant:
    """`seed` and `number` name it; `api` and the number of mutations follow from them."""

    seed: int
    number: int

    @property
    def api(self) -> str:
        return APIS[self.number % len(APIS)]

    def random(self) -> random.Random:
        return random.Random(f"{self.seed}/{self.number}")

    def wire(self) -> Any:
        rng = self.random()
        wire = _copy(rng.choice(corpus(self.seed, self.api)))
        for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 12])):
            mutate(wire, rng)
        return wire


@lru_cache(maxsize=8)
def corpus(number: int, api: str) -> tuple[Wire, ...]:
    """Conversations of one wire form, valid and damaged, from the strategies that the other tests use."""
    found: list[Wire] = []
    for source in _SOURCES[api]:

        @seed(number)
        @settings(
            max_examples=_CORPUS,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(source())
        def collect(wire: Wire) -> None:
            found.append(wire)

        collect()
    return tuple(found)


def mutants(seed: int) -> Iterator[Mutant]:
    number = 0
    while True:
        yield Mutant(seed, number)
        number += 1
