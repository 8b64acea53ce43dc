"""What the model can already read: the part of the output that precedes, as an index.

A pure function of the texts added, in their order. From own summaries it learns names and cells (the
notation of `cells`), from any text which words stand beside which identifier.
"""

from __future__ import annotations

import re
from itertools import zip_longest

from proxy_plugin.history.summary.cells import NONE, SAME, SAME_OBJECT, head_end, named, parts, rows, table
from proxy_plugin.history.summary.digest import identifiers

MARKER = "[Tool calls"

_ENTRY = re.compile(r"[^\s\"\[\](){}=;]*\(")

_WORD = re.compile(r"[\w#@./:+-]+")
_EDGE = ".:-_/+"
_LEAD = re.compile(r"(?=.*\d)(?=.*[A-Za-z#_@]|\d{5,}\Z)[\w#@.+-]{4,}\Z")


def is_summary(text: str) -> bool:
    """Whether the text was written by `summarise`."""
    return text.startswith(MARKER)


class Stated:
    """The index. Layers below are shared between copies and never change; only the top one grows."""

    __slots__ = ("_layers", "_top")

    def __init__(self) -> None:
        self._layers: tuple[dict[object, str], ...] = ()
        self._top: dict[object, str] = {}

    def copy(self) -> Stated:
        """An independent index of the same texts. Amortised O(1): layers double in size."""
        if self._top:
            layers = [*self._layers, self._top]
            while len(layers) > 1 and len(layers[-2]) <= 2 * len(layers[-1]):
                upper = layers.pop()
                layers[-1] = {**layers[-1], **upper}
            self._layers, self._top = tuple(layers), {}
        other = Stated()
        other._layers = self._layers
        return other

    def columns(self, kind: str, name: str) -> list[str]:
        """Names in force for the bare cells of a tool's "arguments" or "columns", or of a "table"."""
        known = self.get(("", kind, name))
        return known.split("\n") if known else []

    def get(self, key: object) -> str | None:
        """What was stated last under the key."""
        found = self._top.get(key)
        if found is None:
            for layer in reversed(self._layers):
                found = layer.get(key)
                if found is not None:
                    break
        return found

    def add(self, text: str) -> None:
        """Take in a text of the output."""
        if is_summary(text):
            for entry in re.split(r"\n(?! )", text):
                self.learn(entry)
        else:
            self._read(text)

    def _read(self, text: str) -> None:
        for run in identifiers(text):
            self._top[run] = ""
        if "\\n" in text:
            text = text.replace("\\n", "\n")
        heading: list[str] = []
        for line in text.split("\n"):
            words = [word for word in (run.strip(_EDGE) for run in _WORD.findall(line)) if word]
            leads = [word for word in words if _LEAD.match(word)][:8]
            leads = heading = leads or heading
            current = leads[:1]
            for word in words:
                if _LEAD.match(word):
                    current = [word]
                for lead in current:
                    self._top["", "beside", lead, word] = ""
                if leads and leads[0] not in current:
                    self._top["", "beside", leads[0], word] = ""

    def says(self, lead: str, text: str) -> bool:
        """Whether kept text names the value beside the object it belongs to."""
        if len(text) < 4 or not any(character.isdigit() for character in text) and " " not in text:
            return False
        if text[0] in "[{":
            return False
        words = [run.strip(_EDGE) for run in _WORD.findall(text)]
        return bool(words) and all(self.get(("", "beside", lead, word)) is not None for word in words)

    def tool(self) -> str | None:
        return self.get(("", "tool"))

    def last(self, tool: str, column: str) -> str | None:
        """The value of the column in the tool's record before."""
        return self.get(("", "last", tool, column))

    def learn(self, entry: str) -> None:
        """Take in one entry of a summary: a call with what came of it."""
        for run in identifiers(entry):
            self._top[run] = ""
        if not _ENTRY.match(entry):
            return
        end = head_end(entry)
        head = entry[:end].removesuffix(":")
        if not head.endswith(")"):
            return
        tool, _, arguments = head[:-1].partition("(")
        tool = self._top["", "tool"] = tool or self.get(("", "tool")) or ""
        given = (rows(arguments) or [[]])[0]
        lead = self._learn_cells(("arguments", tool), given, "")
        if entry[end - 1] != ":":
            return
        body = (rows(entry[end + 1 :]) or [[]])[0]
        if body and body[0].endswith(":"):
            pair = named(body[0][:-1])
            lead = pair[1] if pair else body[0][:-1]
            body = body[1:]
        partial = tuple(body[:2]) == SAME_OBJECT
        self._learn_cells(("columns", tool), body[3:] if partial else body, lead, partial)

    def _learn_cells(self, shape: tuple[str, str], cells: list[str], lead: str, partial: bool = False) -> str:
        """Returns the value of the first cell."""
        pairs = [named(cell) for cell in cells]
        if cells and all(pairs) and not partial:
            self._top["", *shape] = "\n".join(pair[0] for pair in pairs if pair)
        columns = iter(self.columns(*shape))
        first = ""
        for cell, pair in zip(cells, pairs, strict=True):
            column, value = pair or (next(columns, ""), cell)
            first = first or value
            if value[:1] in ("[", "{"):
                value = self._learn_table(column or shape[1], value)
            elif value[:1] == SAME:
                value = (self.get((value[1:], column)) if value[1:] else self.get((lead, column)) or self.get(("", "last", shape[1], column))) or ""
            if lead and column:
                self._top[lead, column] = self._top["", "last", shape[1], column] = value
                if len(value) > 24:
                    self._top.setdefault(("", "whose", column, value), self.get(("", "whose", column, value)) or lead)
        return first

    def _learn_table(self, name: str, cell: str) -> str:
        """Returns the rows in full, whatever they leave out."""
        columns, body = table(cell)
        if columns:
            self._top["", "table", name] = "\n".join(columns)
        else:
            columns = self.columns("table", name)
        lines = []
        for row in body:
            line = []
            for part in parts(row):
                values = {}
                for column, text in zip_longest(columns[: len(part)], part, fillvalue=""):
                    pair = named(text)
                    column, value = pair or (column, text)
                    if value[:1] in ("[", "{"):
                        value = self._learn_table(column or name, value)
                    values[column] = value
                lead = "" if named(part[0]) else part[0]
                if lead and columns:
                    for column in columns:
                        if column in values:
                            self._top[name, lead, column] = values[column]
                        else:
                            values[column] = self.get((name, lead, column)) or NONE
                    line.append(" ".join(values[column] for column in columns))
                else:
                    line.append(" ".join(values.values()))
            lines.append(" + ".join(line))
        return cell[0] + "; ".join(lines) + cell[-1]
