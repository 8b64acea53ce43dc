"""JSON values as cells and tables, and these as text, against what is stated already."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from proxy_plugin.history.model import dump
from proxy_plugin.history.summary.cells import (
    AS,
    DEEP,
    JOIN,
    NONE,
    WIDE,
    Cell,
    Named,
    Table,
    bracketed,
    full_row,
    full_text,
    is_identifier,
    name_cell,
    word,
)
from proxy_plugin.history.summary.digest import digest, identifiers
from proxy_plugin.history.summary.rows import Rows
from proxy_plugin.history.summary.shapes import Record, Shape, best_shape, groups_of, is_empty
from proxy_plugin.history.summary.stated import Stated

_SHORT = 80  # characters of a text that stays whole in a cell
_UNBROKEN = 200  # the same without white space
_HEAD = 64
_IN_LINE = 3  # rows that may stand in one line; not those that begin with a digit, where a blank is a token
_TELLING = frozenset({"error", "errors", "message", "detail", "details", "reason", "stderr"})
_ERROR = 200  # characters of a text under one of these names


class Writer:
    """Makes cells of the values of one call.

    budget: characters that they may take, about; a text of `whole` characters stays as it is if it holds
    identifiers; given: the call's arguments as cells; failed: every text may say what went wrong."""

    def __init__(
        self,
        stated: Stated,
        budget: int,
        whole: int = _SHORT,
        given: Collection[str] = (),
        failed: bool = False,
    ) -> None:
        self._stated = stated
        self._budget = self._left = budget
        self._whole = whole
        self._given = given
        self._failed = failed
        self._identifiers: dict[tuple[str, ...], str] = {}  # columns of tables, to refer to

    @property
    def exhausted(self) -> bool:
        return self._left < 0

    def cell(self, value: Any, name: str, depth: int = 0) -> str | Table:
        """name: the column's, as a cell."""
        if isinstance(value, dict | list) and value:
            if depth > DEEP:
                return self._text(dump(value).decode(), name)
            groups = groups_of(value)
            if groups:
                return self._table(groups, name, "[]", depth)
            if isinstance(value, list):
                return self._list(value, name, depth)
            return self._object(value, name, depth)
        if isinstance(value, str):
            return self._text(value, name)
        text = _scalar(value)
        self._left -= len(text) + 1
        return text

    def phrase(self, text: str, start: int = 0) -> str:
        """The text, or what matters of it. start: where it begins to differ from another."""
        if len(text) <= _SHORT or (len(text) <= _UNBROKEN and len(text.split(None, 1)) == 1):
            return text
        if len(text) <= self._whole and "\n" not in text and any(identifiers(text)):
            return text
        room = max(2 * _SHORT, min(self._left, self._budget // 2))
        return digest(text, self._stated.mentions, room, _SHORT, _HEAD, start)

    def _text(self, value: str, name: str) -> str:
        value = value.strip()
        if len(value) > _SHORT and (self._failed or name in _TELLING):
            text = word(value.split("\n", 1)[0][:_ERROR])
        else:
            text = word(self.phrase(value)) if value else NONE
        self._left -= len(text) + 1
        return text

    def _object(self, value: Record, name: str, depth: int) -> str | Table:
        if depth == 0 and not any(isinstance(item, dict | list) for item in value.values()):
            return self._table([[value]], name, "{}", depth)
        cells: list[Cell] = []
        for index, (key, item) in enumerate(value.items()):
            if self.exhausted and index > 2:
                cells.append(_more(len(value) - index))
                break
            if not is_empty(item):
                cells.append(Named(word(key), self.cell(item, word(key), depth + 1)))
        return Table(name, (), [cells], "{}", bracketed([full_row(cells)], "{}")) if cells else NONE

    def _list(self, items: list[Any], name: str, depth: int) -> str | Table:
        cells: list[Cell] = []
        for index, item in enumerate(items):
            if self.exhausted and index > 2:
                cells.append(_more(len(items) - index))
                break
            cells.append(self.cell(item, name, depth + 1))
        same = self._identifiers.get(tuple(map(full_text, cells)))
        return same or Table(name, (), [cells], "[]", bracketed([full_row(cells)], "[]"))

    def _table(self, groups: list[list[Record]], name: str, brackets: str, depth: int) -> str | Table:
        """groups: the objects of each row."""
        known = self._stated.table(name)
        records = [record for group in groups for record in group]
        shape = best_shape(records, known, self._given)
        if not shape.columns:
            return NONE
        if len(shape.columns) > WIDE or (len(records) > 1 and shape.is_loose()):
            return self._list(records, name, depth)
        names = {key: word(key) for key in shape.columns}
        keys = {name: key for key, name in names.items()}
        lead = None
        if shape.fits(known):
            lead = keys.get(known[0])
            if lead is not None and not (shape.leads(lead) or shape.names_rows(lead)):
                lead = None
        else:
            lead = shape.lead() if brackets == "[]" else None
            rest = [key for key in shape.columns if key != lead and key not in shape.constant]
            known = [names[key] for key in ([] if lead is None else [lead]) + rest]
        shared = self._shared(shape, name, known, keys, depth)
        body, full = ([shared], [full_row(shared)]) if shared else ([], [])
        order = [(column, keys.get(column)) for column in known]
        leads = [] if lead is None else [_scalar(record.get(lead)) for record in shape.records]
        rows = Rows(name, known, leads, self._stated)
        position = 0
        for index, group in enumerate(groups):
            if self.exhausted and (lead is not None or index > 2):
                body.append(self._rest(shape.records[position:], lead, len(groups) - index))
                break
            row: list[Cell] = []
            parts = []
            for record in shape.records[position : position + len(group)]:
                cells: list[Cell] = [
                    self.cell(None if key is None else record.get(key), column, depth + 1) for column, key in order
                ]
                texts = [cell if isinstance(cell, str) else full_text(cell) for cell in cells]
                parts.append(" ".join(texts))
                row += [JOIN] if row else []
                row += cells if lead is None else rows.row(cells, texts)
            position += len(group)
            body.append(row)
            full.append(f" {JOIN} ".join(parts))
        else:
            if len(records) > 1:
                self._remember(name, order, shape.records)
        return Table(name, tuple(known), body, brackets, bracketed(full, brackets))

    def _shared(
        self, shape: Shape, name: str, columns: Sequence[str], keys: Mapping[str, str], depth: int
    ) -> list[Cell]:
        """What holds for all rows and has no column. A value that the call was given, or that there is none, is
        said only where something else is stated for one of the rows: it would still be read there.

        keys: those of the columns that have values, by name."""
        in_force = frozenset(columns)
        once = [key for key in shape.columns if key in shape.constant and word(key) not in in_force]
        subject = keys.get(columns[0]) if columns and (once or shape.empty) else None
        leads = [] if subject is None else _leads(shape, subject)
        found: list[Cell] = []
        for key in once:
            column = word(key)
            cell = self.cell(shape.records[0][key], column, depth + 1)
            text = full_text(cell)
            if name_cell(column, text) not in self._given or any(
                self._is_other(name, lead, column, text) for lead in leads
            ):
                found.append(Named(column, cell))
        gone = {
            key
            for lead, record in zip(leads, shape.records, strict=False)
            for key in record
            if key in shape.empty and self._is_other(name, lead, word(key), NONE)
        }
        return found + [Named(word(key), NONE) for key in shape.empty if key in gone and word(key) not in in_force]

    def _is_other(self, name: str, lead: str, column: str, text: str) -> bool:
        """Whether another value is stated in the row that begins so."""
        return self._stated.cell(name, lead, column) not in (None, text)

    def _rest(self, records: Sequence[Record], lead: str | None, count: int) -> list[Cell]:
        """In place of the last `count` rows: how many there are, and their identifiers."""
        row: list[Cell] = [_more(count)]
        if lead is None:
            return row
        row[0] = word(f"+{count} more, {lead} only:")
        found = dict.fromkeys(record.get(lead) for record in records if isinstance(record.get(lead), str | int))
        for value in found:
            if self._left < -self._budget // 2:
                return [*row, "…"]
            row.append(self.cell(value, ""))
        return row

    def _remember(self, table: str, order: Sequence[tuple[str, str | None]], records: Sequence[Record]) -> None:
        for column, key in order:
            if key is not None and all(is_identifier(record.get(key)) for record in records):
                self._identifiers[tuple(word(str(record[key])) for record in records)] = f"{AS}{table}.{column}"


def _scalar(value: Any) -> str:
    """A value that is neither text nor holds others, as a cell; text as it is."""
    return value if isinstance(value, str) else NONE if is_empty(value) else json.dumps(value)


def _leads(shape: Shape, key: str) -> list[str]:
    """The first cells of the rows as a reader finds them; [] if they do not say what the rows are about."""
    if not (shape.leads(key) or shape.names_rows(key)):
        return []
    values = [record[key] for record in shape.records]
    return [word(value.strip()) if isinstance(value, str) else _scalar(value) for value in values]


def _more(count: int) -> str:
    return word(f"+{count} more")


class Printer:
    """Writes cells out; the names of columns only where others are in force."""

    def __init__(self, stated: Stated) -> None:
        self._stated = stated
        self._written: dict[str, tuple[str, ...]] = {}

    def text(self, cell: Cell) -> str:
        if isinstance(cell, str):
            return cell
        if isinstance(cell, Named):
            return name_cell(cell.name, self.text(cell.value))
        in_force = self._written.get(cell.name)
        if in_force is None:
            in_force = tuple(self._stated.table(cell.name))
        head = ""
        if cell.columns and cell.columns != in_force:
            self._written[cell.name] = cell.columns
            head = " ".join(cell.columns) + ":"
        lines = [self.row(row) for row in cell.body]
        if len(lines) > _IN_LINE or (len(lines) > 1 and lines[1][:1].isdigit()):
            return cell.brackets[0] + "\n".join([head, *lines]) + cell.brackets[1]
        return cell.brackets[0] + (head and head + " ") + "; ".join(lines) + cell.brackets[1]

    def row(self, cells: Sequence[Cell]) -> str:
        return " ".join(map(self.text, cells))
