"""Two wire lists beside one another, item by item, as lines that people can read. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
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
    if one == other:
        return
    begin = begins = 0
    for end, ends, length in [*_runs(_pairs(one, other)), (len(one), len(other), 0)]:
        if end > begin or ends > begins:
            yield Line("@", f"message {begin} of {len(before)}, {begins} of {len(after)} as sent")
            for item in before[begin:end]:
                yield from _shown("-", item)
            for item in after[begins:ends]:
                yield from _shown("+", item)
        begin, begins = end + length, ends + length
        last = begin == len(one) and begins == len(other)
        yield from _alike(before, end, begin, first=not end and not ends, last=last)


def _pairs(one: Sequence[bytes], other: Sequence[bytes]) -> list[tuple[int, int]]:
    """Places of like items, as many as stand in the same order in both lists: the longest increasing run of them. Of
    an item that stands there several times the k-th last one goes with the k-th last one, since what is taken out
    stands in front. O(n log n), also for lists of nothing but repeated items (difflib takes hours for those)."""
    places = {item: at for at, item in enumerate(_numbered(other))}
    pairs = [(at, places[item]) for at, item in enumerate(_numbered(one)) if item in places]
    lowest: list[int] = []  # place in the other list at which a run of this length can end
    ends: list[int] = []  # the pair that does
    before: list[int] = []  # of each pair: the one before it in its run
    for index, (_, place) in enumerate(pairs):
        length = bisect_left(lowest, place)
        before.append(ends[length - 1] if length else -1)
        lowest[length : length + 1] = [place]
        ends[length : length + 1] = [index]
    found, index = [], ends[-1] if ends else -1
    while index >= 0:
        found.append(pairs[index])
        index = before[index]
    return found[::-1]


def _numbered(items: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """Each with how many like it follow."""
    left = Counter(items)
    numbered = []
    for item in items:
        left[item] -= 1
        numbered.append((item, left[item]))
    return numbered


def _runs(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours among them together: where each run begins in either list, and its length."""
    runs: list[tuple[int, int, int]] = []
    for at, place in pairs:
        begin, begins, length = runs[-1] if runs else (at, place, 0)
        if (at, place) == (begin + length, begins + length):
            runs[-1:] = [(begin, begins, length + 1)]
        else:
            runs.append((at, place, 1))
    return runs


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
