"""What came with each request and what left, in the session's `requests` hash.

    n             how many there were so far
    o             number of the oldest that is kept; u: an older version began the hash, and counted nothing in it
    r:<number>    token of the request, "+", id of its last step or dashes (16), id of its rules (16), then its record
                  (history/account.py), as a body; without what begins with "+" where an older version wrote it
    t:<token>     number of the record: writing it twice makes one
    s:<id>        rules: settings and target that a request was rewritten by
    w:<id>        one step of a list as it came: id of the step before or dashes (16), "n" + id of a node or "l" + id
                  of a lead (33), then the residual of the message (history/residual.py), as a body
    c:<field>     by how many more than one a step or rules are needed: records, and steps behind a step

A step's id is a hash over the one before it and the bytes of the message, so that requests that begin alike share
their steps, and a text stands once, in the tree. With the oldest record everything goes that only it needed. All of
it counts among the session's bytes, and where the session comes near its limit the oldest records give way.

A record needs what the rewriting made, which waits for the commit of the request; so it is written behind it, in
the background. What cannot be written is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from proxy_plugin.history.account import Account, rebuilt, withheld
from proxy_plugin.history.redaction import is_redacted
from proxy_plugin.history.residual import filled, residual
from proxy_plugin.history.wire.stored import parsed
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.reader import CHUNK_ITEMS
from proxy_plugin.sessions.recent import Recent
from proxy_plugin.sessions.records import readable

MAX_WAITING = 64
MAX_REBUILT = 256_000_000
"""Bytes of a list that is made again."""
MOST_NUMBERED = 1 << 48
"""Records of a session; what says more is damaged."""
STEP_BYTES = 8
NO_STEP, NO_LEAD = "-" * 16, "-" * 32
_STEP, STEP_HEAD = 16, 49
_TOKEN, _RECORD = 16, 49
_COUNTED = "+"
_TIPS_KNOWN, _RULES_KNOWN = 16, 8
_log = logging.getLogger("proxy_plugin")


@dataclass(frozen=True, slots=True)
class Stored:
    """How a request's commit was stored. `address`: of its session. `alone`: as Commit.alone. `written`: how many of
    its last nodes it wrote itself, so that what is kept of them is what it said."""

    address: Address
    alone: bool = False
    written: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request to be noted.

    lead       id of the leading text, or ""
    nodes      of each message as it came: the node that it is; "" for leading system text
    steps      their steps' ids, STEP_BYTES each, one behind the other
    fragments  the messages' bytes, from one on
    written    how many of the last ones are kept in just these bytes
    record     without its `tip` and `rules`"""

    address: Address
    token: str
    lead: str
    nodes: Sequence[str]
    steps: bytes
    fragments: Callable[[int], Sequence[bytes]]
    written: int
    rules: bytes
    record: dict[str, Any]

    def step(self, index: int) -> str:
        return self.steps[STEP_BYTES * index : STEP_BYTES * (index + 1)].hex()

    @property
    def tip(self) -> str:
        """The last step, "" where there is none."""
        return self.steps[-STEP_BYTES:].hex()


@dataclass(frozen=True, slots=True)
class Page:
    """Records, newest first: (number, record). `cursor`: where the next page begins, None at the end."""

    records: tuple[tuple[int, dict[str, Any]], ...]
    total: int
    cursor: int | None


