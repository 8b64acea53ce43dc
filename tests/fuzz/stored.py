"""A session with everything in it, and bytes of it that change: in Redis, where nobody promised to leave them alone.

Each mutation restores the whole session, harms one to three values (bytes turned, cut off, exchanged, gone; another
type of value under the key), and then does all that can be done with a session. No exception leaves a boundary,
nor is caught by one; every answer of the HTTP API is one of its own; what is sent upstream is what a healthy
store gives; and the next whole request puts back what it can.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis.exceptions import ResponseError

from proxy_plugin.sessions.embedded import Endpoint
from proxy_plugin.sessions.identity import address
from tests.fuzz.bench import Thing, Worker, worker

NAME = "s-1"
HEADERS = {"x-litellm-session-id": NAME}
Wire = list[dict[str, Any]]


def _round(number: int) -> Wire:
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": f'{{"order": {number}}}'}}
    rows = [{"id": f"ord_{number}{row:03}", "state": "open", "note": "as it was before " * 4} for row in range(8)]
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": orjson.dumps(rows).decode()},
    ]


def _request(wire: Wire, **metadata: Any) -> dict[str, Any]:
    body = {"model": "gpt", "messages": copy.deepcopy(wire), "metadata": metadata}
    return {**body, "proxy_server_request": {"headers": HEADERS, "body": {**body}}}


async def turn(one: Worker, wire: Wire, **metadata: Any) -> Any:
    """One request of a client and its reply. Returns what went upstream."""
    data = _request(wire, **metadata)
    await one.pre(data)
    sent = orjson.dumps(data["messages"])
    calls = len(wire) % 4 == 2
    message = _round(len(wire))[0] if calls else {"role": "assistant", "content": f"done with {len(wire)}"}
    await one.post(data, Thing.of({"choices": [{"message": message, "finish_reason": "stop"}]}))
    wire.append(message)
    return sent


async def told(one: Worker) -> Wire:
    """The conversation: subtasks of the client's, agents, an edit (two branches), snapshots, notes, a response that
    the provider keeps. Returns the client's list."""
    wire: Wire = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "find the orders"}]
    for number in range(3):
        await turn(one, wire, agent="scout", subtask={"id": f"task-{number}", "description": "look"})
        if wire[-1].get("tool_calls"):
            wire.append(_round(len(wire) - 1)[1])
            await turn(one, wire, agent="scout", subtask={"id": f"task-{number}", "description": "look"})
        wire.append({"role": "user", "content": f"and then {number}"})
    edited = [*wire[:-1], {"role": "user", "content": "rather something else"}]
    await turn(one, edited, agent="writer")
    await turn(one, wire, agent="writer", agent_reason="handed over")
    kept = {"model": "gpt", "input": "go on from here", "proxy_server_request": {"headers": HEADERS, "body": {}}}
    await one.pre(kept, "aresponses")
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "kept"}]}
    await one.post(kept, Thing.of({"id": "resp_1", "status": "completed", "output": [said]}))
    await one.settled(address(one.caller.tenant, NAME))
    for method, path, body in (
        ("PATCH", "", {"title": "t", "description": "d", "metadata": {"step": 1}, "aliases": ["one"]}),
        ("POST", "/snapshots", {"name": "now", "pin": True}),
        ("POST", "/subtasks", {"id": "open", "description": "still open", "depends_on": ["task-0"]}),
        ("POST", "/branches", {"name": "side"}),
    ):
        answer = await one.http.request(method, f"/sessions/{NAME}{path}", json=body)
        assert answer.is_success, answer.text
    wire.append({"role": "user", "content": "one thing more"})
    return wire


@dataclass
class Healthy:
    """What an unharmed session is: its keys as Redis dumps them, what goes upstream, and what can be asked."""

    keys: dict[bytes, tuple[bytes, int]]
    wire: Wire
    sent: bytes
    history: Any
    paths: list[tuple[str, str, Any]]


async def healthy(endpoint: Endpoint) -> Healthy:
    async with worker(endpoint) as one:
        await command(one, "FLUSHALL")
        wire = await told(one)
    async with worker(endpoint) as one:
        keys = await dumped(one)
        paths = [path async for path in _paths(one)]
        await restored(one, keys)
        sent, history = await _asked_again(one, wire)
    return Healthy(keys, wire, sent, history, paths)


async def command(one: Worker, *words: Any) -> Any:
    return await one.connection.command("execute_command", *words)


async def dumped(one: Worker) -> dict[bytes, tuple[bytes, int]]:
    keys = sorted(await command(one, "KEYS", "*"))
    return {key: (await command(one, "DUMP", key), await command(one, "PTTL", key)) for key in keys}


