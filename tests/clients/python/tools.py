"""The tools of every client here, and the summary that each prints (see `tests/clients/stage.py`)."""

from __future__ import annotations

import json
import math
import os
from typing import Any

BASE_URL = os.environ["BASE_URL"]
API_KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]
API = os.environ["API"]
STREAM = bool(os.environ["STREAM"])
HEADERS = {"x-litellm-session-id": os.environ["SESSION"]} if os.environ["SESSION"] else {}
TASKS: list[str] = json.loads(os.environ["TASKS"])

_runs = 0


def count_letters(text: str) -> str:
    """Counts the letters of a text."""
    return _report("count_letters", len(text))


def sum_to(n: int) -> str:
    """Sums the whole numbers up to n."""
    return _report("sum_to", sum(range(n + 1)))


def factorial(n: int) -> str:
    """Multiplies the whole numbers up to n."""
    return _report("factorial", math.factorial(n))


FUNCTIONS = {function.__name__: function for function in (count_letters, sum_to, factorial)}

SCHEMAS: dict[str, dict[str, Any]] = {
    name: {
        "type": "object",
        "properties": {"text": {"type": "string"}} if name == "count_letters" else {"n": {"type": "integer"}},
        "required": ["text" if name == "count_letters" else "n"],
        "additionalProperties": False,
    }
    for name in FUNCTIONS
}


def _report(tool: str, result: int) -> str:
    global _runs
    _runs += 1
    note = "The service worked on this step and found nothing unusual"
    lines = [{"line": line, "status": "done", "note": f"{note} ({line} of 8)."} for line in range(1, 9)]
    return json.dumps({"tool": tool, "result": result, "lines": lines})


def finish(texts: list[str], ids: list[str]) -> None:
    print(json.dumps({"texts": texts, "ids": ids, "runs": _runs}))