class RequestStore:
    """Raises redis-py's errors, but for `note`.

    keep          records a session, 0 for none
    most_bytes    of a session, that records may fill it up to; 0 for any
    most_waiting  bytes of what waits to be noted"""

    def __init__(self, connection: Connection, keep: int, most_bytes: int, most_waiting: int, ttl_ms: int) -> None:
        self.keep = keep
        self._most_bytes = most_bytes
        self._codec = connection.codec
        self._connection = connection
        self._ttl_ms = ttl_ms
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[Callable[[], Request], int]] = deque()
        self._waiting_bytes = 0
        self._known: Recent = Recent(1_000)  # session -> _Known
        self._writing: asyncio.Task[None] | None = None

    def note(self, make: Callable[[], Request], size: int) -> None:
        """Writes what `make` gives, soon, and holds so many bytes until then. Where too many wait, or too much, the
        oldest are left out, but for the newest of all. Never raises."""
        self._waiting.append((make, size))
        self._waiting_bytes += size
        while len(self._waiting) > 1 and (len(self._waiting) > MAX_WAITING or self._waiting_bytes > self._most_waiting):
            self._next()
        here = asyncio.get_running_loop()
        if self._writing is None or self._writing.done() or self._writing.get_loop() is not here:
            self._writing = here.create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            try:
                await self.write(self._next()())
            except Exception as error:
                _log.debug("a request is not noted: %s", type(error).__name__)

    def _next(self) -> Callable[[], Request]:
        make, size = self._waiting.popleft()
        self._waiting_bytes -= size
        return make

    async def settled(self) -> None:
        """Returns when what this worker has to note is written."""
        if self._writing is not None and self._writing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({self._writing})

    async def write(self, request: Request) -> int:
        """The number of the record, 0 where the session is gone or has no room for it."""
        names, place = keys.of_session(request.address), (request.address.tag, request.address.session_id)
        known: _Known = self._known.get(place) or _Known()
        base = known.base(request)
        for _ in range(3):
            if not base:
                base = await self._stored(names, request)
            rules = sha256(request.rules).hexdigest()[:16]
            number = await self._write(names, request, base, rules, told=rules not in known.rules)
            if number >= 0:
                known.add(request.tip, rules)
                self._known.put(place, known)
                return number
            base, known = 0, _Known()
        return 0

    async def _stored(self, names: SessionKeys, request: Request) -> int:
        """How many of the first steps are stored."""
        fields = ["w:" + request.step(index) for index in range(len(request.nodes))]
        return int(await self._connection.run("probe", [names.requests], fields)) if fields else 0

    async def _write(self, names: SessionKeys, request: Request, base: int, rules: str, *, told: bool) -> int:
        tip, encode = request.tip, self._codec.encode
        record = {**request.record, "tip": tip, "rules": rules}
        body = encode(orjson.dumps(record), names.requests, "r:" + request.token)
        args: list[str | bytes | int] = [
            request.token,
            self._ttl_ms,
            self.keep,
            self._most_bytes,
            "w:" + request.step(base - 1) if base else "",
            "s:" + rules,
            encode(request.rules, names.requests, "s:" + rules) if told else b"",
            stored_record(request.token, tip, rules, body),
        ]
        fragments = request.fragments(base)
        stored = await self._kept(names, request, base, fragments)
        before = request.step(base - 1) if base else NO_STEP
        for index, (fragment, message) in enumerate(zip(fragments, stored, strict=True), base):
            node, step = request.nodes[index], request.step(index)
            of = "n" + node if node else "l" + (request.lead or NO_LEAD)
            args += (
                "w:" + step,
                f"{before}{of}".encode() + encode(residual(fragment, message), names.requests, "w:" + step),
            )
            before = step
        return int(await self._connection.run("requested", [names.meta, names.requests, names.tomb], args))

    async def _kept(self, names: SessionKeys, request: Request, base: int, fragments: Sequence[bytes]) -> Sequence[Any]:
        """What is kept of each message from `base` on, parsed. Only what others have stored is asked for."""
        nodes = request.nodes[base:]
        written = len(nodes) - request.written
        asked = [node for node in nodes[: max(0, written)] if node]
        stored = await self._bodies(names, asked)
        bodies = {node: self._codec.read(body, names.bodies, node) for node, body in stored.items()}
        lead = await self._lead(names, request.lead) if "" in nodes else None
        return [
            lead if not node else _wire(bodies[node]) if index < written else parsed(fragments[index])
            for index, node in enumerate(nodes)
        ]

    async def newest(self, address: Address) -> int:
        """The number of the newest record, 0 where there is none."""
        return (await self._numbers(address))[1]

    async def _numbers(self, address: Address) -> tuple[int, int]:
        """The first number that is kept, and the last one; (1, 0) where there is none."""
        if not address.session_id:
            return 1, 0
        oldest, newest = await self._connection.command("hmget", keys.of_session(address).requests, ["o", "n"])
        last = readable(_number, newest) or 0
        return max(readable(_number, oldest) or 1, last - self.keep + 1 if self.keep else 1), last

    async def page(self, address: Address, limit: int, before: int | None = None) -> Page:
        """Newest first. `before`: only those of lower numbers."""
        key, (oldest, newest) = keys.of_session(address).requests, await self._numbers(address)
        first = newest if before is None else min(newest, before - 1)
        numbers = list(range(first, max(oldest, first - limit + 1) - 1, -1))
        found = await self._connection.command("hmget", key, [f"r:{n}" for n in numbers]) if numbers else []
        records = [(n, readable(self._record, key, value)) for n, value in zip(numbers, found, strict=True)]
        known = tuple((n, record) for n, record in records if record is not None)
        more = bool(numbers) and numbers[-1] > oldest
        return Page(known, max(0, newest - oldest + 1), numbers[-1] if more else None)

    async def record(self, address: Address, number: int) -> dict[str, Any] | None:
        """None where there is none of this number, or no longer."""
        if not address.session_id:
            return None
        key = keys.of_session(address).requests
        return readable(self._record, key, await self._connection.command("hget", key, f"r:{number}"))

    def _record(self, key: str, stored: bytes) -> dict[str, Any]:
        token, body = record_of(stored)
        record: dict[str, Any] = orjson.loads(self._codec.read(body, key, "r:" + token) or b"")
        return record

    async def _lead(self, names: SessionKeys, lead: str) -> Any:
        """None where it is damaged or gone."""
        body = self._codec.read(await self._connection.command("hget", names.leads, lead), names.leads, lead)
        return parsed(body)

    async def rebuild(self, address: Address, record: dict[str, Any]) -> Account | None:
        """What came and what left; None where what it is made of is damaged, or gone with its branch."""
        try:
            return await self._rebuilt(address, record)
        except (ValueError, LookupError, TypeError, AttributeError):
            return None

    async def _rebuilt(self, address: Address, record: dict[str, Any]) -> Account | None:
        if is_redacted(record):
            return withheld(record)
        names = keys.of_session(address)
        of_rules = "s:" + record["rules"]
        stored_rules = await self._connection.command("hget", names.requests, of_rules)
        rules = self._codec.read(stored_rules, names.requests, of_rules)
        steps = await self._steps(names, record["tip"])
        if steps is None:
            return None
        of = [step[_STEP:STEP_HEAD].decode() for _, step in steps]
        bodies = await self._bodies(names, [name[1:] for name in of if name[0] == "n"])
        leads = {name: await self._lead(names, name[1:]) for name in {name for name in of if name[0] == "l"}}
        return await asyncio.to_thread(_rebuild, self._codec, names, record, rules, steps, of, bodies, leads)

    async def _steps(self, names: SessionKeys, tip: str) -> list[tuple[str, bytes]] | None:
        """Field and value of each step of a list, in its order; None where one is missing, or they lead in a circle."""
        steps: dict[str, bytes] = {}
        at = tip
        while at and not at.startswith("-"):
            reply = await self._connection.run("requested_walk", [names.requests], [at, CHUNK_ITEMS])
            if len(reply) % 2:
                return None
            found = {f"w:{step.decode()}": value for step, value in zip(reply[::2], reply[1::2], strict=True)}
            if len(found) < len(reply) // 2 or not found.keys().isdisjoint(steps):
                return None
            steps |= found
            at = reply[-1][:_STEP].decode()
        return list(reversed(steps.items()))

    async def _bodies(self, names: SessionKeys, nodes: Sequence[str]) -> dict[str, bytes | None]:
        """As they are stored, in bounded replies."""
        bodies: dict[str, bytes | None] = {}
        wanted = list(dict.fromkeys(nodes))
        for begin in range(0, len(wanted), CHUNK_ITEMS):
            piece = wanted[begin : begin + CHUNK_ITEMS]
            bodies |= zip(piece, await self._connection.command("hmget", names.bodies, piece), strict=True)
        return bodies

    async def close(self) -> None:
        await self.settled()


