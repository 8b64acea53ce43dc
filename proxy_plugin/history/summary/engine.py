"""The summary of one completed subtask's tool rounds: an entry for each call, in their order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

from proxy_plugin.history.model import Call, Message, Round, text_of
from proxy_plugin.history.summary.cells import (
    AS,
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
from proxy_plugin.history.summary.digest import digest, error_line, identifiers
from proxy_plugin.history.summary.objects import Printer, Writer
from proxy_plugin.history.summary.quoting import as_data, defused
from proxy_plugin.history.summary.said import findings
from proxy_plugin.history.summary.shapes import Record, groups_of
from proxy_plugin.history.summary.stated import Stated, marker

_BUDGET = 2000  # characters of one result, and of one call's arguments
_COMMAND = 160  # characters of an argument that stays whole
_SAID = 300  # characters of the agent's own text
_PATH = 20  # characters from which an argument as in the call before is left out
_REPORT = 300  # characters of a text in which what was given is not repeated
_LEAVES = 64  # names and objects within an argument that are looked at
_DITTO = 10  # characters from which a value as in the record before is left out

_TOOL = re.compile(r"[^\s\"`\[\](){}=;:>]+")


class Arguments(NamedTuple):
    """What a call was given."""

    cells: dict[str, str]  # in full, by name as a cell
    values: dict[str, Any]  # of single values, those within others included, by name


def summarise(rounds: Sequence[Round], stated: Stated, following: Sequence[str], ref: str) -> str:
    """The text that stands for the tool rounds of one completed subtask.

    stated: what stands before, not changed. following: the subtask's texts that stay and stand behind.
    ref: where the full output is kept, up to 64 letters and digits; "" if it is not.
    Deterministic, linear in the size of the rounds, and total: any content gives a summary."""
    near = stated.copy(frozenset(run for text in following for run in identifiers(text)))
    entries: list[str] = []
    last: dict[str, Record] = {}  # what each tool was given last
    tool = near.learn(marker(ref), "")
    for turn in rounds:
        said = findings(text_of(turn.assistant.content).strip())
        if said:
            entries.append(defused("> " + _indented(digest(said, near.mentions, _SAID, 80, 64))))
            tool = near.learn(entries[-1], tool)
        for index, call in enumerate(turn.assistant.calls):
            name = defused(call.name if _TOOL.fullmatch(call.name) else word(call.name))
            result = turn.results[index] if index < len(turn.results) else None
            entry = defused(_entry(name, call, result, near, last))
            entries.append(entry if name == tool else name + entry)
            tool = near.learn(entries[-1], tool)
    summary = "\n".join([marker(ref), *entries])
    stated.foresee(summary, near)
    return summary


def _entry(
    name: str,
    call: Call,
    result: Message | None,
    near: Stated,
    last: dict[str, Record],
) -> str:
    """A call and what came of it, without the tool's name."""
    printer = Printer(near)
    try:
        arguments, head = _arguments(name, call.arguments, near, printer, last)
    except RecursionError:  # nested as deep as Python can read it
        arguments, head = Arguments({}, {}), f"({word(digest(call.arguments, near.mentions, _SAID))})"
    if result is None:
        return f"{head} → no result"
    outcome = read(result)
    try:
        if isinstance(outcome.value, dict | list) and outcome.value:
            return f"{head}: {_record(outcome, name, arguments, near, printer)}"
    except RecursionError:
        outcome = outcome._replace(value=None)
    return f"{head} → {_indented(as_data(_plain(outcome, arguments, near)))}"


def _arguments(name: str, text: str, near: Stated, printer: Printer, last: dict[str, Record]) -> tuple[Arguments, str]:
    """The arguments, and how they are written."""
    given = parse_json(text)
    writer = Writer(near, _BUDGET, _COMMAND)
    if not isinstance(given, dict):
        return Arguments({}, {}), f"({word(writer.phrase(text)) if text else ''})"
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
    before = last.get(name, {})
    last[name] = given
    shown = cells | {
        word(key): SAME for key, value in given.items() if word(key) in cells and _is_ditto(value, before.get(key))
    }
    arguments = Arguments({key: full_text(cell) for key, cell in cells.items()}, _leaves(given))
    if list(cells) == near.arguments(name):
        return arguments, f"({printer.row(list(shown.values()))})"
    return arguments, f"({printer.row([Named(*pair) for pair in shown.items()])})"  # type: ignore[arg-type]


def _is_ditto(value: Any, before: Any) -> bool:
    return isinstance(value, str) and len(value) >= _PATH and value == before


def _departure(value: Any, other: Any) -> int:
    """Where a long text and its replacement begin to differ: the beginning of that line; 0 for others."""
    if not (isinstance(value, str) and isinstance(other, str) and min(len(value), len(other)) > 80):
        return 0
    text, replacement = value.strip(), other.strip()
    alike, differing = 0, min(len(text), len(replacement)) + 1  # characters that are the same, that are not
    if text[: differing - 1] == replacement[: differing - 1]:
        return 0  # one begins the other
    while differing - alike > 1:
        middle = (alike + differing) // 2
        if text[alike:middle] == replacement[alike:middle]:
            alike = middle
        else:
            differing = middle
    return text.rfind("\n", 0, alike) + 1


