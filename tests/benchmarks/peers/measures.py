"""What is measured of a conversation's rewritten requests, one request before each assistant message.

tokens     o200k tokens of what is sent, as a share of sending everything
cost       the same under prompt caching: tokens that the previous request began with cost 0.1, the others
           1.0 (OpenAI and its like) or 1.25 (Anthropic's cache writes)
breaks     requests that do not begin with the whole previous request
values     what later calls use: argument leaves that stand in earlier tool traffic and not in text that
           everybody keeps (users, system, final answers); kept if the request still has the value
           somewhere. Prior: its newest occurrence lies in a completed subtask
beside     of the prior values that come from JSON objects with ids: kept beside an id of their own object,
           nearer than the ids of the rows around it
invalid    requests that OpenAI would refuse (tests/validators.py)
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from time import monotonic
from typing import Any

from tests.benchmarks.peers.peer import Editor, Message
from tests.benchmarks.peers.text import FRAME_TOKENS, calls_of, content_text, full_text, text_tokens, tokens
from tests.validators import violations

CACHED = 0.1
WRITES = {"1.0": 1.0, "1.25": 1.25}
NEAR = 300  # characters between a value and its object's id, unless both stand on one line


@dataclass(frozen=True, slots=True)
class Home:
    """A JSON object that holds a value: its other ids, and the ids of the rows around it."""

    own: frozenset[str]
    rivals: frozenset[str]


@dataclass(frozen=True, slots=True)
class Need:
    """A value that the call after a request uses."""

    value: str
    prior: bool
    homes: tuple[Home, ...]


@dataclass(frozen=True, slots=True)
class Request:
    messages: list[Message]
    needs: tuple[Need, ...]
    valid: bool


# Which values later calls use


def replayed(messages: list[Message]) -> list[Request]:
    """The requests of a conversation, each with what the reply to it needs."""
    texts = [full_text(message) for message in messages]
    found = [list(_homes(message)) for message in messages]
    out = []
    for end, reply in enumerate(messages):
        if end and reply.get("role") == "assistant":
            before = messages[:end]
            needs = tuple(_needs(before, reply, texts, found))
            out.append(Request(before, needs, not violations(before)))
    return out


def _needs(
    before: list[Message], reply: Message, texts: list[str], found: list[list[tuple[str, Home]]]
) -> Iterator[Need]:
    boundary = running_from(before)
    for value in dict.fromkeys(leaf for _, arguments in calls_of(reply) for leaf in _leaves(_parsed(arguments))):
        kept, holders = False, []
        for index, message in enumerate(before):
            if holds(texts[index], value):
                kept = kept or not _is_tool_traffic(message)
                holders.append(index)
        if holders and not kept:
            homes = [home for index in holders for leaf, home in found[index] if leaf == value]
            yield Need(value, holders[-1] < boundary, tuple(dict.fromkeys(homes)))


def running_from(messages: list[Message]) -> int:
    """Where the running subtask begins: behind the last assistant text that a user message follows."""
    for index in range(len(messages) - 2, -1, -1):
        message = messages[index]
        is_final = message.get("role") == "assistant" and not message.get("tool_calls")
        if is_final and messages[index + 1].get("role") == "user":
            return index + 1
    return 0


def _is_tool_traffic(message: Message) -> bool:
    return message.get("role") == "tool" or bool(message.get("tool_calls"))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif (leaf := _scalar(value)) and 4 <= len(leaf) <= 80 and not set(leaf) & set('"\\\n'):
        yield leaf


def _scalar(value: Any) -> str:
    """A string, or a number of at least four digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = json.dumps(value)
        return text if sum(letter.isdigit() for letter in text) >= 4 else ""
    return ""


@lru_cache(1 << 14)
def spellings(value: str) -> tuple[str, ...]:
    """As it is, and as it stands inside JSON text, or inside JSON text within JSON text."""
    once = [json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)]
    twice = [json.dumps(text, ensure_ascii=False)[1:-1] for text in once]
    return tuple(dict.fromkeys([value, *once, *twice]))


@lru_cache(1 << 14)
def _pattern(value: str) -> re.Pattern[str]:
    left = r"(?<![A-Za-z0-9_])" if value[0].isalnum() else ""
    right = r"(?![A-Za-z0-9_])" if value[-1].isalnum() else ""
    longest_first = sorted(spellings(value), key=len, reverse=True)
    return re.compile(f"{left}(?:{'|'.join(map(re.escape, longest_first))}){right}")


def holds(text: str, value: str) -> bool:
    return any(spelled in text for spelled in spellings(value)) and _pattern(value).search(text) is not None


# Which object a value belongs to


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"(?=.*\d)[\w#@:+./-]{5,64}", value) is not None


def _homes(message: Message) -> Iterator[tuple[str, Home]]:
    if message.get("role") == "tool":
        yield from _walk(_parsed(content_text(message)), frozenset())


def _walk(value: Any, siblings: frozenset[str]) -> Iterator[tuple[str, Home]]:
    if isinstance(value, dict):
        ids = _ids(value)
        for inner in value.values():
            if isinstance(inner, dict | list):
                yield from _walk(inner, frozenset())
            elif (leaf := _scalar(inner)) and ids - {leaf}:
                yield leaf, Home(ids - {leaf}, siblings - ids)
    elif isinstance(value, list):
        rows = frozenset(found for row in value if isinstance(row, dict) for found in _ids(row))
        for row in value:
            yield from _walk(row, rows)


