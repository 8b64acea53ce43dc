"""What the model can already read: the part of the output that precedes, as an index.

A pure function of the texts added, in their order. From own summaries it learns which names of columns
are in force and the value of each cell that was stated last (the notation of `cells`); from any text,
which identifiers it mentions.
"""

from __future__ import annotations

import re
from collections.abc import Container, Hashable
from itertools import zip_longest

from proxy_plugin.history.summary.cells import (
    AS,
    AS_STATED,
    DEEP,
    JOIN,
    NONE,
    SAME,
    WIDE,
    bracketed,
    first_row,
    head_length,
    is_identifier,
    lead_of,
    name_cell,
    named,
    parts,
    table,
)
from proxy_plugin.history.summary.digest import identifiers

_MARKER = re.compile(r"\[Tool calls(?:; full output kept: \w{1,64})?\](?:\n|\Z)")
_ENTRY = re.compile(r"[^\s\"`\[\](){}=;]*\(")
_BETWEEN = re.compile(r"\n(?=> |\[Tool calls|[^\s\"`\[\](){}=;]*\()")  # entries: no row of a table begins so
_LONG = 24  # characters from which a value that another object has too is worth a reference


def marker(ref: str) -> str:
    """The first line of a summary, which makes it one."""
    return f"[Tool calls; full output kept: {ref}]" if ref else "[Tool calls]"


def is_summary(text: str) -> bool:
    """Whether the text was written by `summarise`."""
    return bool(_MARKER.match(text))


