"""The life of subtasks: begun, ended, tried again, and what one goes on from that needs the results of others.

A subtask's record is written once, where it begins. What became of it lies beside it and is missing while its first
attempt runs: pending (interrupted), in_progress, completed, failed, rolled_back. Subtasks of one session may run side
by side, each on a branch of its own from the same base; its result is a record, so that none moves the others' base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from proxy_plugin.events import Emit, SnapshotCreated, SnapshotRestored, SubtaskChanged
from proxy_plugin.history.redaction import STRUCTURE, is_redacted
from proxy_plugin.history.wire.stored import parsed
from proxy_plugin.sessions import keys, tree
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.edits import Edits
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.reader import SessionReader, now_ms
from proxy_plugin.sessions.recent import Recent
from proxy_plugin.sessions.records import (
    Beginning,
    attempt_said,
    begun,
    readable,
    stored_node,
    subtask_record,
)
from proxy_plugin.sessions.tree import MAX_ATTEMPTS, History, Subtask

MAX_DEPENDENCIES = 100
MAX_METADATA_BYTES = 16_384
_REMEMBERED = 64
_REMEMBERED_BYTES = 1_000_000
"""A worker keeps in mind what its last subtasks go on from, where that is no more than this, each."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A subtask as its client describes it."""

    id: str
    description: str | None = None
    agent: str | None = None
    depends_on: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A subtask, and the stored body of the reply that is its result, if there is one."""

    subtask: Subtask
    body: bytes | None

    @property
    def withheld(self) -> bool:
        """Whether it has a text that is not kept."""
        return self.subtask.withheld or (self.subtask.result_text is None and is_redacted(parsed(self.body)))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was changed. `unknown`: what was named is not there."""

    reason: str
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a request's list the subtask that it names would begin.

    ids          node ids of the list           begins   how many of them come before
    first_reply  as in Commit; finds a session that the client does not name"""

    ids: Sequence[str]
    begins: int
    first_reply: str | None = None

    @property
    def before(self) -> str:
        return self.ids[self.begins - 1] if self.begins else ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a request goes on from whose subtask needs the results of others.

    depends_on  their ids; none: there is nothing to be done
    outcomes    of those of them whose results it has
    begins      how many messages of the request come before the subtask
    base        the path to put in front of the request; None: it holds its past itself, or there is none
    withheld    the text of a result that it needs is not kept: nothing is given to it"""

    depends_on: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    begins: int = 0
    base: History | None = None
    withheld: bool = False

    @property
    def given(self) -> tuple[str, ...]:
        return tuple(outcome.subtask.id for outcome in self.outcomes)


NOTHING = Standing()


