"""LiteLLM's hooks under requests and replies of any kind, with a real store behind them.

No exception leaves a hook, and of a request none is caught by one either (`internal_error` stays 0). Of a reply the
client gets what the provider said, of a stream every chunk, in its order: all but the ids of calls that the history,
or the reply itself, holds already.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import orjson

from proxy_plugin.history.dialects import stem
from proxy_plugin.history.model import dump
from proxy_plugin.sessions.embedded import Endpoint
from tests.fuzz.bench import KEY, Thing, Worker, worker
from tests.fuzz.mutation import Mutant, anything, mutate

CALL_TYPES = {
    "chat": ("acompletion", "messages"),
    "messages": ("anthropic_messages", "messages"),
    "responses": ("aresponses", "input"),
}
_HEADERS = (
    "x-litellm-session-id",
    "x-session-id",
    "x-subtask-id",
    "x-proxy-plugin",
    "x-proxy-plugin-resume",
    "x-claude-code-session-id",
    "session_id",
)
_IDS = ("id", "call_id", "item_id")  # of a reply, that may be renamed
_NAMED = (*_IDS, "tool_call_id", "tool_use_id")
_DEEP = 14


@dataclass
class Tally:
    """handled: requests that did not pass as they came; unread: replies that are no objects of LiteLLM's, and so went
    to the client without being stored"""

    requests: int = 0
    handled: int = 0
    unread: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, fault: str, example: str) -> None:
        self.faults[fault] += 1
        self.examples.setdefault(fault, example)


def request(mutant: Mutant, rng: random.Random) -> dict[str, Any]:
    """A request as LiteLLM hands it to the hooks, hostile in all that a client decides."""
    wire = mutant.wire()
    body: dict[str, Any] = {"model": "gpt"}
    extras = {
        "metadata": {
            "session_id": rng.choice(["a", "b", anything(rng)]),
            "subtask_id": anything(rng),
            "agent": anything(rng),
            "subtask": {"id": rng.choice(["t", anything(rng)]), "depends_on": rng.choice([["t"], anything(rng)])},
        },
        "litellm_session_id": rng.choice(["a", anything(rng)]),
        "prompt_cache_key": anything(rng),
        "user": anything(rng),
        "system": anything(rng),
        "instructions": anything(rng),
        "previous_response_id": rng.choice(["resp_1", anything(rng)]),
        "conversation": rng.choice([{"id": "conv_1"}, anything(rng)]),
        "store": rng.choice([False, anything(rng)]),
        "tools": anything(rng),
    }
    for name in rng.sample(sorted(extras), rng.randrange(5)):
        body[name] = extras[name]
    if rng.random() < 0.2 and isinstance(body.get("metadata"), dict):
        body["metadata"] = anything(rng)
    headers = {
        name: rng.choice(["a", "b", "head", "off", "audit", "{x}", "é" * 300, ""]) for name in rng.sample(_HEADERS, 2)
    }
    key = CALL_TYPES[mutant.api][1]
    return {**body, key: wire, "proxy_server_request": {"headers": headers, "body": {**body, key: wire}}}


def reply(api: str, rng: random.Random) -> Any:
    """A provider's whole reply, with a few things wrong in it."""
    call = {
        "id": rng.choice(["call_1", "", "call_abc123"]),
        "type": "function",
        "function": {"name": "f", "arguments": "{"},
    }
    made: Any
    if api == "chat":
        message = {
            "role": "assistant",
            "content": "x",
            "tool_calls": [dict(call) for _ in range(rng.choice([0, 1, 3, 500]))],
        }
        made = {
            "id": "r",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": float("nan")},
        }
    elif api == "messages":
        use = {"type": "tool_use", "id": call["id"], "name": "f", "input": {}}
        made = {
            "id": "m",
            "role": "assistant",
            "content": [{"type": "text", "text": "x"}, use],
            "stop_reason": "tool_use",
        }
    else:
        item = {"type": "function_call", "id": "fc_1", "call_id": call["id"], "name": "f", "arguments": "{"}
        made = {"id": "resp_1", "status": "completed", "output": [item, dict(item)]}
    holder = [made]
    for _ in range(rng.randrange(3)):
        mutate(holder, rng)
    return holder[0] if holder else {}


async def fuzz(endpoint: Endpoint, number: int, requests: int, tally: Tally | None = None) -> Tally:
    tally = tally or Tally()
    async with worker(endpoint) as one:
        for at in range(requests):
            mutant = Mutant(number, at)
            await _one(one, mutant, random.Random(f"{number}/{at}/boundary"), tally)
            tally.requests += 1
    return tally