def _rebuild(
    codec: Codec,
    names: SessionKeys,
    record: dict[str, Any],
    rules: bytes | None,
    steps: list[tuple[str, bytes]],
    of: list[str],
    bodies: dict[str, bytes | None],
    leads: dict[str, Any],
) -> Account | None:
    try:
        fragments: list[bytes] = []
        size = 0
        for (field, step), name in zip(steps, of, strict=True):
            kept, node = codec.read(step[STEP_HEAD:], names.requests, field), name[1:]
            stored = leads[name] if name[0] == "l" else _wire(codec.read(bodies[node], names.bodies, node))
            if kept is None or (not kept and stored is None):
                return None
            fragments.append(filled(kept, stored))
            size += len(fragments[-1])
            if size > MAX_REBUILT:
                return None  # an import may name one large message again and again
        nodes = [name[1:] if name[0] == "n" else "" for name in of]
        return rebuilt(record, orjson.loads(rules or b""), fragments, nodes)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def stored_record(token: str, tip: str, rules: str, body: bytes) -> bytes:
    return f"{token}{_COUNTED}{tip or NO_STEP}{rules}".encode() + body


def record_of(stored: bytes) -> tuple[str, bytes]:
    """Token of a stored record, which names it since its number is given out by the script, and its body."""
    begin = _RECORD if stored[_TOKEN : _TOKEN + 1] == _COUNTED.encode() else _TOKEN
    return stored[:_TOKEN].decode(), stored[begin:]


def body_of(field: str, stored: bytes) -> tuple[str, bytes]:
    """The body in a field of the hash, b"" for one that holds none, and the name that it is bound to."""
    match field[:2]:
        case "r:":
            token, body = record_of(stored)
            return "r:" + token, body
        case "w:":
            return field, stored[STEP_HEAD:]
        case "s:":
            return field, stored
    return field, b""


def _number(stored: bytes) -> int:
    number = int(stored)
    if not 0 < number <= MOST_NUMBERED:
        raise ValueError("no number of a record")
    return number


def _wire(body: bytes | None) -> Any:
    """The message as it is kept; None where it is damaged or gone."""
    value = parsed(body)
    return value.get("wire") if isinstance(value, dict) else None


class _Known:
    """What this worker knows to be stored of a session's requests: the last steps of some, and rules."""

    def __init__(self) -> None:
        self.rules: Recent = Recent(_RULES_KNOWN)
        self._tips: Recent = Recent(_TIPS_KNOWN)

    def add(self, tip: str, rules: str) -> None:
        self.rules.put(rules, None)
        if tip:
            self._tips.put(tip, None)

    def base(self, request: Request) -> int:
        """How many of the first steps are taken as stored."""
        if not self._tips:
            return 0
        behind = range(len(request.nodes), 0, -1)
        return next((index for index in behind if request.step(index - 1) in self._tips), 0)
