"""What a message on the wire has that its stored form has not. Pure.

The same message comes in several forms: as the provider sent it, as a client echoes it, with a cache breakpoint
or without. One form is stored whole; of another one the residual is kept, in which each longer text stands as a
reference to the stored one:

    ""              the same bytes             "T" + JSON   {"\\0": n} stands for the n-th text of the stored form
    "R" + bytes     the bytes themselves
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

_REF = "\0"
_SHORTEST = 24
"""Characters of a text that a reference saves anything of."""
_LONGEST = 256_000_000
"""Characters that the references of one message may stand for."""


def residual(fragment: bytes, stored: Any) -> bytes:
    """`stored`: the parsed form that is kept."""
    if orjson.dumps(stored) == fragment:
        return b""
    places: dict[str, int] = {}
    for index, text in enumerate(_texts(stored)):
        places.setdefault(text, index)
    try:
        template = b"T" + orjson.dumps(_referring(orjson.loads(fragment), places))
        if filled(template, stored) == fragment:
            return template
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    return b"R" + fragment


def filled(kept: bytes, stored: Any) -> bytes:
    """The fragment again. Raises ValueError, LookupError or TypeError where `stored` is another one, and ValueError
    where so many references are made to it that no message can have had them: an import may say anything."""
    if not kept:
        return orjson.dumps(stored)
    if kept[:1] == b"R":
        return kept[1:]
    template, texts = orjson.loads(kept[1:]), list(_texts(stored))
    if sum(len(texts[place]) for place in _references(template)) > _LONGEST:
        raise ValueError("refers to more than a message holds")
    return orjson.dumps(_filled(template, texts))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) >= _SHORTEST:
            yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _referring(value: Any, places: dict[str, int]) -> Any:
    if isinstance(value, str):
        return {_REF: places[value]} if value in places else value
    if isinstance(value, list):
        return [_referring(inner, places) for inner in value]
    if isinstance(value, dict):
        return {key: _referring(inner, places) for key, inner in value.items()}
    return value


def _references(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for inner in value:
            yield from _references(inner)
    elif isinstance(value, dict):
        if value.keys() == {_REF}:
            yield value[_REF]
        else:
            yield from _references(list(value.values()))


def _filled(value: Any, texts: list[str]) -> Any:
    if isinstance(value, list):
        return [_filled(inner, texts) for inner in value]
    if isinstance(value, dict):
        if value.keys() == {_REF}:
            return texts[value[_REF]]
        return {key: _filled(inner, texts) for key, inner in value.items()}
    return value
