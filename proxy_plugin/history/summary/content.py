"""What a tool result holds: a JSON value or plain text, out of the wrappers that tools put around it."""

from __future__ import annotations

import ast
import csv
import json
import re
from typing import Any, NamedTuple

from proxy_plugin.history.model import Message, text_of

_WRAPPERS = 4  # wrappers within each other that are opened
_TEXT_BLOCK = frozenset({"type", "text", "annotations", "meta", "_meta"})
_FAILURE = frozenset({"error", "failed", "failure"})

# How Python prints the result of a tool of the Model Context Protocol.
_MCP = re.compile(r"meta=\S+ content=\[(?=TextContent\()")
_MCP_TEXT = re.compile(r"TextContent\(type='text', text=")
_OPENING = re.compile(r'\s*\{\s*(?:"_?meta":\s*null,\s*)?"content":\s*\[\s*\{\s*"type":\s*"text",\s*"text":\s*"')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": ""}
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)

_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")


class Outcome(NamedTuple):
    text: str
    value: Any  # the JSON value; None where the text is none
    failed: bool


def parse_json(text: str) -> Any:
    """The value, with fractions as they are written; None if the text is no JSON."""
    try:
        return json.loads(text, parse_float=str)
    except (ValueError, RecursionError):
        return None


def read(result: Message) -> Outcome:
    outcome = _unwrapped(text_of(result.content), result.failed, 0)
    others = _other_parts(result.content)
    if not others:
        return outcome
    return Outcome("\n".join(filter(None, [outcome.text, *others])), None, outcome.failed)


def _other_parts(content: Any) -> list[str]:
    """Images and the like: by reference where they have one, else by kind and size."""
    found = []
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, dict) or isinstance(part.get("text"), str):
            continue
        kind = part.get("type") if isinstance(part.get("type"), str) else "part"
        data = next((part[key] for key in ("image_url", "source", "file", "input_audio", "data") if key in part), "")
        if isinstance(data, dict):
            data = next((data[key] for key in ("url", "file_id", "data", "file_data") if key in data), "")
        if isinstance(data, str) and data and len(data) <= 300 and not data.startswith("data:"):
            found.append(f"{kind} {data}")
        else:
            found.append(f"{kind}, {len(data)} characters" if isinstance(data, str) and data else str(kind))
    return found


def _unwrapped(text: str, failed: bool, depth: int) -> Outcome:
    stripped = text.strip()
    if depth >= _WRAPPERS:
        return Outcome(text, None, failed)
    if stripped[:1] in ("{", "[", '"'):
        value = parse_json(stripped)
        if isinstance(value, str):
            return _unwrapped(value, failed, depth + 1)
        if isinstance(value, dict):
            if _is_text_block(value):
                return _unwrapped(value["text"], failed, depth + 1)
            failed = failed or value.get("isError") is True or value.get("is_error") is True
            if isinstance(value.get("content"), list) and "isError" in value:
                inner = text_of(value["content"])
                return _unwrapped("\n".join([inner, *_other_parts(value["content"])]), failed, depth + 1)
            failed = failed or str(value.get("status")).lower() in _FAILURE
        if isinstance(value, list) and value and all(map(_is_text_block, value)):
            return _unwrapped(text_of(value), failed, depth + 1)
        if isinstance(value, dict | list):
            return Outcome(text, value, failed)
    if _MCP.match(stripped):
        inner = "\n".join(_printed_texts(stripped))
        return _unwrapped(inner, failed or stripped.endswith("isError=True"), depth + 1)
    return Outcome(text, None if failed else _rows(stripped), failed)


def _is_text_block(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= _TEXT_BLOCK and isinstance(value.get("text"), str)


def _printed_texts(text: str) -> list[str]:
    found: list[str] = []
    position = 0
    while match := _MCP_TEXT.search(text, position):
        literal = _STRING.match(text, match.end())
        if not literal:
            rest = text[match.end() + 1 :]  # cut off by whoever printed it
            return [*found, _opened(_unescaped(rest))]
        try:
            found.append(str(ast.literal_eval(literal[0])))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found.append(literal[0])
        position = literal.end()
    return found


def _opened(text: str) -> str:
    """The beginning of a wrapper that has no end, without what stands before its text."""
    match = _OPENING.match(text)
    return _unescaped(text[match.end() :]) if match else text


def _unescaped(text: str) -> str:
    """Of a string literal whose end is missing."""
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), text)


def _rows(text: str) -> list[Any] | None:
    """The records of JSON lines, of a Markdown table, or of separated values with a header."""
    lines = [line.strip() for line in text.split("\n")]
    if lines[0][:1] in ("{", "["):
        return _json_lines(lines)
    if len(lines) < 3:
        return None
    if lines[0][:1] == "|" and _RULE.fullmatch(lines[1]):
        return _records([[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]])
    for delimiter, least in (("\t", 1), (",", 2), (";", 2)):
        if min(lines[0].count(delimiter), lines[-1].count(delimiter)) >= least:
            try:
                return _records([row for row in csv.reader(lines, delimiter=delimiter) if row])
            except csv.Error:
                return None
    return None


def _json_lines(lines: list[str]) -> list[Any] | None:
    found = []
    for line in filter(None, lines):
        value = parse_json(line)
        if value is None:
            return None
        found.append(value)
    return found if len(found) > 1 else None


def _records(cells: list[list[str]]) -> list[Any] | None:
    header, *body = cells
    if len(set(header)) != len(header) or not all(name and len(name) <= 60 for name in header):
        return None
    if len(body) < 2 or any(len(row) != len(header) for row in body):
        return None
    return [dict(zip(header, row, strict=True)) for row in body]
