"""What the clients of a load run say, made beforehand: recordings of agents' conversations, and who sends which
part of them when.

A recording's assistant messages follow from their place alone (`reply`), so that the provider, which is another
process, answers with what stands next in the recording, and the next request carries just what the proxy gave.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson

from tests.benchmarks.conversations import conversation

Message = dict[str, Any]

ROUNDS = 5
BURST = 6
"""Requests that a client sends for one session before it takes up another: a subtask."""
BURSTS = 3
_WORDS = "all five checks passed, nothing is left to do and the customer was told."


def mark(number: int, index: int) -> str:
    """Where a message stands: recording and index."""
    return f"r{number:05}x{index:04}"


def place_after(body: bytes) -> tuple[int, int]:
    """Recording and index of the message that a request asks for, from the newest mark in it. ValueError where
    there is none."""
    call, turn = body.rfind(b"call_r"), body.rfind(b"turn_r")
    at = max(call, turn) + len(b"call_r")
    return int(body[at : at + 5]), int(body[at + 6 : at + 10]) + (2 if call > turn else 1)


def collapsible(number: int) -> bool:
    """Whether a recording has finished subtasks; every fourth is one long subtask."""
    return number % 4 != 3


def reply(number: int, index: int) -> Message:
    """The assistant message at `index`."""
    if collapsible(number) and index % (2 * ROUNDS + 2) == 0:
        return {"role": "assistant", "content": f"Done, say_{mark(number, index)}: {_WORDS}"}
    function = {"name": f"tool_{index % 5}", "arguments": json.dumps({"customer_id": number + index, "limit": 20})}
    call = {"id": f"call_{mark(number, index)}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def told(number: int, index: int) -> bytes:
    """What of a reply reaches the client in one piece, streamed or not."""
    said = reply(number, index)
    return (said["tool_calls"][0]["id"] if said["content"] is None else f"say_{mark(number, index)}").encode()


class Recording:
    """One conversation: the JSON of each message, and the indexes of the replies that its sessions ask for."""

    def __init__(self, number: int, messages: int) -> None:
        """`messages`: of the first request, about."""
        self.number = number
        length = messages + 2 * (BURST * BURSTS + 1) + 4
        wire = conversation(length, rounds=ROUNDS if collapsible(number) else length, seed=number)
        for index, message in enumerate(wire):
            if message["role"] == "assistant":
                wire[index] = reply(number, index)
            elif message["role"] == "tool":
                message["tool_call_id"] = f"call_{mark(number, index - 1)}"
            elif message["role"] == "user":
                message["content"] += f" turn_{mark(number, index)}"
        self.opening = str(wire[1]["content"])
        self.fragments = [orjson.dumps(message) for message in wire]
        replies = [index for index, message in enumerate(wire) if message["role"] == "assistant"]
        first = next(at for at, index in enumerate(replies) if index >= min(messages, replies[-1 - BURST * BURSTS]))
        self.asked = replies[first : first + 1 + BURST * BURSTS]


def recordings(amount: int, shortest: int, longest: int, *, only_collapsible: bool = False) -> list[Recording]:
    """First requests of `shortest` messages to what grows to `longest`, their logarithms spread evenly, in random
    order."""
    numbers = [n for n in range(2 * amount) if collapsible(n) or not only_collapsible][:amount]
    longest = max(shortest, longest - 2 * BURST * BURSTS - 4)
    step = math.log(longest / shortest) / max(1, amount - 1)
    sizes = [round(shortest * math.exp(step * position)) for position in range(amount)]
    random.Random(amount).shuffle(sizes)
    return [Recording(number, size) for number, size in zip(numbers, sizes, strict=True)]


@dataclass
class Session:
    """One agent's conversation with one proxy. Every second one names its session, the others are found by their
    opening. An agent waits for each reply: `lock`."""

    name: str
    named: bool
    recording: Recording
    key: str = ""  # the session's id as the proxy says, without the number behind the opening's hash
    acknowledged: int = 0  # index of the newest reply that the client has
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def _opening(self) -> bytes:
        return orjson.dumps({"role": "user", "content": f"{self.name}: {self.recording.opening}"})

    def history(self, index: int) -> bytes:
        """JSON of the messages in front of `index`."""
        fragments = self.recording.fragments
        return b"[%s]" % b",".join([fragments[0], self._opening(), *fragments[2:index]])

    def body(self, index: int, *, stream: bool) -> bytes:
        name = {"litellm_session_id": self.name} if self.named else {}
        head = orjson.dumps({"model": "gpt", "stream": stream, **name})
        return b'%s,"messages":%s}' % (head[:-1], self.history(index))


Ask = tuple[Session, int]
"""Whose turn it is, and the index of the reply that is asked for."""


def script(
    kind: str, made: Sequence[Recording], sessions: int, working: int, *, all_first: bool = False
) -> Iterator[Ask]:
    """Endless: `working` sessions at a time, a subtask each, in turn; those that have come to the end of their
    recording give way to new ones. `all_first`: before that every session once."""
    for generation in count():
        live = [Session(f"{kind}-{generation}-{n}", n % 2 == 0, made[n % len(made)]) for n in range(sessions)]
        if all_first:
            yield from ((session, session.recording.asked[0]) for session in live)
        for burst in range(BURSTS):
            for first in range(0, sessions, working):
                for turn in range(1 + burst * BURST, 1 + (burst + 1) * BURST):
                    yield from ((s, s.recording.asked[turn]) for s in live[first : first + working])
