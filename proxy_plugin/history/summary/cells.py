"""The notation of summaries: cells separated by blanks, rows by `;` or a line break, tables in brackets.

    tool(name=value …): column=value table[column column: cell cell; cell cell]

Names stand with a tool's first record; later records of the same shape hold the cells alone, in the same
order. What is no plain word is quoted as in JSON, so that cells can be read back exactly: `Stated`
derives from the text of a summary what later summaries need not repeat.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

NONE = "-"  # the object has no such value
JOIN = "+"  # objects that stand together in one row
SAME = "="  # as stated last for this object, or else in the record before
SAME_OBJECT = ("as", "stated")  # a record whose remaining cells are what differs

_PLAIN = re.compile(r"[^\s\"\[\]{}()=;]*[^\s\"\[\]{}()=;:]")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[({]|[\])}]|[;\n]|[^\S\n]+|[^\s"\[\](){};]+|"', re.DOTALL)


def word(text: str) -> str:
    """The text as one cell: as it is, or quoted."""
    if _PLAIN.fullmatch(text) and text not in (NONE, JOIN, SAME_OBJECT[0]):
        return text
    return json.dumps(text, ensure_ascii=False)


def rows(text: str) -> list[list[str]]:
    """Cells of each row; brackets and quotes keep their inside together."""
    found: list[list[str]] = [[]]
    start, depth = -1, 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if depth == 0 and first in " \t\r\f\v;\n":
            if start >= 0:
                found[-1].append(text[start : token.start()])
                start = -1
            if first in ";\n" and found[-1]:
                found.append([])
            continue
        if start < 0:
            start = token.start()
        if first in "[({":
            depth += 1
        elif first in "])}" and depth:
            depth -= 1
    if start >= 0:
        found[-1].append(text[start:])
    return found if found[-1] else found[:-1]


def head_end(text: str) -> int:
    """Where the first cell of the text ends."""
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if depth == 0 and (first.isspace() or first == ";"):
            return token.start()
        if first in "[({":
            depth += 1
        elif first in "])}" and depth:
            depth -= 1
    return len(text)


_NAMED = re.compile(r'("(?:[^"\\]|\\.)*"|[^\s"\[\](){}=;]+)(?:=(?=.)|(?=[\[{]))', re.DOTALL)


def named(cell: str) -> tuple[str, str] | None:
    """(name, value cell) of `name=value`, `name[…]` or `name{…}`; None for a bare cell."""
    match = _NAMED.match(cell)
    return (match[1], cell[match.end() :]) if match else None


def name_cell(name: str, value: str) -> str:
    return f"{name}{value}" if value[:1] in "[{" else f"{name}={value}"


def table(bracketed: str) -> tuple[list[str], list[list[str]]]:
    """(column names if it states them, rows) of `[column column: row; row]`."""
    body = rows(bracketed[1:-1])
    if not body:
        return [], []
    for index, cell in enumerate(body[0]):
        if cell.endswith(":"):
            columns = [*body[0][:index], cell[:-1]]
            first = body[0][index + 1 :]
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
