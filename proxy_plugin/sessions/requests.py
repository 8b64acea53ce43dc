"""What came with each request and what left, in the session's `requests` hash.

    n             how many there were so far
    r:<number>    token of the request, then its record (history/account.py), as a body
    t:<token>     number of the record: writing it twice makes one
    s:<id>        settings and target that a request was rewritten by
    w:<id>        one step of a list as it came: id of the step before or dashes (16), "n" + id of a node or "l" + id
                  of a lead (33), then the residual of the message (history/residual.py), as a body

A step's id is a hash over the one before it and the bytes of the message, so that requests that begin alike share
their steps, and a text stands once, in the tree. A record needs what the rewriting made, which waits for the
commit of the request; so it is written behind it, in the background. What cannot be written is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from proxy_plugin.history.account import Account, rebuilt
from proxy_plugin.history.residual import filled, residual
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.bodies import decode_body, encode_body
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.reader import CHUNK_ITEMS
from proxy_plugin.sessions.recent import Recent
from proxy_plugin.sessions.records import readable, stored_body

MAX_WAITING = 64
_STEP, _HEAD = 16, 49
_TOKEN = 16
_NONE = "-" * _STEP
_log = logging.getLogger("proxy_plugin")


class Part(NamedTuple):
    """One message as it came: its fragment, and the node that it is; "" for leading system text."""

    node: str
    fragment: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One request to be noted. `record`: without its `tip` and `rules`; `lead`: id of the leading text, or ""."""

    address: Address
    token: str
    lead: str
    parts: Sequence[Part]
    rules: bytes
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Records, newest first: (number, record). `cursor`: where the next page begins, None at the end."""

    records: tuple[tuple[int, dict[str, Any]], ...]
    total: int
    cursor: int | None


class RequestStore:
    """Raises redis-py's errors, but for `note`. `keep`: records a session, 0 for none."""

    def __init__(self, connection: Connection, keep: int, ttl_ms: int) -> None:
        self.keep = keep
        self._connection = connection
        self._ttl_ms = ttl_ms
        self._waiting: deque[Callable[[], Request]] = deque(maxlen=MAX_WAITING)
        self._known: Recent = Recent(1_000)  # session -> ids of the steps of its last request
        self._writing: asyncio.Task[None] | None = None

    def note(self, make: Callable[[], Request]) -> None:
        """Writes what `make` gives, soon. Where too many wait already the oldest are left out. Never raises."""
        self._waiting.append(make)
        here = asyncio.get_running_loop()
        if self._writing is None or self._writing.done() or self._writing.get_loop() is not here:
            self._writing = here.create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            try:
                await self.write(self._waiting.popleft()())
            except Exception as error:
                _log.debug("a request is not noted: %s", type(error).__name__)

    async def settled(self) -> None:
        """Returns when what this worker has to note is written."""
        if self._writing is not None and self._writing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({self._writing})

    async def write(self, request: Request) -> int:
        """The number of the record, 0 where the session is gone."""
        names, place = keys.of_session(request.address), (request.address.tag, request.address.session_id)
        steps = _steps(request)
        known: Sequence[str] = self._known.get(place) or ()
        base = next((i for i, (old, new) in enumerate(zip(known, steps, strict=False)) if old != new), -1)
        base = base if base >= 0 else min(len(known), len(steps))
        for _ in range(3):
            if not base:
                base = await self._stored(names, steps)
            number = await self._write(names, request, steps, base)
            if number >= 0:
                self._known.put(place, steps)
                return number
            base = 0
        return 0

    async def _stored(self, names: SessionKeys, steps: Sequence[str]) -> int:
        fields = ["w:" + step for step in steps]
        return int(await self._connection.run("probe", [names.requests], fields)) if fields else 0

    async def _write(self, names: SessionKeys, request: Request, steps: Sequence[str], base: int) -> int:
        new = request.parts[base:]
        nodes = [part.node for part in new if part.node]
        found = await self._connection.command("hmget", names.bodies, nodes) if nodes else []
        bodies = dict(zip(nodes, found, strict=True))
        lead = None
        if any(not part.node for part in new):
            lead = _parsed(await self._connection.command("hget", names.leads, request.lead))
        values: list[str | bytes | int] = []
        for index, part in enumerate(new, base):
            stored = _wire(bodies[part.node]) if part.node else lead
            of = "n" + part.node if part.node else "l" + (request.lead or "-" * 32)
            head = (steps[index - 1] if index else _NONE) + of
            values += ("w:" + steps[index], head.encode() + encode_body(residual(part.fragment, stored)))
        rules = sha256(request.rules).hexdigest()[:16]
        record = {**request.record, "tip": steps[-1] if steps else "", "rules": rules}
        told: list[str | bytes | int] = [request.token, self._ttl_ms, self.keep, "w:" + steps[base - 1] if base else ""]
        stored_record = request.token.encode() + encode_body(orjson.dumps(record))
        args = [*told, "s:" + rules, encode_body(request.rules), stored_record, *values]
        return int(await self._connection.run("requested", [names.meta, names.requests, names.tomb], args))

    async def newest(self, address: Address) -> int:
        """The number of the newest record, 0 where there is none."""
        if not address.session_id:
            return 0
        return int(await self._connection.command("hget", keys.of_session(address).requests, "n") or 0)

    async def page(self, address: Address, limit: int, before: int | None = None) -> Page:
        """Newest first. `before`: only those of lower numbers."""
        key, newest = keys.of_session(address).requests, await self.newest(address)
        oldest = max(1, newest - self.keep + 1) if self.keep else 1
        first = newest if before is None else min(newest, before - 1)
        numbers = list(range(first, max(oldest, first - limit + 1) - 1, -1))
        found = await self._connection.command("hmget", key, [f"r:{n}" for n in numbers]) if numbers else []
        records = [(n, readable(_record, value)) for n, value in zip(numbers, found, strict=True)]
        known = tuple((n, record) for n, record in records if record is not None)
        more = bool(numbers) and numbers[-1] > oldest
        return Page(known, max(0, newest - oldest + 1), numbers[-1] if more else None)

    async def record(self, address: Address, number: int) -> dict[str, Any] | None:
        """None where there is none of this number, or no longer."""
        if not address.session_id:
            return None
        stored = await self._connection.command("hget", keys.of_session(address).requests, f"r:{number}")
        return readable(_record, stored)

    async def rebuild(self, address: Address, record: dict[str, Any]) -> Account | None:
        """What came and what left; None where what it is made of is damaged, or gone with its branch."""
        names = keys.of_session(address)
        rules = stored_body(await self._connection.command("hget", names.requests, "s:" + record["rules"]))
        steps: list[bytes] = []
        at = record["tip"]
        while at and not at.startswith("-"):
            reply = await self._connection.run("requested_walk", [names.requests], [at, CHUNK_ITEMS])
            if len(reply) % 2:
                return None
            steps += reply[1::2]
            at = steps[-1][:_STEP].decode()
        steps.reverse()
        of = [step[_STEP:_HEAD].decode() for step in steps]
        bodies: dict[str, bytes | None] = {}
        for begin in range(0, len(of), CHUNK_ITEMS):
            nodes = list({name[1:] for name in of[begin : begin + CHUNK_ITEMS] if name[0] == "n"})
            found = await self._connection.command("hmget", names.bodies, nodes) if nodes else []
            bodies |= zip(nodes, found, strict=True)
        leads: dict[str, Any] = {}
        for name in {name for name in of if name[0] == "l"}:
            leads[name] = _parsed(await self._connection.command("hget", names.leads, name[1:]))
        return await asyncio.to_thread(_rebuild, record, rules, steps, of, bodies, leads)

    async def close(self) -> None:
        await self.settled()


