"""Snapshots: names for nodes, and going back to one. Nothing is copied, and nothing is ever removed but names.

A restore makes a branch at the snapshot's node and the current one of it, so that what a client says next from
there grows it; the path that was current stays as the branch that it is. With `preserve_last_result` the last
result of that path (an assistant message without tool calls) stands on top: a new node of the same meaning, so
a client that sends the restored path together with that result grows the same branch too. A result that was kept
without its text is left out: what it means elsewhere cannot be told from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex

import orjson

from proxy_plugin.events import Emit, SnapshotCreated, SnapshotRestored, SnapshotRestoreFailed
from proxy_plugin.history.model import ASSISTANT, Message, node_id
from proxy_plugin.history.redaction import is_redacted, redacted
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import parsed, unwrap
from proxy_plugin.sessions import tree
from proxy_plugin.sessions.edits import Contended, Edits, Refused
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import of_session
from proxy_plugin.sessions.reader import SessionReader, now_ms
from proxy_plugin.sessions.records import readable, snapshot_record
from proxy_plugin.sessions.tree import NodePath, SessionInfo, Snapshot, StoredNode

_MAX_TRIES = 8
_CANDIDATES = 16
"""Assistant messages that are looked through at a time for the last result."""


@dataclass(frozen=True, slots=True)
class Restored:
    """`message_count`: of the path to `head`, leading system text included."""

    snapshot_id: str
    branch: str
    head: str
    message_count: int


@dataclass(frozen=True, slots=True)
class _Goal:
    """Where a restore leads to. `result`: a node to be written there, with its body."""

    head: str
    messages: int
    size_bytes: int
    result: StoredNode | None = None


class SnapshotStore:
    """Raises redis-py's errors. `ttl_ms`: how long a snapshot is kept that says nothing else; `keeps_texts`: whether
    what a restore writes has its text."""

    def __init__(self, reader: SessionReader, edits: Edits, ttl_ms: int, emit: Emit, keeps_texts: bool = True) -> None:
        self._reader = reader
        self._edits = edits
        self._ttl_ms = ttl_ms
        self._emit = emit
        self._keeps_texts = keeps_texts

    async def create(
        self, address: Address, name: str, *, node: str | None = None, pin: bool = False, ttl_ms: int | None = None
    ) -> Snapshot | Refused:
        """Names the current head in one round trip, or the node (an id or its beginning), of whose path the heads
        are read to know its size. `pin`: kept as long as the session."""
        now, snapshot_id = now_ms(), "snap-" + token_hex(8)
        texts = self._edits.texts(address)
        named = orjson.dumps(texts.sealed("named", {"name": tree.clean(name), "created": now, "auto": False}))
        said = {
            "id": snapshot_id,
            "named": named[:-1].decode(),
            "expires": "+inf" if pin else str(now + (self._ttl_ms if ttl_ms is None else ttl_ms)),
        }
        if node is not None:
            found = await self._reader.resolve(of_session(address), node)
            if found is None:
                return Refused.NO_NODE
            path = await self._reader.path(address, found)
            said |= {"node": found, "messages": str(path.message_count), "size": str(path.size_bytes)}
        reply = await self._edits.run("snapshot_create", address, said)
        if reply[0] == b"gone":
            return Refused.NO_SESSION
        snapshot = readable(snapshot_record, snapshot_id, texts.opened(reply[1]), float(reply[2]))
        if snapshot is None:
            return Refused.DAMAGED
        self._emit(SnapshotCreated(snapshot.size_bytes))
        return snapshot

    async def delete(self, address: Address, snapshot_id: str) -> Snapshot | Refused:
        """Returns what it was."""
        snapshot = await self._reader.snapshot(address, snapshot_id)
        if snapshot is None:
            return Refused.NO_SNAPSHOT
        reply = await self._edits.run("snapshot_delete", address, {"id": snapshot_id})
        return Refused.NO_SESSION if reply[0] == b"gone" else snapshot

    def not_restored(self) -> None:
        """Counts a restore that found no session."""
        self._emit(SnapshotRestoreFailed())

    async def restore(
        self, address: Address, snapshot_id: str, *, preserve_last_result: bool = True, delete: bool = False
    ) -> Restored | Refused:
        """Goes back to a snapshot. Where the current path ends there already, its branch stays the current one.
        Counted as restored or as failed."""
        try:
            restored = await self._restore(address, snapshot_id, preserve_last_result, delete)
        except BaseException:
            self._emit(SnapshotRestoreFailed())
            raise
        self._emit(SnapshotRestored() if isinstance(restored, Restored) else SnapshotRestoreFailed())
        return restored

    async def _restore(self, address: Address, snapshot_id: str, preserve: bool, delete: bool) -> Restored | Refused:
        for _ in range(_MAX_TRIES):
            snapshot = await self._reader.snapshot(address, snapshot_id)
            session = await self._reader.session(address)
            if session is None or snapshot is None:
                return Refused.NO_SNAPSHOT if session else Refused.NO_SESSION
            path = await self._reader.path(address, snapshot.node)
            if snapshot.node and not path.nodes:
                return Refused.NO_NODE
            goal = _Goal(snapshot.node, path.message_count, path.size_bytes)
            if preserve:
                goal = await self._with_result(address, session, path) or goal
            reply = await self._move(address, session.head, goal, snapshot_id if delete else "")
            match reply[0]:
                case b"gone":
                    return Refused.NO_SESSION
                case b"ok":
                    return Restored(snapshot_id, reply[1].decode(), goal.head, goal.messages)
        raise Contended

    async def _move(self, address: Address, seen: str, goal: _Goal, delete: str) -> list[bytes]:
        said = {
            "seen": seen,
            "at": goal.head,
            "messages": str(goal.messages),
            "bytes": str(goal.size_bytes),
            "delete": delete,
        }
        if goal.result is None or goal.result.body is None:
            return await self._edits.run("snapshot_restore", address, said, "", "")
        kept = goal.result.body if self._keeps_texts else redacted(goal.result.body)
        body = self._edits.codec.encode(kept, of_session(address).bodies, goal.head)
        return await self._edits.run("snapshot_restore", address, said, tree.encode_node(goal.result), body)

    async def _with_result(self, address: Address, session: SessionInfo, path: NodePath) -> _Goal | None:
        """The last result of the current path on top of this one; None where that holds it already, or there is
        none."""
        current = await self._reader.path(address, session.head)
        here = {node.id for node in path.nodes}
        beyond = [node for node in current.nodes if node.id not in here]
        found = await self._last_result(address, beyond)
        if found is None:
            return None
        original, message = found
        parent = path.nodes[-1] if path.nodes else None
        lead_count = path.lead_count if parent else current.lead_count
        top = StoredNode(
            id=node_id(parent.id if parent else "", message),
            parent=parent.id if parent else "",
            depth=parent.depth + 1 if parent else 1,
            role=ASSISTANT,
            at_ms=now_ms(),
            incomplete=False,
            side=False,
            subtask=parent.subtask if parent else original.subtask,
            size=original.size,
            lead=parent.lead if parent else original.lead,
            body=original.body,
            start=parent.start if parent else original.start,
        )
        return _Goal(top.id, top.depth + lead_count, path.size_bytes + top.size, top)

    async def _last_result(self, address: Address, nodes: list[StoredNode]) -> tuple[StoredNode, Message] | None:
        """The newest whole assistant message without calls; None too where it was kept without its text."""
        candidates = [node for node in reversed(nodes) if node.role == ASSISTANT and not node.incomplete]
        for begin in range(0, len(candidates), _CANDIDATES):
            for node in await self._reader.bodies(address, candidates[begin : begin + _CANDIDATES]):
                message = _message_of(node)
                if message is not None and message.role == ASSISTANT and not message.calls:
                    return (node, message) if not is_redacted(parsed(node.body)) else None
        return None


def _message_of(node: StoredNode) -> Message | None:
    """What the node means; None where its body is damaged."""
    wire = unwrap([parsed(node.body)])
    messages = CODECS[wire.api].parse(wire.messages)
    return messages[0] if len(messages) == 1 else None