def _record(outcome: Outcome, name: str, arguments: Arguments, near: Stated, printer: Printer) -> str:
    given = arguments.cells
    cells = {name_cell(*pair) for pair in given.items()}
    writer = Writer(near, _BUDGET, given=cells, failed=outcome.failed)
    value = outcome.value
    if isinstance(value, list) or (len(value) > 1 and groups_of(value)):
        return printer.text(writer.cell(value, name))
    return _object(value, name, arguments, writer, near, printer)


def _object(value: Record, name: str, arguments: Arguments, writer: Writer, near: Stated, printer: Printer) -> str:
    """The record of one object: in full with names, in full without, or what differs from before."""
    given = arguments.cells
    whole: dict[str, Cell] = {}
    repeated: dict[str, Any] = {}
    for key, item in value.items():
        if writer.exhausted and len(whole) > 2:
            whole["…"] = word(f"+{len(value) - len(whole)} more")
            break
        if len(value) > 1 and _is_repeated(key, item, arguments):
            repeated[word(key)] = item
        else:
            whole[word(key)] = writer.cell(item, word(key))
    texts = {key: full_text(cell) for key, cell in whole.items()}
    lead = subject = lead_of(list(given.values()))
    prefix = ""
    own = _own_identifier(value, texts, given)
    if own:
        lead = texts[own]
        if lead != subject:
            prefix = f"{name_cell(own, lead)}: "
        if lead != subject or given.get(own) == lead:
            del whole[own]
    columns = near.columns(name)
    for key, item in repeated.items():
        if key in columns or near.value(lead, key) is not None:
            whole[key] = writer.cell(item, key)
            texts[key] = full_text(whole[key])
    cells = {
        key: cell
        for key, cell in whole.items()
        if _is_news(texts[key], key in repeated or given.get(key) == texts[key], near.value(lead, key))
    }
    known = {key for key in cells if near.value(lead, key) == texts[key]}
    if len(known) * 2 >= len(cells):
        changed: list[Cell] = [
            Named(key, _or_owner(key, cell, near)) for key, cell in cells.items() if key not in known
        ]
        row: list[Cell] = [*AS_STATED, *(["except", *changed] if changed else [])]
    elif cells.keys() <= set(columns) and len(cells) * 2 >= len(columns):
        row = [
            SAME
            if key in known or _as_before(lead, name, key, texts.get(key, ""), near)
            else _or_owner(key, whole.get(key, NONE), near)
            for key in columns
        ]
    else:
        row = [Named(key, _or_owner(key, cell, near)) for key, cell in cells.items()]
    return prefix + printer.row(row)


def _is_repeated(key: str, item: Any, arguments: Arguments) -> bool:
    """Whether the value stands under the same name within an argument."""
    return isinstance(item, str) and arguments.values.get(key) == item != "" and word(key) not in arguments.cells


def _is_news(text: str, is_given: bool, before: str | None) -> bool:
    """Whether a record has to say its value: neither the call nor what was stated `before` of its object does,
    or that is another value."""
    return before not in (None, text) or not (is_given or text == NONE)


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
    if len(text) < _DITTO or near.value(lead, column) is not None:
        return False
    return near.record_before("columns", tool, column) == text


def _or_owner(column: str, cell: Cell, near: Stated) -> Any:
    """The cell, or a reference to an object for which the same is stated."""
    owner = near.owner(column, full_text(cell))
    return cell if owner is None else AS + owner


def _plain(outcome: Outcome, arguments: Arguments, near: Stated) -> str:
    text = outcome.text if outcome.value is None else json.dumps(outcome.value, ensure_ascii=False)
    shown = digest(text, near.mentions, _BUDGET)
    error = error_line(text, outcome.failed)
    if error:
        return shown if error in shown else f"{error}\n{shown}"
    return _without_given(shown, arguments.values) or "no output"


def _without_given(text: str, values: dict[str, Any]) -> str:
    """A report that repeats a path or the like that the call was given, with the argument's name in its place."""
    if len(text) > _REPORT:
        return text
    for name, value in values.items():
        if isinstance(value, str) and len(value) >= _PATH and value in text:
            text = re.sub(rf"(?<![\w/.-]){re.escape(value)}(?![\w/-]|\.\w)", f"<{name}>".replace("\\", ""), text)
    return text


def _leaves(value: Any) -> dict[str, Any]:
    """Names and values within an argument that is no single value; the first of each name."""
    found: dict[str, Any] = {}
    inner = [value]
    for item in inner:
        parts = item.items() if isinstance(item, dict) else (("", part) for part in item)
        for name, part in islice(parts, _LEAVES):
            if isinstance(part, dict | list):
                inner += [part] if len(inner) < _LEAVES else []
            elif name:
                found.setdefault(name, part)
    return found


def _indented(text: str) -> str:
    """So that no line of it is taken for an entry."""
    return text.replace("\n", "\n ")
