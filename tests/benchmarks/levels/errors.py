"""The line of a failed tool result that says what failed. An agent that forgets it tries the same again."""

from __future__ import annotations

import json
import re
from typing import Any

LONGEST = 160  # characters of a line that count
SHORTEST = 8

_OPENS = re.compile(r"\W*[\w.]*(?:error|exception|fatal)\b", re.IGNORECASE)  # also inside a tag, or as a class
_STATUS = re.compile(r"\bexit(?:ed)?\b[\w ]*:? [1-9]\d*$", re.IGNORECASE | re.MULTILINE)
_NAMES = re.compile(r"(?:error|exception|fatal|failed|not found|no such)\b", re.IGNORECASE)
_RAISED = re.compile(r"\w[\w.]*(?:Error|Exception|Exit|Interrupt)\b")
_TRACEBACK = "Traceback (most recent call last)"
_TAG = re.compile(r"</?\w+>")


def error_line(result: str) -> str:
    """At most 160 characters; "" where the result tells of no failure, or of none in words."""
    if result.lstrip().startswith("{"):
        try:
            return _of_json(json.loads(result))
        except ValueError:
            pass
    if not (_TRACEBACK in result or _OPENS.match(result) or _STATUS.search(result)):
        return ""
    lines = [line.strip() for line in _TAG.sub("", result).splitlines() if line.strip()]
    raised = filter(_RAISED.match, lines) if _TRACEBACK in result else iter(())
    line = next(raised, None) or next(filter(_NAMES.search, lines), None) or next(reversed(lines), "")
    return line[:LONGEST].rstrip() if len(line) >= SHORTEST else ""


def _of_json(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    error = value.get("error")
    flagged = value.get("isError") is True or value.get("is_error") is True
    if flagged or (not error and str(value.get("status")).lower() in ("error", "failed")):
        error = next((value[key] for key in ("message", "content", "detail", "error") if value.get(key)), None)
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    if not isinstance(error, str) or not error.strip():
        return ""
    return error.strip().splitlines()[0].strip()[:LONGEST]
