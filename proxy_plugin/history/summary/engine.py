"""The summary of one completed subtask's tool rounds: an entry for each call, in their order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from proxy_plugin.history.model import Call, Message, Round, text_of
from proxy_plugin.history.summary.cells import (
    AS_STATED,
    NONE,
    SAME,
    Cell,
    Named,
    full_text,
    is_identifier,
    lead_of,
    name_cell,
    word,
)
from proxy_plugin.history.summary.content import Outcome, parse_json, read
from proxy_plugin.history.summary.digest import digest, error_line
from proxy_plugin.history.summary.objects import Printer, Writer
from proxy_plugin.history.summary.shapes import Record, groups_of
from proxy_plugin.history.summary.stated import Stated, marker

_BUDGET = 2000  # characters of one result, and of one call's arguments
_COMMAND = 160  # characters of an argument that stays whole
_SAID = 300  # characters of the agent's own text
_DITTO = 10  # characters from which a value as in the record before is left out

_TOOL = re.compile(r"[^\s\"\[\](){}=;:>]+")


def summarise(rounds: Sequence[Round], stated: Stated, following: Sequence[str], ref: str) -> str:
    """The text that stands for the tool rounds of one completed subtask.

    stated: what stands before, not changed. following: the subtask's texts that stay and stand behind.
    ref: where the full output is kept, up to 64 letters and digits; "" if it is not.
    Deterministic, linear in the size of the rounds, and total: any content gives a summary."""
    near = stated.copy()
    for text in following:
        near.mention(text)
    entries = [marker(ref)]
    tool = ""
    for turn in rounds:
        said = text_of(turn.assistant.content).strip()
        if said:
            tool = near.learn(entries[-1], tool)
            entries.append("> " + _indented(digest(said, near.mentions, _SAID, 80, 64)))
        for index, call in enumerate(turn.assistant.calls):
            tool = near.learn(entries[-1], tool)
            name = call.name if _TOOL.fullmatch(call.name) else word(call.name)
            result = turn.results[index] if index < len(turn.results) else None
            entry = _entry(name, call, result, near)
            entries.append(entry if name == tool else name + entry)
    return "\n".join(entries)


def _entry(name: str, call: Call, result: Message | None, near: Stated) -> str:
    """A call and what came of it, without the tool's name."""
    printer = Printer(near)
    try:
        arguments, head = _arguments(name, call.arguments, near, printer)
    except RecursionError:  # nested as deep as Python can read it
        arguments, head = {}, f"({word(digest(call.arguments, near.mentions, _SAID))})"
    if result is None:
        return f"{head} → no result"
    outcome = read(result)
    try:
        if isinstance(outcome.value, dict | list) and outcome.value:
            return f"{head}: {_record(outcome, name, arguments, near, printer)}"
    except RecursionError:
        outcome = outcome._replace(value=None)
    return f"{head} → {_indented(_plain(outcome, near))}"


def _arguments(name: str, text: str, near: Stated, printer: Printer) -> tuple[dict[str, Cell], str]:
    given = parse_json(text)
    writer = Writer(near, _BUDGET, _COMMAND)
    if not isinstance(given, dict):
        return {}, f"({word(writer.phrase(text)) if text else ''})"
    cells: dict[str, Cell] = {}
    for key, value in given.items():
        if writer.exhausted and len(cells) > 2:
            cells["…"] = word(f"+{len(given) - len(cells)} more")
            break
        cells[word(key)] = writer.cell(value, word(key))
    for (key, value), (later, other) in pairwise(given.items()):
        start = _departure(value, other)
        if start and word(key) in cells and word(later) in cells:
            cells[word(key)] = word(writer.phrase(value.strip(), start))
            cells[word(later)] = word(writer.phrase(other.strip(), start))
    if list(cells) == near.arguments(name):
        return cells, f"({printer.row(list(cells.values()))})"
    return cells, f"({printer.row([Named(*pair) for pair in cells.items()])})"  # type: ignore[arg-type]


