"""JSON values as cells and tables, against what is stated already."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from proxy_plugin.history.model import dump
from proxy_plugin.history.summary.cells import JOIN, NONE, SAME, name_cell, word
from proxy_plugin.history.summary.digest import digest, identifiers
from proxy_plugin.history.summary.stated import Stated

_IDENTIFIER = re.compile(r"(?=.*\d)[\w#@:+./-]{3,64}|[^\s@]+@[^\s@]+|[^\s/]*/\S*")
_TIME = re.compile(r"\d{4}-\d\d-\d\d.*|[\d:.,+-]{1,12}")
_DEEP = 12

Pairs = list[tuple[str, str]]


def is_identifier(value: Any) -> bool:
    if isinstance(value, str):
        return 3 <= len(value) <= 80 and bool(_IDENTIFIER.fullmatch(value)) and not (len(value) < 30 and _TIME.fullmatch(value) and not value.isdigit())
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10000


def is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


class Table(NamedTuple):
    """Rows under column names, before it is known whether the names have to be written."""

    name: str
    columns: tuple[str, ...]
    body: list[list[Cell]]
    brackets: str
    full: str  # all rows in full, without the names of columns: equal for equal values


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


class Printer:
    """Writes cells out; the names of columns only where those in force are others."""

    def __init__(self, stated: Stated) -> None:
        self.stated = stated
        self.written: dict[str, tuple[str, ...]] = {}

    def text(self, cell: Cell) -> str:
        if isinstance(cell, str):
            return cell
        if isinstance(cell, Named):
            return name_cell(cell.name, self.text(cell.value))
        force = self.written.get(cell.name)
        if force is None:
            force = tuple(self.stated.columns("table", cell.name))
        head = ""
        if cell.columns and cell.columns != force:
            self.written[cell.name] = cell.columns
            head = " ".join(cell.columns) + ":"
        lines = [" ".join(map(self.text, row)) for row in cell.body]
        if len(lines) > 3:
            inside = "".join("\n " + line for line in lines)
        else:
            inside = (" " if head else "") + "; ".join(lines)
        return f"{cell.brackets[0]}{head}{inside}{cell.brackets[1]}"


class Writer:
    """Renders the values of one call. `left`: characters that its result may still take."""

    def __init__(self, stated: Stated, budget: int, given: Collection[str] = (), whole: int = 80) -> None:
        self.given = given
        self.whole = whole
        self.lists: dict[tuple[str, ...], str] = {}  # columns of identifiers, to refer to where they come again
        self.stated = stated
        self.left = budget
        self.budget = budget

    def scalar(self, value: Any) -> str:
        if value is None or value == "":
            return NONE
        if isinstance(value, str):
            return word(self.phrase(value))
        return json.dumps(value)

    def phrase(self, text: str) -> str:
        if len(text) <= 80 or len(text) <= 200 and not any(map(str.isspace, text)):
            return text
        if len(text) <= self.whole and "\n" not in text and any(identifiers(text)):
            return text
        room = max(160, min(self.left, 1000))
        return digest(text, self.known_word, room, 80, 64)

    def known_word(self, run: str) -> bool:
        return self.stated.get(run) is not None

    def cell(self, value: Any, name: str, depth: int = 0) -> str | Table:
        if isinstance(value, (dict, list)) and depth > _DEEP:
            return word(self.phrase(dump(value).decode()))
        if isinstance(value, dict):
            if not value:
                return NONE
            records = keyed_records(value)
            if records:
                return self.table(records, name, "[]", depth)
            if depth:
                named = [Named(word(key), self.cell(item, word(key), depth + 1)) for key, item in value.items() if not is_empty(item)]
                return Table(name, (), [list(named)], "{}", "{" + full_row(named) + "}")
            return self.table([[value]], name, "{}", depth)
        if isinstance(value, list):
            if not value:
                return NONE
            if all(isinstance(item, dict) for item in value):
                return self.table([[item] for item in value], name, "[]", depth)
            if all(isinstance(item, list) and item and all(isinstance(x, dict) for x in item) for item in value):
                return self.table(value, name, "[]", depth)
            return self.plain_list(value, name, depth)
        text = self.scalar(value)
        self.left -= len(text) + 1
        return text

    def plain_list(self, items: list[Any], name: str, depth: int) -> str | Table:
        cells: list[Cell] = []
        for index, item in enumerate(items):
            if self.left < 0 and index > 2:
                cells.append(word(f"+{len(items) - index} more"))
                break
            cells.append(self.cell(item, name, depth + 1))
        texts = tuple(map(full_text, cells))
        if texts in self.lists:
            return self.lists[texts]
        return Table(name, (), [cells], "[]", f"[{' '.join(texts)}]")

    def table(self, groups: list[list[dict[str, Any]]], name: str, brackets: str, depth: int) -> str | Table:
        """Rows of one or more like objects."""
        raw = [item for group in groups for item in group]
        known = self.stated.columns("table", name)
        flat = flatten(raw)
        columns = filled_columns(flat)
        if not fits(known, columns, flat, self.given) and flat is not raw and len(flat) < 3:
            others = filled_columns(raw)
            if len(raw) < 2 or fits(known, others, raw, self.given):
                flat, columns = raw, others
        if not columns:
            return NONE
        if len(flat) > 1 and sum(len(item) for item in flat) * 2 < len(columns) * len(flat):
            return self.plain_list(raw, name, depth)
        constant = constant_columns(columns, flat, self.given)
        names = {key: word(key) for key in columns}
        back = {names[key]: key for key in columns}
        reuse = fits(known, columns, flat, self.given)
        if reuse:
            lead = back.get(known[0])
            if lead is not None and not leads(lead, flat):
                lead = None
            varying = []
        else:
            lead = lead_column(columns, flat) if brackets == "[]" else None
            constant = [key for key in constant if key != lead]
            varying = ([] if lead is None else [lead]) + [key for key in columns if key != lead and key not in constant]
        if not reuse:
            known = [names[key] for key in varying]
        body: list[list[Cell]] = []
        shared = [Named(names[key], self.cell(flat[0][key], names[key], depth + 1)) for key in constant if names[key] not in known and not is_empty(flat[0].get(key))]
        shared = [cell for cell in shared if full_text(cell) not in self.given]
        if shared:
            body.append(list(shared))
        items = iter(flat)
        keys = [back.get(column) for column in known]
        local: dict[tuple[str, str], str] = {}
        full = [full_row(shared)] if shared else []
        for index, group in enumerate(groups):
            row: list[Cell] = []
            texts = []
            for item in (next(items) for _ in group):
                cells = [self.cell(None if key is None else item.get(key), column, depth + 1) for key, column in zip(keys, known, strict=True)]
                texts.append(full_row(cells))
                if row:
                    row.append(JOIN)
                row += cells if lead is None else self.row(cells, known, name, local)
            body.append(row)
            full.append(f" {JOIN} ".join(texts))
            if self.left < -self.budget / 2 and index > 2 and index + 1 < len(groups):
                body.append([word(f"+{len(groups) - index - 1} more")])
                break
        if len(flat) > 1:
            for column, key in zip(known, keys, strict=True):
                if key is not None and all(is_identifier(item.get(key)) for item in flat):
                    self.lists[tuple(self.scalar(item[key]) for item in flat)] = f"{SAME}{name}.{column}"
        return Table(name, tuple(known), body, brackets, brackets[0] + "; ".join(full) + brackets[1])

    def row(self, cells: list[Cell], names: Sequence[str], table: str, local: dict[tuple[str, str], str]) -> list[Cell]:
        """The row, or its lead and the cells that are not stated yet, whichever is shorter."""
        lead = full_text(cells[0])
        if self.left < 0:
            return cells[:1]
        short: list[Cell] = [cells[0]]
        for name, cell in zip(names[1:], cells[1:], strict=True):
            text = full_text(cell)
            known = local.get((lead, name)) or self.stated.get((table, lead, name))
            if known != text and not self.stated.says(lead, text):
                short.append(Named(name, cell))
            local[lead, name] = text
        return short if size(short) < size(cells) else cells

    def is_known(self, lead: str, name: str, cell: Cell) -> bool:
        text = full_text(cell)
        return self.stated.get((lead, name)) == text or self.stated.says(lead, text)


def full_row(cells: Iterable[Cell]) -> str:
    return " ".join(map(full_text, cells))


def size(row: Sequence[Cell]) -> int:
    return sum(len(full_text(cell)) + 1 for cell in row)


def keyed_records(value: dict[str, Any]) -> list[list[dict[str, Any]]] | None:
    """The rows of a dict of like objects; its keys become a column unless one repeats them."""
    if not all(isinstance(item, dict) and item for item in value.values()):
        return None
    if len(value) == 1 and not is_identifier(next(iter(value))):
        return None
    common = set.intersection(*(set(item) for item in value.values()))
    if len(value) > 1 and not common:
        return None
    repeated = next((name for name in common if all(item[name] == key for key, item in value.items())), None)
    if repeated is not None:
        return [[item] for item in value.values()]
    return [[{"key": key, **item}] for key, item in value.items()]


def flatten(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Inner objects that have the same keys everywhere become columns of their own."""
    inner: dict[str, tuple[str, ...] | None] = {}
    for item in items:
        for key, value in item.items():
            if isinstance(value, dict) and value and not any(isinstance(x, (dict, list)) for x in value.values()):
                shape = tuple(sorted(value))
                if inner.setdefault(key, shape) != shape:
                    inner[key] = None
            elif not is_empty(value):
                inner[key] = None
    if not any(inner.values()):
        return items
    return [dict(_flat(item, inner)) for item in items]