def _ids(value: dict[str, Any]) -> frozenset[str]:
    return frozenset(inner for inner in value.values() if _is_id(inner))


def beside(text: str, value: str, home: Home) -> bool:
    """Whether the value stands in `text` with an id of its own object next to it, before or after."""
    if not holds(text, value):
        return False
    own = [place for anchor in home.own for place in _places(text, anchor)]
    if not own:
        return False
    rivals = [place for rival in home.rivals for place in _places(text, rival)]
    for start, end in _places(text, value):
        if _on_line(text, rivals, start) and not _on_line(text, own, start):
            continue  # in another row
        before = max((place[1] for place in own if place[1] <= start), default=None)
        after = min((place[0] for place in own if place[0] >= end), default=None)
        if before is not None and _linked(text, before, start) and not _any(rivals, before, start):
            return True
        if after is not None and _linked(text, end, after) and not _any(rivals, end, after):
            return True
    return False


def _places(text: str, value: str) -> list[tuple[int, int]]:
    return [match.span() for match in _pattern(value).finditer(text)] if holds(text, value) else []


def _linked(text: str, left: int, right: int) -> bool:
    return right - left <= NEAR or "\n" not in text[left:right]


def _on_line(text: str, places: list[tuple[int, int]], at: int) -> bool:
    end = text.find("\n", at)
    return _any(places, text.rfind("\n", 0, at) + 1, end if end >= 0 else len(text))


def _any(places: list[tuple[int, int]], left: int, right: int) -> bool:
    return any(left <= start < right for start, _ in places)


# Prompt caching


def cached_tokens(previous: list[Message], current: list[Message]) -> int:
    """Tokens at the beginning of `current` that `previous` began with too."""
    total = 0
    for old, new in zip(previous, current, strict=False):
        if old == new:
            total += tokens(new)
            continue
        if old.get("role") == new.get("role"):
            shared = _common(full_text(old), full_text(new))
            total += FRAME_TOKENS + text_tokens(shared) if shared else 0
        break
    return total


def _common(left: str, right: str) -> str:
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[:middle] == right[:middle] else (low, middle - 1)
    return left[:low]


class Bill:
    """Adds up the tokens of a conversation's requests under prompt caching."""

    def __init__(self) -> None:
        self.sent = 0
        self.cached = 0
        self.breaks = 0
        self.previous: list[Message] = []

    def add(self, messages: list[Message]) -> None:
        self.sent += sum(map(tokens, messages))
        self.cached += cached_tokens(self.previous, messages)
        self.breaks += messages[: len(self.previous)] != self.previous
        self.previous = messages

    def cost(self, write: float) -> float:
        return CACHED * self.cached + write * (self.sent - self.cached)


# One conversation


def evaluate(requests: list[Request], editor: Editor, end: float = inf) -> Counter[str]:
    """Sums of one conversation; `figures` makes shares of them. Stops at `end` (of the monotonic clock)."""
    before, after = Bill(), Bill()
    sums: Counter[str] = Counter()
    for number, request in enumerate(requests):
        if monotonic() > end:
            break
        sums.update(requests=1, pairs=number > 0)
        try:
            out = editor(request.messages)
        except Exception:  # a tool that fails; a client would send what it has
            sums["failed"] += 1
            out = request.messages
        before.add(request.messages)
        after.add(out)
        broken = bool(violations(out))
        sums["invalid"] += broken
        sums["spoiled"] += broken and request.valid
        sums.update(_kept(request.needs, out))
    sums.update(tokens_before=before.sent, tokens_after=after.sent, breaks=after.breaks)
    for name, write in WRITES.items():
        sums.update({f"cost_{name}_before": before.cost(write), f"cost_{name}_after": after.cost(write)})
    return sums


def _kept(needs: tuple[Need, ...], out: list[Message]) -> Counter[str]:
    sums: Counter[str] = Counter()
    texts = [full_text(message) for message in out]
    for need in needs:
        kept = any(holds(text, need.value) for text in texts)
        sums.update(values=1, values_kept=kept)
        if need.prior:
            sums.update(prior=1, prior_kept=kept)
            if need.homes:
                near = kept and any(beside(text, need.value, home) for home in need.homes for text in texts)
                sums.update(homed=1, homed_kept=near)
    return sums


def _share(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None


def figures(sums: Counter[str]) -> dict[str, float | None]:
    """Percentages (None: nothing to measure) and counts."""
    return {
        "tokens": _share(sums["tokens_after"], sums["tokens_before"]),
        "cost_1.0": _share(sums["cost_1.0_after"], sums["cost_1.0_before"]),
        "cost_1.25": _share(sums["cost_1.25_after"], sums["cost_1.25_before"]),
        "breaks": sums["breaks"],
        "pairs": sums["pairs"],
        "values": _share(sums["values_kept"], sums["values"]),
        "prior": _share(sums["prior_kept"], sums["prior"]),
        "beside": _share(sums["homed_kept"], sums["homed"]),
        "requests": sums["requests"],
        "invalid": sums["invalid"],
        "spoiled": sums["spoiled"],
        "failed": sums["failed"],
    }