def _departure(value: Any, other: Any) -> int:
    """Where a long text and its replacement begin to differ: the beginning of that line; 0 for others."""
    if not (isinstance(value, str) and isinstance(other, str) and min(len(value), len(other)) > 80):
        return 0
    text, replacement = value.strip(), other.strip()
    differing = (index for index, pair in enumerate(zip(text, replacement, strict=False)) if pair[0] != pair[1])
    return text.rfind("\n", 0, next(differing, 0)) + 1


def _record(outcome: Outcome, name: str, arguments: dict[str, Cell], near: Stated, printer: Printer) -> str:
    given = {key: full_text(cell) for key, cell in arguments.items()}
    writer = Writer(near, _BUDGET, given={name_cell(*pair) for pair in given.items()}, failed=outcome.failed)
    value = outcome.value
    if isinstance(value, list) or (len(value) > 1 and groups_of(value)):
        return printer.text(writer.cell(value, name))
    return _object(value, name, given, writer, near, printer)


def _object(value: Record, name: str, given: dict[str, str], writer: Writer, near: Stated, printer: Printer) -> str:
    """The record of one object: in full with names, in full without, or what differs from before."""
    cells: dict[str, Cell] = {}
    for key, item in value.items():
        if writer.exhausted and len(cells) > 2:
            cells["…"] = word(f"+{len(value) - len(cells)} more")
            break
        cells[word(key)] = writer.cell(item, word(key))
    texts = {key: full_text(cell) for key, cell in cells.items()}
    lead = subject = lead_of(list(given.values()))
    prefix = ""
    own = _own_identifier(value, texts, given)
    if own:
        lead = texts[own]
        if lead != subject:
            prefix = f"{name_cell(own, lead)}: "
        if lead != subject or given.get(own) == lead:
            del cells[own]
    cells = {
        key: cell
        for key, cell in cells.items()
        if given.get(key) != texts[key] and (texts[key] != NONE or near.value(lead, key) not in (None, NONE))
    }
    known = {key for key in cells if near.value(lead, key) == texts[key]}
    columns = near.columns(name)
    if known and len(known) * 2 >= len(cells):
        changed: list[Cell] = [
            Named(key, _or_owner(key, cell, near)) for key, cell in cells.items() if key not in known
        ]
        row: list[Cell] = [*AS_STATED, *(["except", *changed] if changed else [])]
    elif cells.keys() <= set(columns) and len(cells) * 2 >= len(columns):
        row = [
            SAME
            if key in known or _as_before(lead, name, key, texts.get(key, ""), near)
            else _or_owner(key, cells.get(key, NONE), near)
            for key in columns
        ]
    else:
        row = [Named(key, _or_owner(key, cell, near)) for key, cell in cells.items()]
    return prefix + printer.row(row)


def _own_identifier(value: Record, texts: dict[str, str], given: dict[str, str]) -> str:
    """The column that says which object this is: an identifier the call asked for, else the one it begins
    with, else any if the call names no object. Empty if there is none."""
    names = [word(key) for key, item in value.items() if is_identifier(item) and word(key) in texts]
    asked = set(given.values())
    for name in names:
        if texts[name] in asked:
            return name
    first = next(iter(given.values()), "")
    if names and (names[0] == next(iter(texts)) or not is_identifier(first)):
        return names[0]
    return ""


def _as_before(lead: str, tool: str, column: str, text: str, near: Stated) -> bool:
    return len(text) >= _DITTO and near.value(lead, column) is None and near.record_before(tool, column) == text


def _or_owner(column: str, cell: Cell, near: Stated) -> Any:
    """The cell, or a reference to an object for which the same is stated."""
    owner = near.owner(column, full_text(cell))
    return cell if owner is None else SAME + owner


def _plain(outcome: Outcome, near: Stated) -> str:
    text = outcome.text if outcome.value is None else json.dumps(outcome.value, ensure_ascii=False)
    shown = digest(text, near.mentions, _BUDGET)
    error = error_line(text, outcome.failed)
    if error and error not in shown:
        shown = f"{error}\n{shown}"
    return shown or "no output"


def _indented(text: str) -> str:
    """So that no line of it is taken for an entry."""
    return text.replace("\n", "\n ")