async def restored(one: Worker, keys: dict[bytes, tuple[bytes, int]]) -> None:
    async def write(client: Any) -> None:
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("FLUSHALL")
        for key, (value, ttl) in keys.items():
            pipeline.execute_command("RESTORE", key, max(ttl, 0), value)
        await pipeline.execute()

    await one.connection.call(write)


async def _asked_again(one: Worker, wire: Wire) -> tuple[bytes, Any]:
    """What goes upstream for the whole list, and what is told of the session after that and its reply."""
    own = copy.deepcopy(wire)
    sent = await turn(one, own, agent="writer")
    await one.settled(address(one.caller.tenant, NAME))
    answer = await one.http.get(f"/sessions/{NAME}/history")
    return sent, answer.json().get("messages")


async def _paths(one: Worker) -> AsyncIterator[tuple[str, str, Any]]:
    """Every route of a session, with ids that are there; those that read first."""
    base = f"/sessions/{NAME}"

    async def listed(part: str, key: str, name: str) -> list[str]:
        return [str(entry[name]) for entry in (await one.http.get(base + part)).json()[key]]

    nodes = await listed("/tree", "nodes", "id")
    snapshots = await listed("/snapshots", "snapshots", "snapshot_id")
    subtasks = await listed("/subtasks", "subtasks", "id")
    numbers = await listed("/requests", "requests", "n")
    for path in ("", "/history", "/history?branch=main", "/tree", "/branches", "/snapshots", "/subtasks", "/requests"):
        yield "GET", base + path, None
    for form in ("chat", "messages", "responses"):
        yield "GET", f"{base}/history?format={form}", None
    for path in (
        f"/agents/{NAME}/current",
        "/sessions",
        "/sessions?agent=writer",
        "/recovery",
        "/health",
        "/sessions/one",
    ):
        yield "GET", path, None
    for node in nodes[:: max(len(nodes) // 3, 1)]:
        yield "GET", f"{base}/nodes/{node}", None
        yield "GET", f"{base}/history?node={node}", None
    for number in numbers:
        yield "GET", f"{base}/requests/{number}", None
    yield "GET", base + "/search?q=order", None
    yield "GET", base + "/export", None
    yield "PATCH", base, {"title": "u", "aliases": ["one", "two"]}
    yield "POST", base + "/snapshots", {"name": "later"}
    yield "POST", base + "/branches", {"name": "third"}
    yield "POST", base + "/branches/side/switch", {}
    yield "PATCH", base + "/branches/side", {"name": "aside"}
    for snapshot in snapshots[:2]:
        yield "POST", f"{base}/snapshots/{snapshot}/restore", {}
    yield "DELETE", f"{base}/snapshots/{snapshots[-1]}", None
    yield "POST", base + "/subtasks", {"id": "new", "description": "new", "depends_on": subtasks[:1]}
    for subtask, end in zip(subtasks, ("complete", "fail", "rollback", "complete"), strict=False):
        yield "POST", f"{base}/subtasks/{subtask}/{end}", {}
    yield "DELETE", base + "/branches/aside", None


# Harm

Harm = Callable[[Worker, bytes, random.Random], Awaitable[str]]


def _bent(value: bytes, rng: random.Random) -> bytes:
    """The bytes, harmed."""
    kind = rng.randrange(9)
    raw = bytearray(value or b"0")
    place = rng.randrange(len(raw))
    if kind == 0:
        raw[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del raw[place:]
    elif kind == 2:
        del raw[place : place + rng.randrange(1, 9)]
    elif kind == 3:
        raw[place:place] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 4:
        raw = bytearray(rng.randbytes(len(raw)))
    elif kind == 5:
        raw[place : place + 4] = b"\xff\xff\xff\xff"
    elif kind == 6:
        return rng.choice([b"", b"{", b"null", b"[]", b"{}", b"0", b"-1", b"9" * 40, b"NaN", b'"\\ud800"', b"[[[["])
    elif kind == 7:
        return b"[" * 100_000
    else:
        raw *= 2
    return bytes(raw)


async def harm(one: Worker, key: bytes, rng: random.Random) -> str:
    """Something in or of the key; says what."""
    kind = (await command(one, "TYPE", key)).decode()
    name = key.decode().rpartition(":")[2]
    choice = rng.randrange(12)
    if choice == 0:
        await command(one, "DEL", key)
        return f"{name} gone"
    if choice == 1:
        await command(one, "DEL", key)
        words = rng.choice([("SET", key, "text"), ("RPUSH", key, "a"), ("SADD", key, "a"), ("HSET", key, "a", "b")])
        await command(one, *words)
        return f"{name} a {words[0]}"
    if kind == "hash":
        field = rng.choice(sorted(await command(one, "HKEYS", key)))
        if choice == 2:
            await command(one, "HDEL", key, field)
            return f"{name}.{field!r} gone"
        if choice == 3:
            others = sorted(await command(one, "HKEYS", key))
            await command(one, "HSET", key, field, await command(one, "HGET", key, rng.choice(others)))
            return f"{name}.{field!r} another's"
        if choice == 4:
            await command(one, "HSET", key, _bent(field, rng), await command(one, "HGET", key, field))
            return f"{name}.{field!r} beside"
        await command(one, "HSET", key, field, _bent(await command(one, "HGET", key, field), rng))
        return f"{name}.{field!r} bent"
    if kind == "string":
        await command(one, "SET", key, _bent(await command(one, "GET", key), rng), "KEEPTTL")
    elif kind == "list":
        at = rng.randrange(await command(one, "LLEN", key))
        await command(one, "LSET", key, at, _bent(await command(one, "LINDEX", key, at), rng))
    elif kind in ("set", "zset"):
        members = sorted(
            await command(one, "SMEMBERS" if kind == "set" else "ZRANGE", key, *([] if kind == "set" else [0, -1]))
        )
        member = rng.choice(members)
        await command(one, "SREM" if kind == "set" else "ZREM", key, member)
        scored = [] if kind == "set" else [rng.choice([0, -1, 1e18, "+inf", "-inf"])]
        await command(one, "SADD" if kind == "set" else "ZADD", key, *scored, rng.choice([member, _bent(member, rng)]))
    return f"{name} bent"


@dataclass
class Tally:
    """faults: what was wrong, with how often; statuses of the HTTP API; whole: how often the next whole request put
    everything back, of how many"""

    mutations: int = 0
    whole: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, fault: str, example: str) -> None:
        self.faults[fault] += 1
        self.examples.setdefault(fault, example)


async def fuzz(endpoint: Endpoint, number: int, mutations: int, tally: Tally | None = None) -> Tally:
    tally = tally or Tally()
    sound = await healthy(endpoint)
    for mutation in range(mutations):
        async with worker(endpoint) as one:
            await _one(one, sound, random.Random(f"{number}/{mutation}"), tally, f"{number}/{mutation}")
        tally.mutations += 1
    return tally


async def _one(one: Worker, sound: Healthy, rng: random.Random, tally: Tally, name: str) -> None:
    await restored(one, sound.keys)
    if rng.random() < 0.5:  # a worker that knows the session already
        await turn(one, copy.deepcopy(sound.wire[:-1]), agent="writer")
        await one.settled(address(one.caller.tenant, NAME))
    harmed = [await harm(one, rng.choice(sorted(sound.keys)), rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    said = f"{name}: {', '.join(harmed)}"
    steps = list(sound.paths) if rng.random() < 0.7 else rng.sample(sound.paths, 12)
    first = rng.random() < 0.5
    if first:
        await _again(one, sound, tally, said)
    for method, path, body in steps:
        await _call(one, method, path, body, tally, said)
    for work in (one.sessions.recovery.look, one.sessions.index.flush):
        try:
            await work()
        except Exception as error:
            tally.note(f"{work.__qualname__}: {type(error).__name__}", f"{said}: {error}")
    if not first:
        await _again(one, sound, tally, said)
    await _call(one, "DELETE", f"/sessions/{NAME}", None, tally, said)
    if one.faults:
        tally.note("caught by a hook", said)


async def _again(one: Worker, sound: Healthy, tally: Tally, said: str) -> None:
    sent, history = await _asked_again(one, sound.wire)
    if sent != sound.sent:
        tally.note("what went upstream is not what a healthy store gives", said)
    tally.whole += history == sound.history


async def _call(one: Worker, method: str, path: str, body: Any, tally: Tally, said: str) -> None:
    try:
        answer = await one.http.request(method, path, json=body)
    except ResponseError as error:
        if not path.endswith("/export"):  # which breaks off, so that nobody takes what came for the whole
            tally.note(f"{method} {path}: {type(error).__name__}", f"{said}: {error}")
        return
    except Exception as error:
        tally.note(f"{method} {path}: {type(error).__name__}", f"{said}: {error}")
        return
    tally.statuses[answer.status_code] += 1
    if answer.status_code == 500 and answer.json()["error"]["type"] != "store_damaged":
        tally.note(f"{method} {path}: 500", said)
    elif not answer.is_success:
        error = answer.json().get("error", {})
        if error.keys() != {"message", "type", "param", "code"}:
            tally.note(f"{method} {path}: an error in another shape", f"{said}: {answer.text[:200]}")
