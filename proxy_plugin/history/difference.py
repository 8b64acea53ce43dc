"""Two wire lists beside one another, item by item, as lines that people can read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import orjson

from proxy_plugin.history.model import dump

_CONTEXT = 1
"""Items that are shown beside a change."""
_LONGEST_LINE = 2_000


class Line(NamedTuple):
    """`mark`: " " in both, "-" only in the first list, "+" only in the second, "@" about the lists."""

    mark: str
    text: str


def difference(before: Sequence[Any], after: Sequence[Any]) -> Iterator[Line]:
    """Nothing where both are alike."""
    one, other = [dump(item) for item in before], [dump(item) for item in after]
    steps = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    if all(kind == "equal" for kind, *_ in steps):
        return
    for at, (kind, begin, end, begins, ends) in enumerate(steps):
        if kind == "equal":
            yield from _alike(before, begin, end, first=not at, last=at == len(steps) - 1)
            continue
        yield Line("@", f"message {begin} of {len(before)}, {begins} of {len(after)} as sent")
        for item in before[begin:end]:
            yield from _shown("-", item)
        for item in after[begins:ends]:
            yield from _shown("+", item)


def _alike(items: Sequence[Any], begin: int, end: int, *, first: bool, last: bool) -> Iterator[Line]:
    top = begin if first else min(begin + _CONTEXT, end)
    bottom = end if last else max(end - _CONTEXT, top)
    for item in items[begin:top]:
        yield from _shown(" ", item)
    if bottom > top:
        yield Line("@", f"{bottom - top} messages alike")
    for item in items[bottom:end]:
        yield from _shown(" ", item)


def _shown(mark: str, item: Any) -> Iterator[Line]:
    """The item as indented JSON; line breaks of its texts are line breaks."""
    try:
        text = orjson.dumps(item, option=orjson.OPT_INDENT_2).decode()
    except TypeError:
        text = dump(item).decode()
    for line in text.splitlines():
        for piece in line.replace("\\n", "\n").split("\n"):
            cut = f"… ({len(piece) - _LONGEST_LINE} more characters)" if len(piece) > _LONGEST_LINE else ""
            yield Line(mark, piece[:_LONGEST_LINE] + cut)
