"""Which JSON object of a tool result a value belongs to, and by what that object is known.

An object is known by its ids: single words with digits, long whole numbers, e-mails, paths, the key it
stands under if that is an id. One without ids is part of the object around it. Among rows (the objects of a list,
or of an object's fields) only ids that no other row has tell it apart, and the other rows' ids are its rivals. An
object that is not one of several rows is known by the arguments of its call and the name of its field as
well; its rivals are what identifies the results before and after it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.peers.measures import Home, holds
from tests.benchmarks.peers.peer import Message
from tests.benchmarks.peers.text import content_text

_LONGEST = 80  # characters of an id or an argument that tells one object from another


@dataclass(frozen=True, slots=True)
class Belonging:
    """A value's place in a tool result: its object, its field ("": it is itself a key), the whole result."""

    home: Home
    field: str
    result: str


@dataclass(frozen=True, slots=True)
class _Object:
    """`ids`: its own. `shared`: those that other rows have too. `others`: the ids of the other rows alone."""

    name: str = ""
    ids: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Leaf:
    text: str
    field: str
    owner: _Object


class Results:
    """The tool results of one conversation as JSON, each parsed when it is first asked for."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self._tools = [index for index, message in enumerate(messages) if message.get("role") == "tool"]
        self._leaves: dict[int, list[_Leaf]] = {}
        self._arguments: dict[int, frozenset[str]] = {}

    def belongings(self, value: str, index: int) -> Iterator[Belonging]:
        """Where the result at `index` (any message: others have none) holds the value beside something that
        tells its object apart."""
        for leaf in self._leaves_of(index):
            if leaf.text == value or (value in leaf.text and holds(leaf.text, value)):
                home = self._home(value, leaf.owner, index)
                if home is not None:
                    yield Belonging(home, leaf.field, content_text(self.messages[index]))

    def _home(self, value: str, owner: _Object, index: int) -> Home | None:
        own = _without(value, owner.ids - owner.shared)
        rivals = _without(value, owner.others)
        if own and rivals:
            return Home(own, rivals)
        known_by = owner.ids | self._arguments_of(index) | ({owner.name} if len(owner.name) > 1 else set())
        own = _without(value, known_by)
        return Home(own, _without(value, self._around(index)) - own) if own else None

    def _leaves_of(self, index: int) -> list[_Leaf]:
        if index not in self._leaves:
            message = self.messages[index]
            value = _parsed(content_text(message)) if message.get("role") == "tool" else None
            self._leaves[index] = list(_walk(value, "", _Object(), Counter()))
        return self._leaves[index]

    def _around(self, index: int) -> frozenset[str]:
        """What identifies the results next to this one and is not part of it."""
        at = self._tools.index(index)
        near = [*self._tools[max(at - 1, 0) : at], *self._tools[at + 1 : at + 2]]
        found = {text for other in near for text in self._arguments_of(other) if len(text) > 2}
        for other in near:
            value = _parsed(content_text(self.messages[other]))
            found |= _ids(value) if isinstance(value, dict) else set()
        return frozenset(found - self._arguments_of(index) - {leaf.text for leaf in self._leaves_of(index)})

    def _arguments_of(self, index: int) -> frozenset[str]:
        """The scalar arguments of the call that the result at `index` answers: the nearest one before it."""
        if index not in self._arguments:
            self._arguments[index] = frozenset(self._called_with(index))
        return self._arguments[index]

    def _called_with(self, index: int) -> Iterable[str]:
        wanted = self.messages[index].get("tool_call_id")
        for message in reversed(self.messages[:index]):
            for call in reversed(message.get("tool_calls") or []):
                if call.get("id") == wanted:
                    value = _parsed((call.get("function") or {}).get("arguments") or "")
                    leaves = _walk(value, "", _Object(), Counter())
                    return [leaf.text for leaf in leaves if 2 <= len(leaf.text) <= _LONGEST]
        return []


def _parsed(text: str) -> Any:
    """JSON, taken out of a text block that is itself JSON; None for any other text."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, dict) and value.get("type") == "text" and isinstance(value.get("text"), str):
        return _parsed(value["text"])
    return value


def _walk(value: Any, name: str, around: _Object, rows: Counter[str]) -> Iterator[_Leaf]:
    """`around`: the object that `value` is part of. `rows`: how many of the rows that it is one of have an id."""
    if isinstance(value, dict):
        ids = frozenset(_ids(value, name))
        mine = around
        if ids:
            shared = frozenset(found for found in ids if rows[found] > 1)
            mine = _Object(name, ids, shared, frozenset(rows) - ids)
        if _is_id(name):
            yield _Leaf(name, "", mine)
        inner = _rows(_ids(row, key) for key, row in value.items() if isinstance(row, dict))
        for key, part in value.items():
            if isinstance(part, dict | list):
                yield from _walk(part, key, mine, inner if isinstance(part, dict) else Counter())
            elif (text := _scalar(part)) is not None:
                yield _Leaf(text, key, mine)
    elif isinstance(value, list):
        inner = _rows(_ids(row) for row in value if isinstance(row, dict))
        for part in value:
            if isinstance(part, dict | list):
                yield from _walk(part, "" if _is_id(name) else name, around, inner)
            elif (text := _scalar(part)) is not None:
                yield _Leaf(text, name, around)


def _rows(ids: Iterable[set[str]]) -> Counter[str]:
    every = list(ids)
    return Counter(found for row in every for found in row) if len(every) > 1 else Counter()


def _ids(value: dict[str, Any], name: str = "") -> set[str]:
    own = {text for part in value.values() if _is_id(part) and (text := _scalar(part)) is not None}
    return own | ({name} if _is_id(name) else set())


def _is_id(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) >= 10_000
    if not isinstance(value, str) or not 3 <= len(value) <= _LONGEST or value.split() != [value]:
        return False
    return any(letter.isdigit() or letter in "@/" for letter in value)


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, bool | dict | list):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _without(value: str, ids: Iterable[str]) -> frozenset[str]:
    """Without those that hold the value themselves."""
    return frozenset(found for found in ids if not holds(found, value))
