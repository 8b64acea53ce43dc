"""Conversations for benchmarks, made by the project: plans of subtasks with JSON and text results."""

from __future__ import annotations

import json
import random
from typing import Any

Message = dict[str, Any]


def conversation(messages: int, *, rounds: int = 5, seed: int = 7) -> list[Message]:
    """About `messages` messages that end where the model is to reply; subtasks of `rounds` tool rounds each.
    A result is 0.5-3 KB: rows of a table, a record, or a listing."""
    chance = random.Random(seed)
    out: list[Message] = [{"role": "system", "content": "You are a careful agent. " * 40}]
    number = 0
    while len(out) < messages:
        number += 1
        out.append({"role": "user", "content": f"Subtask {number}: look after customer {chance.randrange(10**6)}."})
        for turn in range(rounds):
            call_id = f"call_{number:04d}{turn:02d}{chance.randrange(16**12):012x}"
            arguments = json.dumps({"customer_id": chance.randrange(10**6), "limit": 20})
            call = {"id": call_id, "type": "function", "function": {"name": f"tool_{turn}", "arguments": arguments}}
            out.append({"role": "assistant", "content": None, "tool_calls": [call]})
            out.append({"role": "tool", "tool_call_id": call_id, "content": _result(chance)})
        out.append({"role": "assistant", "content": f"Subtask {number} is done: all {rounds} checks passed."})
    del out[messages:]
    while out[-1]["role"] != "tool":
        out.pop()
    return out


def _result(chance: random.Random) -> str:
    kind = chance.randrange(3)
    if kind == 0:
        rows = [
            {"id": f"ord_{chance.randrange(16**8):08x}", "amount": chance.randrange(10**5) / 100, "status": "shipped"}
            for _ in range(chance.randrange(8, 30))
        ]
        return json.dumps({"orders": rows})
    if kind == 1:
        return json.dumps({f"field_{n}": f"value {chance.randrange(10**9)}" for n in range(chance.randrange(20, 60))})
    return "\n".join(f"-rw-r--r-- 1 app app {chance.randrange(10**6)} src/m{n}/file_{n}.py" for n in range(40))


def requests(wire: list[Message]) -> list[list[Message]]:
    """The requests that an agent has sent on its way: what stood before each assistant message, and all."""
    ends = [index for index, message in enumerate(wire) if index and message["role"] == "assistant"]
    return [wire[:end] for end in [*ends, len(wire)]]