def _flat(item: dict[str, Any], inner: dict[str, tuple[str, ...] | None]) -> Iterable[tuple[str, Any]]:
    for key, value in item.items():
        if inner.get(key) and isinstance(value, dict):
            for name, part in value.items():
                yield f"{key}.{name}", part
        else:
            yield key, value


def filled_columns(items: list[dict[str, Any]]) -> list[str]:
    """The names that have a value in some row, in order of appearance."""
    return [
        key for key in dict.fromkeys(key for item in items for key in item) if not all(is_empty(item.get(key)) for item in items)
    ]


def constant_columns(columns: list[str], items: list[dict[str, Any]], given: Collection[str]) -> list[str]:
    """Columns whose value is worth stating once, or was an argument; never all of them."""
    found = [
        key
        for key in columns
        if (len(items) > 3 or isinstance(items[0].get(key), str) and name_cell(word(key), word(items[0][key])) in given)
        and all(item.get(key) == items[0].get(key) for item in items)
    ]
    return found[1:] if len(found) == len(columns) else found


def fits(
    known: Sequence[str], columns: list[str], items: list[dict[str, Any]], given: Collection[str]
) -> bool:
    """Whether the rows can be written under column names that are in force: those hold every column that
    varies, and no more than half of them would stay empty."""
    if not known:
        return False
    constant = set(constant_columns(columns, items, given))
    names = {word(key) for key in columns}
    return all(key in constant or word(key) in known for key in columns) and sum(name in names for name in known) * 2 > len(known)


def leads(key: str, items: list[dict[str, Any]]) -> bool:
    """Whether the column names the objects: identifiers, most of them distinct, or words, all distinct."""
    values = [item.get(key) for item in items]
    if all(is_identifier(value) for value in values):
        return len(set(values)) * 2 > len(values)
    return all(isinstance(value, str) and 0 < len(value) <= 60 for value in values) and len(set(values)) == len(values)


def lead_column(columns: list[str], items: list[dict[str, Any]]) -> str | None:
    """The column that tells the rows apart: the first of identifiers, else of words."""
    found = [key for key in columns if leads(key, items)]
    return next((key for key in found if is_identifier(items[0].get(key))), found[0] if found else None)
