"""Where conversations come from. Each is read when its turn has come, in the process that replays it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.conversations import KINDS
from tests.benchmarks.peers.peer import Message

SEEDS = (1, 2, 3)  # of each kind


@dataclass(frozen=True, slots=True)
class Generated:
    """One of the project's own."""

    source: str
    seed: int
    size: int = 0

    def messages(self) -> list[Message]:
        return KINDS[self.source](self.seed)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of a JSON Lines file. `size` in bytes, `offset` where it begins."""

    path: Path
    number: int
    offset: int
    size: int

    @property
    def source(self) -> str:
        return self.path.stem

    def messages(self) -> list[Message]:
        """SystemExit, naming file and line, where the line holds no chat messages."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            line = file.read(self.size)
        try:
            value = json.loads(line)
            messages = value["messages"] if isinstance(value, dict) else value
        except (ValueError, KeyError):
            messages = None
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise SystemExit(f"{self.path}:{self.number}: no conversation")
        return messages


Conversation = Generated | Recorded


def generated() -> list[Conversation]:
    return [Generated(kind, seed) for kind in KINDS for seed in SEEDS]


def recorded(folder: Path) -> list[Conversation]:
    """Every line of the folder's `*.jsonl`. SystemExit where there is none."""
    found: list[Conversation] = [line for path in sorted(folder.glob("*.jsonl")) for line in _lines(path)]
    if not found:
        raise SystemExit(f"{folder}: no conversation in *.jsonl")
    return found


def _lines(path: Path) -> Iterator[Recorded]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield Recorded(path, number, offset, len(line))
            offset += len(line)
