"""Rows of one table: each in full, or its first cell and what is not stated of it already."""

from __future__ import annotations

from collections.abc import Sequence

from proxy_plugin.history.summary.cells import SAME, Cell, Named, full_row, is_identifier, unquoted
from proxy_plugin.history.summary.stated import Stated

_TELLING = 16  # characters from which words name one thing


class Rows:
    """Writes rows of the table `name`, which begin with a cell that says what they are about."""

    def __init__(self, name: str, columns: Sequence[str], leads: Sequence[str], stated: Stated) -> None:
        """leads: the first cells of all rows, in full."""
        self._name = name
        self._columns = columns
        self._distinct = len(set(leads)) == len(leads)
        self._stated = stated
        self._recent: dict[str, list[str]] = {}  # texts of the last row that begins so

    def row(self, cells: list[Cell], texts: list[str]) -> list[Cell]:
        """The shorter form. texts: the cells in full. A row of which a part changed is written in full where
        its first cell may stand for several things."""
        lead = texts[0]
        changed = self._changed(lead, texts)
        self._recent[lead] = texts
        if changed is None or (changed and not (self._distinct and _names_one(lead))):
            return cells
        short = [cells[0], SAME, *(Named(self._columns[index], cells[index]) for index in changed)]  # type: ignore[arg-type]
        return short if len(full_row(short)) < sum(map(len, texts)) + len(texts) - 1 else cells

    def _changed(self, lead: str, texts: list[str]) -> list[int] | None:
        """Which cells differ from what was stated last; None if nothing was."""
        recent = self._recent.get(lead)
        if recent is None:
            if self._stated.cell(self._name, lead, self._columns[0]) is None:
                return None
            recent = [self._stated.cell(self._name, lead, column) or "" for column in self._columns]
        return [index for index in range(1, len(texts)) if texts[index] != recent[index]]


def _names_one(lead: str) -> bool:
    return len(lead) >= _TELLING or is_identifier(unquoted(lead))