class SubtaskStore:
    """Raises redis-py's errors. `snapshot_ttl_ms`: how long automatic snapshots are kept; `keeps_texts`: whether
    what subtasks are and came to is kept in words."""

    def __init__(
        self,
        connection: Connection,
        reader: SessionReader,
        edits: Edits,
        snapshot_ttl_ms: int,
        emit: Emit,
        keeps_texts: bool = True,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._edits = edits
        self._snapshot_ttl_ms = snapshot_ttl_ms
        self._emit = emit
        self._keeps_texts = keeps_texts
        self._standings = Recent(_REMEMBERED)  # (tag, session id, subtask id) -> Standing
        self._bases = Recent(_REMEMBERED)  # (tag, session id, node id) -> History

    async def find(self, address: Address, subtask_id: str) -> Subtask | None:
        """One that the client named, else one that it did not ("auto-…")."""
        return (await self._known(address, [subtask_id]))[0]

    async def outcomes(self, address: Address, subtasks: Sequence[Subtask]) -> list[Outcome]:
        """The subtasks with their results."""
        nodes = [subtask.result for subtask in subtasks if subtask.result]
        bodies: dict[str, bytes | None] = {}
        for begin in range(0, len(nodes), 100):
            piece = nodes[begin : begin + 100]
            key = keys.of_session(address).bodies
            for node, stored in zip(piece, await self._connection.command("hmget", key, piece), strict=True):
                bodies[node] = self._connection.codec.read(stored, key, node)
        return [Outcome(subtask, bodies.get(subtask.result or "")) for subtask in subtasks]

    async def begin(self, address: Address, plan: Plan) -> tuple[Subtask, bool] | Refusal:
        """Begins it at the session's current end, or a further attempt at one that failed or was rolled back; one
        that runs stays as it is. Returns it, and whether it began now."""
        if not self._keeps_texts:
            plan = replace(plan, description=None, metadata={})
        known = await self.find(address, plan.id)
        depends_on = plan.depends_on or (known.depends_on if known else ())
        now = now_ms()
        said = {
            "subtask": _field(known, plan.id),
            "attempts": str(MAX_ATTEMPTS),
            "again": attempt_said(now, depends_on),
        }
        size = 0
        if known is None:
            beginning = await self._beginning(address, plan, now)
            size = beginning.size_bytes
            said |= {**begun(beginning, self._edits.texts(address)), "expires": str(now + self._snapshot_ttl_ms)}
        others = await self._known(address, depends_on)
        needed = [_field(other, named) for other, named in zip(others, depends_on, strict=True)]
        reply = await self._edits.run("subtask_begin", address, said, *needed)
        match reply[0]:
            case b"gone":
                return Refusal("no such session", unknown=True)
            case b"over":
                state = "is completed" if reply[1] == b"completed" else f"has failed {MAX_ATTEMPTS} times"
                return Refusal(f"the subtask {state} and cannot begin again")
            case b"needs":
                return Refusal(f"the subtask {depends_on[int(reply[1]) - 1]!r}, which it depends on, is not completed")
        if reply[0] == b"begun":
            self._emit(SnapshotCreated(size))
        if reply[0] != b"running":
            self._emit(SubtaskChanged("in_progress"))
        subtask = await self.find(address, plan.id)
        return Refusal("no such session", unknown=True) if subtask is None else (subtask, reply[0] != b"running")

    async def complete(self, address: Address, subtask_id: str, result: str | None) -> Subtask | Refusal:
        """`result`: its text; None: it has none."""
        return await self._end(address, subtask_id, "completed", {"text": result})

    async def fail(self, address: Address, subtask_id: str, error: str | None) -> Subtask | Refusal:
        return await self._end(address, subtask_id, "failed", {"error": error})

    async def roll_back(self, address: Address, subtask_id: str) -> Subtask | Refusal:
        """What was there before it becomes a new current branch; what it did stays as the branch that it is."""
        return await self._end(address, subtask_id, "rolled_back", {})

    async def _end(
        self, address: Address, subtask_id: str, state: str, more: dict[str, str | None]
    ) -> Subtask | Refusal:
        known = await self.find(address, subtask_id)
        if known is None:
            return Refusal("the session has no such subtask", unknown=True)
        noted = {key: tree.clean(value) for key, value in more.items() if value is not None}
        if noted and not self._keeps_texts:
            noted = {"content": STRUCTURE}
        now = now_ms()
        record = self._edits.texts(address).sealed("subtasks", {"state": state, "ended": now, **noted})
        ended = orjson.dumps(record).decode()
        said = {"subtask": _field(known, subtask_id), "ended": ended, "back": ""}
        if state == "rolled_back":
            path = await self._reader.path(address, known.base)
            counts = {"messages": str(path.message_count), "bytes": str(path.size_bytes)}
            said |= {"back": "1", "at": known.base if path.nodes else "", **counts}
        reply = await self._edits.run("subtask_end", address, said)
        if reply[0] == b"not":
            return Refusal(f"the subtask is {reply[1].decode()}")
        if reply[0] != b"ended":
            return Refusal("the session has no such subtask", unknown=True)
        self._emit(SubtaskChanged(state, (now - known.started_ms) / 1000))
        if state != "failed":
            self._emit(SnapshotRestored())
        return await self.find(address, subtask_id) or Refusal("the session has no such subtask", unknown=True)

    async def _beginning(self, address: Address, plan: Plan, now: int) -> Beginning:
        session = await self._reader.session(address)
        base = await self._base_at(address, session.head if session else "")
        if session is not None and base == session.head:
            messages, size = session.message_count, session.size_bytes
        else:
            path = await self._reader.path(address, base)
            messages, size = path.message_count, path.size_bytes
        return Beginning(
            id=tree.clean(plan.id),
            base=base,
            first="",
            at_ms=now,
            agent=plan.agent,
            description=plan.description,
            explicit=True,
            depends_on=plan.depends_on,
            given=plan.depends_on,
            metadata=plan.metadata,
            size_bytes=size,
            message_count=messages,
        )

    async def standing(self, address: Address, plan: Plan, place: Place) -> Standing:
        """What a request of this subtask goes on from. What it is given stays the same while an attempt runs."""
        place_of = await self._session_of(address, place)
        known, *needed = await self._known(place_of, [plan.id, *plan.depends_on])
        depends_on = plan.depends_on or (known.depends_on if known else ())
        if not depends_on:
            return NOTHING
        if not plan.depends_on:
            needed = await self._known(place_of, depends_on)
        given = [one for one in needed if one is not None and one.state == "completed"]
        if known is not None and known.depends_on and (known.over or known.state in ("in_progress", "pending")):
            given = [one for one in given if one.id in known.given]
        begins, base = await self._where(place_of, known, place)
        outcomes = await self.outcomes(place_of, given)
        if any(outcome.withheld for outcome in outcomes):
            return Standing(depends_on, withheld=True)
        standing = Standing(depends_on, tuple(outcomes), begins, base)
        if base is None or sum(node.size for node in base.nodes) <= _REMEMBERED_BYTES:
            self._standings.put((place_of.tag, place_of.session_id, plan.id), standing)
        return standing

    def remembered(self, address: Address, plan: Plan) -> Standing | None:
        """The same as far as this worker remembers, for when the store is away."""
        standing: Standing | None = self._standings.get((address.tag, address.session_id, plan.id))
        return standing

    async def _where(self, address: Address, known: Subtask | None, place: Place) -> tuple[int, History | None]:
        """How many messages of the request come before the subtask, and what is to be put in front of it where it
        does not hold the past itself."""
        if known is not None:
            base = known.base
        else:
            head = await self._head(address)
            if place.before and (not head or await self._has(address, place.before)):
                return place.begins, None
            base = await self._base_at(address, head)
        if not base:
            return 0, None
        if base in place.ids:
            return place.ids.index(base) + 1, None
        history = await self._history(address, base)
        if history is None:
            return 0, None
        shared = 0
        for node, sent in zip(history.nodes, place.ids, strict=False):
            if node.id != sent:
                break
            shared += 1
        return (shared, None) if shared > 1 else (0, history)

    async def _base_at(self, address: Address, head: str) -> str:
        """What a subtask stands on that begins when the session's path ends at `head`: where that is the end or the
        middle of a subtask that the client named, what that one stands on. Its result is a record."""
        node = None
        if head:
            stored = await self._connection.command("hget", keys.of_session(address).nodes, head)
            node = stored_node(head, stored)
        if node is None or not node.subtask.startswith("x-"):
            return head
        (last,) = await self._stored(address, [node.subtask])
        if last is None:
            return head
        went_on = last.result != head if last.result else node.at_ms > (last.ended_ms or 0)
        return head if last.state == "completed" and went_on else last.base

    async def _head(self, address: Address) -> str:
        """The session's current end, "" where it has none."""
        if not address.session_id:
            return ""
        head = await self._connection.command("hget", keys.of_session(address).meta, "head")
        return (head or b"").decode(errors="replace")

    async def _has(self, address: Address, node: str) -> bool:
        return bool(await self._connection.command("hexists", keys.of_session(address).nodes, node))

    async def _history(self, address: Address, node: str) -> History | None:
        key = (address.tag, address.session_id, node)
        history: History | None = self._bases.get(key) or await self._reader.history(address, node=node)
        if history is not None and sum(one.size for one in history.nodes) <= _REMEMBERED_BYTES:
            self._bases.put(key, history)
        return history

    async def _session_of(self, address: Address, place: Place) -> Address:
        """The session that the request belongs to, as far as its path tells."""
        if address.session_id or place.first_reply is None:
            return address
        number = await self._connection.command("get", keys.first(address, place.first_reply))
        return address.numbered(int(number)) if number else address

    async def _known(self, address: Address, ids: Sequence[str]) -> list[Subtask | None]:
        """Of each id the subtask that the client named so, else the one of its own that is shown so."""
        stored = await self._stored(
            address, [place for one in ids for place in (keys.subtask_field(one), tree.clean(one))]
        )
        return [named or own for named, own in zip(stored[::2], stored[1::2], strict=True)]

    def forget(self, address: Address) -> None:
        """The session is deleted."""
        for remembered in (self._standings, self._bases):
            for key in [key for key in remembered if key[:2] == (address.tag, address.session_id)]:
                del remembered[key]

    async def _stored(self, address: Address, fields: Sequence[str]) -> list[Subtask | None]:
        """The records under these fields, in one round trip."""
        if not address.session_id or not fields:
            return [None] * len(fields)
        wanted = [name for one in fields for name in (one, one + ":end")]
        stored = await self._connection.command("hmget", keys.of_session(address).subtasks, wanted)
        texts = self._edits.texts(address)
        values = [value and texts.opened(value) for value in stored]
        pairs = zip(values[::2], values[1::2], strict=True)
        return [readable(subtask_record, began, ended) if began else None for began, ended in pairs]


def _field(known: Subtask | None, subtask_id: str) -> str:
    return known.id if known is not None and not known.explicit else keys.subtask_field(subtask_id)
