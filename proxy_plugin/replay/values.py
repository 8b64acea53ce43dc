"""The values that an agent takes from its history: what later calls are made with.

A call's arguments hold ids, paths, numbers and names that stood in earlier messages. Those are what a rewritten
history must not lose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from proxy_plugin.replay.conversations import decode

_SHORTEST = 4  # characters: shorter ones stand everywhere
_WHOLE = 80  # characters: longer texts are composed by the model; what they quote is looked for
_QUOTED = re.compile(r"[\w.@:/#+-]{4,}")


def values_in(arguments: Iterable[str]) -> list[str]:
    """The values of some calls' arguments, each once, in their order."""
    found: dict[str, None] = {}
    for text in arguments:
        try:
            value = decode(text.encode("utf-8", "surrogatepass"))
        except ValueError:
            value = text
        found.update(dict.fromkeys(_values(value)))
    return list(found)


def _values(value: Any) -> Iterator[str]:
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += reversed(part.values())
        elif isinstance(part, list):
            left += reversed(part)
        elif isinstance(part, str):
            yield from _of_text(part)
        elif isinstance(part, int | float) and not isinstance(part, bool) and len(str(part)) >= _SHORTEST:
            yield str(part)


def _of_text(text: str) -> Iterator[str]:
    if len(text) <= _WHOLE and "\n" not in text:
        if len(text.strip()) >= _SHORTEST:
            yield text.strip()
        return
    for quoted in _QUOTED.findall(text):
        value = quoted.strip(".:,-")
        if len(value) >= _SHORTEST and any(c.isdigit() or c in "/@" for c in value):
            yield value


class Value:
    """One value, to be found where it stands by itself, plain or inside JSON text."""

    def __init__(self, value: str) -> None:
        self._spellings = sorted({value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]})
        before = r"(?<![A-Za-z0-9_])" if value[0].isalnum() else ""
        after = r"(?![A-Za-z0-9_])" if value[-1].isalnum() else ""
        self._pattern = re.compile(before + "(?:" + "|".join(map(re.escape, self._spellings)) + ")" + after)

    def stands_in(self, texts: Iterable[str]) -> bool:
        return any(self._stands(text) for text in texts)

    def _stands(self, text: str) -> bool:
        # The plain search is many times faster, and nearly always enough.
        return any(spelling in text for spelling in self._spellings) and self._pattern.search(text) is not None
