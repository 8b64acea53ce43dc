"""The notation of summaries: cells separated by blanks, rows by `;` or a line break, tables in brackets.

    tool(name=value …): column=value table[column column: cell cell; cell cell] object{name=value}

Names stand with a tool's first record. Later records of the same shape hold the cells alone, in the same
order. What is left out is said in words, so that no legend is needed: `same` for a value as in the record
before, `as:id` for one as stated for another object, `as stated except …` for a record, `id same …` for a row
of which only the named cells changed. What is no plain word is quoted as in JSON, or in backquotes if it
holds quotes, so that cells can be read back exactly: `Stated` derives from the text of a summary what later
ones need not repeat.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

NONE = "-"  # the object has no such value
SAME = "same"  # as stated last for this object, or else in the record before; in a row: the rest of it
AS = "as:"  # as stated for the object whose identifier follows
JOIN = "+"  # joins objects that stand together in one row
AS_STATED = ("as", "stated")  # opens a record of which only what differs follows, after "except"

_SHORT = 80  # characters of what is held in the caches of this module
_CACHED = 65_536

DEEP = 12  # levels of nesting that are told apart
WIDE = 60  # columns of a table; wider objects name their values, as far as the budget goes

_PLAIN = re.compile(r"[^\s\"`\[\]{}()=;]*[^\s\"`\[\]{}()=;:]")
_BACKQUOTED = re.compile(r"[^`\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_RESERVED = frozenset({NONE, JOIN, SAME, AS_STATED[0], ">"})
_QUOTED = r'"(?:[^"\\]|\\.)*"|`[^`]*`'
_TOKEN = re.compile(rf'{_QUOTED}|[\[({{]|[\])}}]|[;\n]|[^\S\n]+|[^\s"`\[\](){{}};]+|["`]', re.DOTALL)
_GROUPING = re.compile(r'["`\[\](){}]')
_NAMED = re.compile(rf'({_QUOTED}|[^\s"`\[\](){{}}=;]+)(?:=(?=.)|(?=[\[{{]))', re.DOTALL)

_IDENTIFIER = re.compile(r"(?=.*\d)[\w#@:+./-]{3,64}|[^\s@]+@[^\s@]+|[^\s/]*/\S*")
_QUANTITY = re.compile(r"\d{4}-\d\d-\d\d.{0,20}|(?!\d+\Z)[\d:.,+-]{1,24}")  # dates, times, amounts


def is_identifier(value: Any) -> bool:
    """Whether a JSON value looks like the name of one thing: an id, an e-mail address, a path."""
    if isinstance(value, str):
        return 3 <= len(value) <= _SHORT and _is_identifier(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10000


@lru_cache(_CACHED)
def _is_identifier(text: str) -> bool:
    return bool(_IDENTIFIER.fullmatch(text)) and not _QUANTITY.fullmatch(text)


def word(text: str) -> str:
    """The text as one cell: as it is, or quoted."""
    return _short_word(text) if len(text) <= _SHORT else _word(text)


def _word(text: str) -> str:
    if _PLAIN.fullmatch(text) and text not in _RESERVED and not text.startswith(AS):
        return text
    if '"' in text and _BACKQUOTED.fullmatch(text):
        return f"`{text}`"
    return json.dumps(text, ensure_ascii=False)


_short_word = lru_cache(_CACHED)(_word)  # names, and values that come again and again


def unquoted(cell: str) -> str:
    """The text that stands as this cell."""
    if cell[:1] == "`":
        return cell[1:-1]
    if cell[:1] != '"':
        return cell
    try:
        return str(json.loads(cell))
    except ValueError:
        return cell


def name_cell(name: str, value: str) -> str:
    return f"{name}{value}" if value[:1] in ("[", "{") else f"{name}={value}"


class Table(NamedTuple):
    """Rows under column names, before it is decided whether the names have to be written."""

    name: str
    columns: tuple[str, ...]
    body: list[list[Cell]]
    brackets: str  # "[]", or "{}" around the one row of an object
    full: str  # every row in full without column names: equal for equal values


class Named(NamedTuple):
    name: str
    value: str | Table


Cell = str | Table | Named


def full_text(cell: Cell) -> str:
    """The cell with everything that its written form may leave out."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Named):
        return name_cell(cell.name, full_text(cell.value))
    return cell.full


def full_row(cells: Sequence[Cell]) -> str:
    return " ".join(map(full_text, cells))


def bracketed(full_rows: Sequence[str], brackets: str) -> str:
    return brackets[0] + "; ".join(full_rows) + brackets[1]


def lead_of(arguments: Sequence[str]) -> str:
    """What a call's record is about: its first argument if that names a thing, else all of them."""
    return arguments[0] if arguments and is_identifier(arguments[0]) else " ".join(arguments)


# Reading


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row; brackets and quotes keep their inside together."""
    if not _GROUPING.search(text):
        yield from filter(None, (line.split() for line in text.replace(";", "\n").split("\n")))
        return
    row: list[str] = []
    start, depth = -1, 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if depth == 0 and (first == ";" or first.isspace()):
            if start >= 0:
                row.append(text[start : token.start()])
                start = -1
            if first in ";\n" and row:
                yield row
                row = []
            continue
        if start < 0:
            start = token.start()
        if first in "[({":
            depth += 1
        elif first in "])}" and depth:
            depth -= 1
    if start >= 0:
        row.append(text[start:])
    if row:
        yield row


def first_row(text: str) -> list[str]:
    return next(rows(text), [])


def head_length(text: str) -> int:
    """Length of the first cell of the text."""
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if depth == 0 and (first == ";" or first.isspace()):
            return token.start()
        if first in "[({":
            depth += 1
        elif first in "])}" and depth:
            depth -= 1
    return len(text)


def named(cell: str) -> tuple[str, str] | None:
    """(name, value) of `name=value`, `name[…]` or `name{…}`; None for a bare cell."""
    match = _NAMED.match(cell) if "=" in cell or "[" in cell or "{" in cell else None
    return (match[1], cell[match.end() :]) if match else None


def table(cell: str) -> tuple[list[str], list[list[str]]]:
    """(column names if the table states them, its rows)."""
    body = list(rows(cell[1:-1]))
    for index, text in enumerate(body[0] if body else ()):
        if text.endswith(":"):
            columns, first = [*body[0][:index], text[:-1]], body[0][index + 1 :]
            return columns, ([first] if first else []) + body[1:]
    return [], body


def parts(row: Sequence[str]) -> list[list[str]]:
    """The objects of one row: `a b + c d` holds two."""
    found: list[list[str]] = [[]]
    for cell in row:
        if cell == JOIN:
            found.append([])
        else:
            found[-1].append(cell)
    return [part for part in found if part]
