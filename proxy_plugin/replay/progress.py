"""A progress bar on stderr where that is a terminal, and lines above it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts bytes. Without a terminal (or without rich) only `say` does something."""

    def __init__(self, total: int) -> None:
        self._bar: Any = _bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task("replaying", total=max(total, 1)) if self._bar else None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, count: int) -> None:
        if self._bar:
            self._bar.advance(self._task, count)

    def say(self, line: str) -> None:
        """One line on stderr."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import Progress as Bar
    except ImportError:  # LiteLLM's proxy brings it, but nothing here hangs on it
        return None
    return Bar(console=Console(stderr=True), transient=True)