def _rebuild(
    record: dict[str, Any],
    rules: bytes | None,
    steps: list[bytes],
    of: list[str],
    bodies: dict[str, bytes | None],
    leads: dict[str, Any],
) -> Account | None:
    try:
        fragments = [
            filled(decode_body(step[_HEAD:]), leads[name] if name[0] == "l" else _wire(bodies[name[1:]]))
            for step, name in zip(steps, of, strict=True)
        ]
        nodes = [name[1:] if name[0] == "n" else "" for name in of]
        return rebuilt(record, orjson.loads(rules or b""), fragments, nodes)
    except (ValueError, LookupError, TypeError):
        return None


def _steps(request: Request) -> list[str]:
    steps: list[str] = []
    before = _NONE
    for part in request.parts:
        digest = sha256(f"{before}{part.node or request.lead}".encode())
        digest.update(part.fragment)
        before = digest.hexdigest()[:_STEP]
        steps.append(before)
    return steps


def _record(stored: bytes) -> dict[str, Any]:
    record: dict[str, Any] = orjson.loads(decode_body(stored[_TOKEN:]))
    return record


def _wire(stored: bytes | None) -> Any:
    """The message as it is kept; None where it is damaged or gone."""
    body = stored_body(stored)
    value = orjson.loads(body) if body is not None else None
    return value.get("wire") if isinstance(value, dict) else None


def _parsed(stored: bytes | None) -> Any:
    body = stored_body(stored)
    return orjson.loads(body) if body is not None else None
