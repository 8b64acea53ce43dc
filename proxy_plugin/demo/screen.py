"""The demo's terminal output: plain lines of at most 100 columns, colours only where they are wanted."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TextIO

from proxy_plugin.history.model import dump

Json = dict[str, Any]

WIDTH = 100
_LABEL = 24
_CELL = 42
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "cyan": "36"}


class Row(NamedTuple):
    """One message as it came and as it was sent on; None where it is not there."""

    came: Json | None
    sent: Json | None
    added: bool = False  # the plugin's own


class Screen:
    """Writes to `out`. Every line appears at once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        if reconfigure := getattr(out, "reconfigure", None):
            reconfigure(errors="replace")  # a terminal that knows ASCII alone

    def say(self, text: str = "", *, end: str = "\n") -> None:
        print(text, file=self._out, end=end, flush=True)

    def title(self, text: str) -> None:
        rule = "─" * max(WIDTH - len(text) - 4, 0)
        self.say(f"\n{self.paint('bold', f'── {text}')} {self.paint('dim', rule)}\n")

    def pair(self, name: str, text: str, style: str = "") -> None:
        """A name and what belongs to it, wrapped under itself."""
        wrapped = textwrap.wrap(text, WIDTH - 14, break_long_words=False, break_on_hyphens=False) or [""]
        for number, line in enumerate(wrapped):
            self.say(f"    {name if number == 0 else '':<9} {self.paint(style, line)}")

    def paint(self, style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour and style else text

    def table(self, rows: Sequence[Row]) -> None:
        """Messages side by side: what came and what became of it."""
        for row in rows:
            came, left_as = _cell(row.came), _cell(row.sent, "summary" if row.added else "")
            style = "cyan" if row.added else "dim" if row.sent is None else ""
            for first, second in zip_longest(came, left_as, fillvalue=""):
                self.beside(first, second, style)

    def beside(self, left: str, right: str, style: str = "") -> None:
        """Two texts, one for each column of the table."""
        self.say(f"    {self.paint(style, f'{left:<{_CELL}}')}  {self.paint(style, right)}".rstrip())


def align(came: Sequence[Json], sent: Sequence[Json]) -> list[Row]:
    """Two forms of one history, row by row. A message is the same in both if it says the same; its ids may
    have changed."""
    rows: list[Row] = []
    position = 0
    for message in sent:
        same = next((i for i in range(position, len(came)) if _says(came[i]) == _says(message)), None)
        if same is None:
            rows.append(Row(None, message, added=True))
            continue
        gone = list(came[position:same])
        if gone and rows and rows[-1].added:
            rows[-1] = rows[-1]._replace(came=gone.pop(0))
        rows += [Row(other, None) for other in gone]
        rows.append(Row(came[same], message))
        position = same + 1
    return rows + [Row(other, None) for other in came[position:]]


def _says(message: Json) -> Any:
    calls = [call["function"] for call in message.get("tool_calls") or []]
    return message["role"], message.get("content") or "", calls


def size(value: Any) -> int:
    """Bytes of its JSON."""
    return len(dump(value))


def shorten(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _cell(message: Json | None, label: str = "") -> list[str]:
    if message is None:
        return []
    ids = [str(call["id"]) for call in message.get("tool_calls") or []]
    if message["role"] == "tool":
        ids = [str(message["tool_call_id"])]
    labels = [label] if label else ids or [f'"{shorten(str(message.get("content") or ""), _LABEL - 2)}"']
    lines = [f"{message['role']:<9} {labels[0]:<{_LABEL}} {size(message):>6,}"]
    return lines + [f"{'':<9} {more}" for more in labels[1:]]
