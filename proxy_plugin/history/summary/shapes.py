"""Which JSON objects are rows of one table, under which columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from proxy_plugin.history.summary.cells import is_identifier, name_cell, word

Record = dict[str, Any]

_SHARE = 4  # rows from which a value that all of them have is stated once


def is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def groups_of(value: Any) -> list[list[Record]] | None:
    """The rows of a list of objects, of a list of lists of objects (a row each) or of an object of like
    objects; None for what is no table."""
    if isinstance(value, dict):
        return _keyed_records(value)
    if all(isinstance(item, dict) for item in value):
        return [[item] for item in value]
    if all(isinstance(item, list) and item and all(isinstance(part, dict) for part in item) for item in value):
        return list(value)
    return None


def _keyed_records(value: Record) -> list[list[Record]] | None:
    """The keys become a column, unless one repeats them."""
    if not all(isinstance(item, dict) and item for item in value.values()):
        return None
    if len(value) == 1 and not is_identifier(next(iter(value))):
        return None
    common = set.intersection(*(set(item) for item in value.values()))
    if not common:
        return None
    if any(all(item[name] == key for key, item in value.items()) for name in sorted(common)):
        return [[item] for item in value.values()]
    column = next((name for name in ("key", "id", "of") if not any(name in item for item in value.values())), "key ")
    return [[{column: key, **item}] for key, item in value.items()]


class Shape(NamedTuple):
    """How records are written as rows."""

    records: list[Record]
    columns: list[str]  # of which some record has a value, in order of appearance
    constant: frozenset[str]  # of these, the ones to state once or not at all
    empty: dict[str, None]  # keys of which no record has a value, in order

    @classmethod
    def of(cls, records: list[Record], given: Collection[str]) -> Shape:
        """given: arguments of the call as cells; a column that repeats one needs no place in the rows."""
        filled = {key: False for record in records for key in record}
        for record in records:
            for key, value in record.items():
                if not (filled[key] or is_empty(value)):
                    filled[key] = True
        columns = [key for key, has_value in filled.items() if has_value]
        first = records[0]
        constant = [
            key
            for key in columns
            if key in first
            and (len(records) >= _SHARE or _is_given(key, first.get(key), given))
            and all(record.get(key) == first.get(key) for record in records)
        ]
        constant = constant[1:] if len(constant) == len(columns) else constant
        empty = dict.fromkeys(key for key, has_value in filled.items() if not has_value)
        return cls(records, columns, frozenset(constant), empty)

    def fits(self, names: Sequence[str]) -> bool:
        """Whether the rows can be written under names in force: these include every column that varies, and
        at most half of them would stay empty."""
        known = set(names)
        own = {word(key) for key in {key for record in self.records for key in record}}
        return (
            bool(known)
            and all(key in self.constant or word(key) in known for key in self.columns)
            and len(known & own) * 2 > len(known)
        )

    def is_loose(self) -> bool:
        """Whether most cells of the table would stay empty."""
        return sum(map(len, self.records)) * 2 < len(self.columns) * len(self.records)

    def leads(self, key: str) -> bool:
        """Whether the column names the rows: identifiers, most of them distinct, or words, all distinct."""
        values = [record.get(key) for record in self.records]
        if all(is_identifier(value) for value in values):
            return len(set(values)) * 2 > len(values)
        words = all(isinstance(value, str) and len(value) <= 60 and any(map(str.isalpha, value)) for value in values)
        return words and len(set(values)) == len(values)

    def names_rows(self, key: str) -> bool:
        """Whether all values of the column are identifiers, distinct or not."""
        return all(is_identifier(record.get(key)) for record in self.records)

    def lead(self) -> str | None:
        """The column to begin the rows with: the first of distinct identifiers, else of words, else of
        identifiers that several rows share."""
        found = [key for key in self.columns if self.leads(key)]
        found = [key for key in found if is_identifier(self.records[0].get(key))] or found
        return found[0] if found else next(filter(self.names_rows, self.columns), None)


def best_shape(records: list[Record], names: Sequence[str], given: Collection[str]) -> Shape:
    """The shape with inner objects spread over columns (`size.width`), or without, if only that fits the
    names in force or there are too few rows to be worth own ones."""
    plain = Shape.of(records, given)
    spread = _spread(records)
    if spread is None:
        return plain
    wide = Shape.of(spread, given)
    if wide.fits(names) or (not plain.fits(names) and len(records) > 1) or len(records) > 2:
        return wide
    return plain


def _is_given(key: str, value: Any, given: Collection[str]) -> bool:
    return bool(given) and isinstance(value, str) and name_cell(word(key), word(value)) in given


def _spread(records: list[Record]) -> list[Record] | None:
    """The records with each inner object that has the same keys everywhere as columns of their own."""
    shapes: dict[str, frozenset[str] | None] = {}
    for record in records:
        for key, value in record.items():
            if "." in key:
                return None
            if isinstance(value, dict) and value and not any(isinstance(part, dict | list) for part in value.values()):
                shape = frozenset(value)
                if shapes.setdefault(key, shape) != shape:
                    shapes[key] = None
            elif not is_empty(value):
                shapes[key] = None
    inner = {key for key, shape in shapes.items() if shape}
    return [dict(_columns(record, inner)) for record in records] if inner else None


def _columns(record: Record, inner: set[str]) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if key in inner and isinstance(value, dict):
            for name, part in value.items():
                yield f"{key}.{name}", part
        else:
            yield key, value
