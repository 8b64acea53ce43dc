"""The summary of one completed subtask's tool rounds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from proxy_plugin.history.model import Call, Message, Round, text_of
from proxy_plugin.history.summary.cells import NONE, SAME, SAME_OBJECT, name_cell, word
from proxy_plugin.history.summary.content import Outcome, read
from proxy_plugin.history.summary.digest import digest, error_line
from proxy_plugin.history.summary.objects import Cell, Named, Printer, Writer, full_text, is_identifier
from proxy_plugin.history.summary.stated import MARKER, Stated

_RESULT = 2000  # characters of one result
_ARGUMENTS = 2000
_SAID = 300


def summarise(rounds: Sequence[Round], stated: Stated, following: Sequence[str], ref: str) -> str:
    near = stated.copy()
    for text in following:
        near.add(text)
    entries = [f"{MARKER}" + (f"; full output kept: {ref}]" if ref else "]")]
    before = ""
    for turn in rounds:
        said = text_of(turn.assistant.content).strip()
        if said:
            entries.append("> " + _indent(digest(said, _knows(near), _SAID, 120, 100)))
            near.learn(entries[-1])
            before = ""
        for index, call in enumerate(turn.assistant.calls):
            result = turn.results[index] if index < len(turn.results) else None
            name = call.name if re.fullmatch(r"[^\s\"\[\](){}=;:>]+", call.name) else word(call.name)
            entry = _entry(name, call, result, near)
            near.learn(name + entry)
            entries.append(entry if name == before else name + entry)
            before = name
    return "\n".join(entries)


def _knows(stated: Stated):
    return lambda run: stated.get(run) is not None


def _indent(text: str) -> str:
    return text.replace("\n", "\n ")


def _entry(name: str, call: Call, result: Message | None, near: Stated) -> str:
    try:
        given = json.loads(call.arguments)
    except (ValueError, RecursionError):
        given = call.arguments
    writer, printer = Writer(near, _ARGUMENTS, whole=160), Printer(near)
    arguments: dict[str, Cell] = {}
    if isinstance(given, dict):
        arguments = {word(key): writer.cell(value, word(key)) for key, value in given.items()}
        if list(arguments) == near.columns("arguments", name):
            inside = " ".join(map(printer.text, arguments.values()))
        else:
            inside = " ".join(printer.text(Named(*pair)) for pair in arguments.items())
    else:
        inside = word(writer.phrase(call.arguments)) if call.arguments else ""
    head = f"({inside})"
    if result is None:
        return f"{head} → no result"
    outcome = read(result)
    if isinstance(outcome.value, (dict, list)) and outcome.value:
        return f"{head}: {_structured(outcome.value, name, arguments, near, printer)}"
    text = outcome.text if outcome.value is None else json.dumps(outcome.value, ensure_ascii=False)
    return f"{head} → {_indent(_plain(text, outcome, near))}"


def _plain(text: str, outcome: Outcome, near: Stated) -> str:
    shown = digest(text, _knows(near), _RESULT)
    error = error_line(text, outcome.failed)
    if error and error not in shown:
        shown = f"{error}\n{shown}"
    return shown or "no output"


def _structured(value: Any, name: str, arguments: dict[str, Cell], near: Stated, printer: Printer) -> str:
    given = {key: full_text(cell) for key, cell in arguments.items()}
    writer = Writer(near, _RESULT, {name_cell(*pair) for pair in given.items()})
    if isinstance(value, list):
        return printer.text(writer.cell(value, name))
    cells = {word(key): writer.cell(item, word(key)) for key, item in value.items()}
    texts = {key: full_text(cell) for key, cell in cells.items()}
    lead = first = next(iter(given.values()), "")
    prefix = ""
    ids = [word(key) for key, item in value.items() if is_identifier(item)]
    own = [key for key in ids if texts[key] in given.values()]
    if not own and ids and (ids[0] == next(iter(cells)) or not is_identifier(first)):
        own = ids
    if own:
        lead = texts[own[0]]
        if lead != first:
            prefix = f"{name_cell(own[0], lead)}: "
        if lead != first or given.get(own[0]) == lead:
            del cells[own[0]]
    full = {key: cell for key, cell in cells.items() if texts[key] != NONE and given.get(key) != texts[key]}
    known = {key for key in full if writer.is_known(lead, key, full[key])}
    for key, cell in full.items():
        if key not in known and len(texts[key]) > 24:
            owner = near.get(("", "whose", key, texts[key]))
            if owner is not None:
                full[key] = SAME + owner
    if known and len(known) * 2 >= len(full):
        changed = [Named(key, cell) for key, cell in full.items() if key not in known]
        row = [*SAME_OBJECT, *(["except", *changed] if changed else [])]
    elif (columns := near.columns("columns", name)) and all(key in columns for key in full):
        row = [SAME if key in known or near.get((lead, key)) is None and len(texts.get(key, "")) > 9 and near.last(name, key) == texts[key] else full.get(key, NONE) for key in columns]
    else:
        row = [Named(key, cell) for key, cell in full.items()]
    return prefix + " ".join(map(printer.text, row))
