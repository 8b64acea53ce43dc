"""What a tool result holds: a JSON value or plain text, out of the wrappers that tools put around it."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, NamedTuple

from proxy_plugin.history.model import Message, text_of


class Outcome(NamedTuple):
    text: str
    value: Any  # the JSON value, None if the text is none
    failed: bool


def read(result: Message) -> Outcome:
    text = text_of(result.content)
    pictures = _pictures(result.content)
    outcome = unwrap(text, result.failed)
    if pictures:
        text = "\n".join(filter(None, [outcome.text, *pictures]))
        return Outcome(text, None, outcome.failed)
    return outcome


def _pictures(content: Any) -> list[str]:
    if not isinstance(content, list):
        return []
    found = []
    for part in content:
        if isinstance(part, dict) and not isinstance(part.get("text"), str):
            url = part.get("image_url")
            url = url.get("url") if isinstance(url, dict) else url
            kind = part.get("type") if isinstance(part.get("type"), str) else "part"
            if isinstance(url, str) and not url.startswith("data:"):
                found.append(f"{kind} {url[:300]}")
            else:
                found.append(f"{kind}, {len(url)} characters" if isinstance(url, str) else str(kind))
    return found


_MCP = re.compile(r"meta=\S+ content=\[TextContent\(type='text', text=")


def unwrap(text: str, failed: bool, depth: int = 0) -> Outcome:
    stripped = text.strip()
    if depth < 4 and stripped[:1] in ("{", "[", '"'):
        try:
            value = json.loads(stripped)
        except (ValueError, RecursionError):
            value = lines_of_json(stripped)
        if isinstance(value, str):
            return unwrap(value, failed, depth + 1)
        if isinstance(value, dict) and set(value) <= {"type", "text", "annotations", "meta", "_meta"} and isinstance(value.get("text"), str):
            return unwrap(value["text"], failed, depth + 1)
        if isinstance(value, dict) and isinstance(value.get("content"), list) and "isError" in value:
            return unwrap(text_of(value["content"]), failed or value["isError"] is True, depth + 1)
        if isinstance(value, (dict, list)):
            return Outcome(text, value, failed)
    match = _MCP.match(stripped)
    if match and depth < 4:
        inner = python_string(stripped, match.end())
        if inner is not None:
            return unwrap(inner, failed or stripped.endswith("isError=True"), depth + 1)
    return Outcome(text, None, failed)


def lines_of_json(text: str) -> Any:
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 2:
        return None
    try:
        return [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None


_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def python_string(text: str, start: int) -> str | None:
    match = _STRING.match(text, start)
    if not match:
        return None
    try:
        value = ast.literal_eval(match[0])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, str) else None