class Stated:
    """The index. Layers below are shared between copies and never change; only the top one grows."""

    __slots__ = ("_draft", "_following", "_layers", "_top")

    def __init__(self) -> None:
        self._layers: tuple[dict[Hashable, str], ...] = ()
        self._top: dict[Hashable, str] = {}
        self._following: Container[str] = ()
        self._draft: tuple[str, Stated] | None = None  # the summary that was written last, and the index with it

    def __len__(self) -> int:
        """Entries, those of every layer."""
        return sum(map(len, self._layers)) + len(self._top)

    def copy(self, following: Container[str] = ()) -> Stated:
        """An independent index of the same texts. Amortised O(1), since layers double in size. following:
        identifiers that it takes for mentioned too."""
        if self._top:
            layers = [*self._layers, self._top]
            while len(layers) > 1 and len(layers[-2]) <= 2 * len(layers[-1]):
                upper = layers.pop()
                layers[-1] = {**layers[-1], **upper}
            self._layers, self._top = tuple(layers), {}
        other = Stated()
        other._layers, other._following = self._layers, following
        return other

    def add(self, text: str) -> None:
        """Take in a text of the output, whole."""
        draft, self._draft = self._draft, None
        if draft is not None and draft[0] == text and draft[1]._layers is self._layers and not self._top:
            self._top = draft[1]._top
            return
        if not is_summary(text):
            self.mention(text)
            return
        tool = ""
        for entry in _BETWEEN.split(text):
            tool = self.learn(entry, tool)

    def foresee(self, text: str, index: Stated) -> None:
        """`text` was written against this index and may be added next. index: a copy of this one that has
        learned it already, and is not used any more."""
        self._draft = (text, index)

    def mention(self, text: str) -> None:
        for run in identifiers(text):
            self._top[run] = ""

    # Asking

    def mentions(self, identifier: str) -> bool:
        return self._get(identifier) is not None or identifier in self._following

    def columns(self, tool: str) -> list[str]:
        """Names in force for the bare cells of the tool's results."""
        return self._names("columns", tool)

    def arguments(self, tool: str) -> list[str]:
        """Names in force for the bare arguments of the tool."""
        return self._names("arguments", tool)

    def table(self, name: str) -> list[str]:
        """Names in force for the bare cells of the tables in columns of that name."""
        return self._names("table", name)

    def value(self, lead: str, column: str) -> str | None:
        """What was stated last for the object."""
        return self._get((lead, column))

    def cell(self, table: str, lead: str, column: str) -> str | None:
        """What was stated last in the row of a table that begins with `lead`."""
        return self._get((table, lead, column))

    def record_before(self, kind: str, tool: str, column: str) -> str | None:
        """The value in the tool's last record (kind: `columns`) or call (`arguments`)."""
        return self._get(("", kind, tool, column))

    def owner(self, column: str, value: str) -> str | None:
        """An object for which the same long value stands in the same column."""
        lead = self._get(("", "owner", column, value))
        return lead if lead is not None and self.value(lead, column) == value else None

    def _names(self, kind: str, name: str) -> list[str]:
        known = self._get(("", kind, name))
        return known.split("\n") if known else []

    def _get(self, key: Hashable) -> str | None:
        found = self._top.get(key)
        if found is None:
            for layer in reversed(self._layers):
                found = layer.get(key)
                if found is not None:
                    break
        return found

    # Reading summaries

    def learn(self, entry: str, tool: str) -> str:
        """Take in one entry of a summary: a call with what came of it. Returns the tool it names, which is
        that of the entry before (`tool`) where it names none."""
        self.mention(entry)
        if not _ENTRY.match(entry):
            return ""
        end = head_length(entry)
        head = entry[:end].removesuffix(":")
        own, _, arguments = head.removesuffix(")").partition("(")
        tool = own or tool
        if not tool or not head.endswith(")"):
            return ""
        lead = lead_of(self._learn_cells("arguments", tool, first_row(arguments), "", True))
        if entry[end - 1] != ":":
            return tool
        body = first_row(entry[end:])
        if body and body[0].endswith(":"):
            pair = named(body[0][:-1])
            lead = pair[1] if pair else body[0][:-1]
            body = body[1:]
        partial = tuple(body[:2]) == AS_STATED
        self._learn_cells("columns", tool, body[3:] if partial else body, lead, not partial)
        return tool

    def _learn_cells(self, kind: str, tool: str, cells: list[str], lead: str, names: bool) -> list[str]:
        """Values of a record's cells. names: cells that are all named bring these names into force."""
        pairs = [named(cell) for cell in cells]
        if names and cells and all(pairs):
            self._top["", kind, tool] = "\n".join(pair[0] for pair in pairs if pair)
        columns = iter(self._names(kind, tool))
        values = []
        for cell, pair in zip(cells, pairs, strict=True):
            column, value = pair or (next(columns, ""), cell)
            if value[:1] in ("[", "{"):
                value = self._learn_table(column or tool, value)
            elif value == SAME:
                value = self.value(lead, column) or self.record_before(kind, tool, column) or ""
            elif value.startswith(AS):
                value = self.value(value.removeprefix(AS), column) or ""
            values.append(value)
            if column:
                self._top["", kind, tool, column] = value
            if lead and column:
                self._top[lead, column] = value
                if len(value) >= _LONG and is_identifier(lead) and self.owner(column, value) is None:
                    self._top["", "owner", column, value] = lead
        return values

    def _learn_table(self, name: str, cell: str, depth: int = 0) -> str:
        """Returns the table in full, whatever its rows leave out."""
        if depth > DEEP:
            return cell
        columns, body = table(cell)
        if columns:
            self._top["", "table", name] = "\n".join(columns)
        else:
            columns = self.table(name)
        full = [[self._learn_row(name, columns, part, depth + 1) for part in parts(row)] for row in body]
        if columns and len(body) > 1 and named(body[0][0]):
            self._override(name, [part[0] for row in body[1:] for part in parts(row)], first_row(full[0][0]))
        return bracketed([f" {JOIN} ".join(row) for row in full], cell[0] + cell[-1])

    def _override(self, table: str, leads: list[str], shared: list[str]) -> None:
        """What is stated once for all rows, as `name=value`, replaces what was stated for one of them before."""
        for column, value in filter(None, map(named, shared[:WIDE])):
            for lead in leads:
                if self.cell(table, lead, column) is not None:
                    self._top[table, lead, column] = value

    def _learn_row(self, name: str, columns: list[str], cells: list[str], depth: int) -> str:
        if SAME in cells[1:2]:
            cells = [cells[0], *cells[2:]]
        values: dict[str, str] = {}
        for column, cell in zip_longest(columns[: len(cells)], cells, fillvalue=""):
            column, value = named(cell) or (column, cell)
            values[column] = self._learn_table(column or name, value, depth) if value[:1] in ("[", "{") else value
        if not columns or named(cells[0]):
            return " ".join(name_cell(*pair) if pair[0] else pair[1] for pair in values.items())
        lead = cells[0]
        for column in columns:
            if column in values:
                self._top[name, lead, column] = values[column]
            else:
                values[column] = self.cell(name, lead, column) or NONE
        return " ".join([values[column] for column in columns])