async def _one(one: Worker, mutant: Mutant, rng: random.Random, tally: Tally) -> None:
    call_type, key = CALL_TYPES[mutant.api]
    data = request(mutant, rng)
    held = _ids(data[key])
    before = one.faults
    try:
        headers = await one.pre(data, call_type)
        held |= _ids(data[key])
        tally.handled += headers is not None
        if one.faults > before:
            tally.note("a request was caught by the hook", repr(mutant))
        before = one.faults
        if rng.random() < 0.5:
            said = reply(mutant.api, rng)
            response = said if mutant.api == "messages" else Thing.of(said)
            came = _plain(response)
            await one.post(data, response)
            _compare([came], [_plain(response)], held, "a reply", tally, mutant)
        else:
            chunks = [Thing.of(reply(mutant.api, rng)) for _ in range(rng.randrange(4))]
            if mutant.api == "messages" and rng.random() < 0.5:
                chunks = _transported(chunks, rng)
            await _stream(one, data, chunks, held, tally, mutant)
    except Exception as error:
        tally.note(f"{type(error).__name__} left a hook", f"{mutant}: {error}")
    tally.unread += one.faults > before


def _transported(chunks: list[Any], rng: random.Random) -> list[Any]:
    """The blocks of these replies as server-sent events, as bytes or as text, cut anywhere."""
    blocks = [block for chunk in chunks for block in _blocks(_plain(chunk))]
    events = [
        {"type": "content_block_start", "index": index, "content_block": block} for index, block in enumerate(blocks)
    ]
    end = rng.choice(["\n\n", "\r\n\r\n", "\n"])
    named = rng.random() < 0.5
    head = "event: content_block_start" + end[: len(end) // 2 or 1] if named else ""
    raw = "".join(f"{head}data: {dump(event).decode()}{end}" for event in events)
    cuts = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randrange(6)))
    pieces = [raw[begin:stop] for begin, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    return [piece.encode() for piece in pieces] if rng.random() < 0.5 else list(pieces)


def _blocks(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else []


async def _stream(one: Worker, data: Any, chunks: list[Any], held: set[str], tally: Tally, mutant: Mutant) -> None:
    """Whatever the chunks are, all of them arrive, in their order. Of a stream of bytes, or of text, what was cut
    may be cut elsewhere: a line that could open a call waits for its end."""
    came = [_plain(chunk) for chunk in chunks]

    async def source() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    hook = one.plugin.async_post_call_streaming_iterator_hook
    got = [_plain(chunk) async for chunk in hook(KEY, source(), data)]
    _compare(joined(came), joined(got), held, "a stream", tally, mutant)


def joined(chunks: list[Any]) -> list[Any]:
    """With the lines of what came as bytes or text, each read if it is an event."""
    found: list[Any] = []
    for form, run in groupby(chunks, key=lambda chunk: type(chunk) if isinstance(chunk, str | bytes) else None):
        if form is None:
            found += run
            continue
        lines = form().join(run).split("\n" if form is str else b"\n")
        found += [form, *(_event(line) for line in lines)]
    return found


def _event(line: Any) -> Any:
    head, colon, value = line.partition(":" if isinstance(line, str) else b":")
    try:
        return [head, orjson.loads(value)] if colon else line
    except ValueError:
        return line


def _compare(came: list[Any], got: list[Any], held: set[str], what: str, tally: Tally, mutant: Mutant) -> None:
    renamed: list[Any] = []
    if not _same(came, got, renamed):
        tally.note(f"{what} was changed", repr(mutant))
    counted = Counter(_all_ids(came))
    taken = {stem(name) for name in held} | {stem(name) for name, times in counted.items() if times > 1}
    wrong = [old for old in renamed if not isinstance(old, str) or not old or stem(old) not in taken]
    if wrong:
        tally.note(f"{what} has another id where none was taken", f"{mutant}: {wrong}")


def _same(came: Any, got: Any, renamed: list[Any], depth: int = 0) -> bool:
    """Whether both are equal but for ids of calls and items; those that differ are added to `renamed` as they came. The
    item of a call whose id was taken may have another one beside it."""
    if depth > _DEEP:
        return True
    if type(came) is not type(got):
        return False
    if isinstance(came, list):
        return len(came) == len(got) and all(map(lambda a, b: _same(a, b, renamed, depth + 1), came, got))
    if not isinstance(came, dict):
        return dump(came) == dump(got)
    if list(came) != list(got):
        return False
    ids = [name for name in came if name in _IDS and dump(came[name]) != dump(got[name])]
    renamed += [came[name] for name in ids if not (name == "id" and "call_id" in ids)]
    return all(name in ids or _same(came[name], got[name], renamed, depth + 1) for name in came)


def _ids(value: Any) -> set[str]:
    return set(_all_ids(value))


def _all_ids(value: Any) -> Iterator[str]:
    stack = [(value, 0)]
    while stack:
        here, depth = stack.pop()
        if depth > _DEEP:
            continue
        if isinstance(here, dict):
            yield from (inner for name, inner in here.items() if name in _NAMED and isinstance(inner, str))
            stack += [(inner, depth + 1) for inner in here.values()]
        elif isinstance(here, list):
            stack += [(inner, depth + 1) for inner in here]


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy, with dicts for all objects."""
    if depth > _DEEP:
        return None
    if isinstance(value, Thing):
        value = {**value.__dict__, **(value.model_extra or {})}
    if isinstance(value, dict):
        return {name: _plain(inner, depth + 1) for name, inner in value.items()}
    return [_plain(inner, depth + 1) for inner in value] if isinstance(value, list) else value
