"""Time of one edit at 400 messages, in floors: one orjson dump and one sha256 of every message.

The newest requests of one conversation, after the one before them, so that whoever keeps state has it.
Only `edit` is timed; floor and edit in turn, so that a busy machine slows both.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from time import perf_counter

import orjson

from tests.benchmarks.conversations import conversation, requests
from tests.benchmarks.peers.peer import Editor
from tests.benchmarks.rewriting import floor, timed

MESSAGES = 400
REQUESTS = 25
SECONDS = 4.0  # a slow tool is timed on fewer requests, on three at least


@dataclass(frozen=True, slots=True)
class Timing:
    milliseconds: float  # p50
    floors: float  # p50 relative to the floor's


def measure(editor: Editor) -> Timing | None:
    """None if the tool fails on this conversation."""
    bodies = [orjson.dumps(wire) for wire in requests(conversation(MESSAGES))[-REQUESTS - 1 :]]
    floors, edits = [], []
    end = perf_counter() + SECONDS
    try:
        editor(orjson.loads(bodies[0]))
        for number, body in enumerate(bodies[1:]):
            if number >= 3 and perf_counter() > end:
                break
            wire = orjson.loads(body)
            floors.append(timed(lambda wire=wire: floor(wire)))
            native = editor.read(orjson.loads(body))
            edits.append(timed(lambda native=native: editor.edit(native)))
    except Exception:
        return None
    middle = statistics.median(edits)
    return Timing(middle * 1e3, middle / statistics.median(floors))
