"""What is kept of a conversation, as frozen values, and how a node lies in the store. Pure.

A session holds a tree of messages. A node's id is a hash over its parent's id and what the message means,
so an id names a whole path: a path that is sent again adds nothing, an edited message is a new branch.
Nodes are never changed or removed one by one.

A node is kept in two hashes under its id. `nodes` holds its head, characters at fixed places, so that a
script can walk and compare without ever touching a body:

    0      layout version "1"          43..54    time, ms, 12 hex digits
    1      role, one letter            55..62    size of the body, bytes, 8 hex digits
    2      flags: 1 incomplete,        63..74    running subtask: its first node's id, 12 characters
                  2 side               75..106   lead in force, or dashes
    3..34  parent, or dashes           107..     field of the explicit subtask, or nothing
    35..42 depth, 8 hex digits

`bodies` holds two characters (layout version, codec; codec "0" = plain) and the bytes as they were given.
"side" marks the first exchange of a further root (a title request under the same session id).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Literal

import orjson

from proxy_plugin.sessions.identity import Address

REF_LENGTH = 12
"""Fewest characters of a node id that name it."""

_VERSION = "1"
_PLAIN_BODY = b"10"
_NO_ID = "-" * 32
_INHERIT = "." * REF_LENGTH
_INCOMPLETE, _SIDE = 1, 2
_ROLES = {"user": "u", "assistant": "a", "tool": "t", "system": "s"}
_ROLE_NAMES = {letter: role for role, letter in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class Lead:
    """Leading system and developer messages: JSON list of wire messages, `id` a hash of it."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Base:
    """The end of a stored path that a request goes on from without sending it again.

    depth        messages up to and with `node`
    concluded    it is a whole assistant text without calls: what a user says next is another subtask
    first_reply  as in Commit, of the whole path
    lead_count   messages that lead the path
    address      its session; where that is found by its opening and not known yet, `token` finds it
    """

    node: str
    depth: int
    concluded: bool
    first_reply: str | None
    lead_count: int
    address: Address
    token: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """One path to be stored: a request as it came, or the same path with the reply on it.

    ids          node ids of the whole path, root first, 32 hexadecimal characters each; no leading system
                 messages. With a `base`: of what comes behind that
    bodies       JSON of each node, opaque to the store; indexed only where something is written
    roles        "user" | "assistant" | "tool" | "system" | "other" of each
    first_reply  id of the first assistant message after the first user message
    subtask_start  index of the running subtask's first message; len(ids) where none is running, -1 where the
                 running one began before `base`
    closes       this reply is a complete assistant text without calls: the running subtask is done
    subtask_id   explicit subtask, the client's text; `explicit_base`: index at which one begins that was
                 not running before
    incomplete   the client left while this reply was streamed
    size_bytes   bytes of the path's messages; also taken as the memory that the commit holds
    token        one value per client request: its reply is committed with the same (`dataclasses.replace`
                 keeps it), so that both find one session even where the request's commit was late
    base         the stored node that the path goes on from; None: it begins at the root
    alone        the same as a path of its own, stored where `base` turns out not to be there
    kept         ends of the path that a later request may go on from, by what they are found by
                 (`identity.kept_under`)
    """

    address: Address
    ids: Sequence[str]
    bodies: Sequence[bytes]
    roles: Sequence[str]
    first_reply: str | None
    lead: Lead | None
    kind: Literal["request", "reply"]
    subtask_start: int
    closes: bool = False
    subtask_id: str | None = None
    subtask_description: str | None = None
    subtask_agent: str | None = None
    explicit_base: int = 0
    agent: str | None = None
    agent_reason: str | None = None
    incomplete: bool = False
    size_bytes: int = 0
    at_ms: int = 0
    token: str = field(default_factory=lambda: token_hex(8))
    base: Base | None = None
    alone: Commit | None = None
    kept: tuple[tuple[str, Base], ...] = ()

    @property
    def tip(self) -> str:
        """Id of the newest node; "" for a path without messages."""
        return self.ids[-1] if self.ids else self.root

    @property
    def root(self) -> str:
        """Id of the node before the first one, "" where that is none."""
        return self.base.node if self.base else ""

    @property
    def depth(self) -> int:
        """Messages of the whole path."""
        return len(self.ids) + (self.base.depth if self.base else 0)

    def before(self, index: int) -> str:
        """Id of the node before the one at `index`, "" where that is none."""
        return self.ids[index - 1] if index else self.root


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did. `marks`: nodes after which explicit subtasks of this session began. `branch`: the
    one that grew, or the current one. `deleted`: the session was deleted a moment ago; nothing is stored.
    `alone`: the base was not there, and Commit.alone is what is stored."""

    session_id: str
    new_nodes: int
    snapshot_created: bool
    snapshot_restored: bool
    marks: tuple[str, ...]
    branch: str
    round_trips: int
    deleted: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class StoredNode:
    """`subtask`: field of the subtask it belongs to ("auto-…", or "x-…" for an explicit one). `size`: bytes
    of the body. `body` is None where only heads were read, or where it is damaged."""

    id: str
    parent: str
    depth: int
    role: str
    at_ms: int
    incomplete: bool
    side: bool
    subtask: str
    size: int
    lead: str
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    name: str
    head: str
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    snapshot_id: str
    name: str
    node: str
    created_ms: int
    expires_ms: int
    size_bytes: int
    message_count: int
    agent: str | None
    auto: bool


@dataclass(frozen=True, slots=True)
class Subtask:
    """`base` is the node before its `first`, "" at the root; `result` the reply that ended it."""

    id: str
    state: str
    base: str
    first: str
    result: str | None
    started_ms: int
    ended_ms: int | None
    agent: str | None
    description: str | None
    snapshot_id: str
    explicit: bool


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session without its messages. `branches`, `snapshots` and `subtasks` are numbers. `agent_history`:
    {from, to, reason, timestamp}, oldest first; left empty in listings."""

    tenant: str
    session_id: str
    message_count: int
    created_ms: int
    last_activity_ms: int
    current_agent: str | None
    agent_history: tuple[Mapping[str, Any], ...]
    switch_count: int
    last_switch_ms: int | None
    branch: str
    head: str
    branches: int
    snapshots: int
    subtasks: int
    requests: int


@dataclass(frozen=True, slots=True)
class History:
    """One path. `lead`: JSON list of its leading messages, or None. `message_count`: those and the nodes.
    `missing`: ids whose node or body is damaged or gone; what is beyond a missing node is not there."""

    session: SessionInfo
    head: str
    lead: bytes | None
    nodes: tuple[StoredNode, ...]
    message_count: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """`total` counts all sessions; `cursor` continues after the last one, None at the end."""

    sessions: tuple[SessionInfo, ...]
    total: int
    cursor: str | None


def rfc3339(ms: int) -> str:
    """UTC with milliseconds and `Z`: 2026-01-31T08:00:00.123Z"""
    seconds, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def clean(text: str) -> str:
    """The text with what UTF-8 cannot carry (lone surrogates) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def dump(value: Any) -> bytes:
    return orjson.dumps(value)


def automatic(first: str) -> str:
    """Id of the subtask that the client did not name, by its first node."""
    return "auto-" + first[:REF_LENGTH]


def encode_head(commit: Commit, index: int, size: int) -> str:
    """Head of the node at `index`. The script puts in what a node has from its parent."""
    start = commit.ids[commit.subtask_start][:REF_LENGTH] if 0 <= commit.subtask_start <= index else _INHERIT
    depth = commit.depth - len(commit.ids) + index + 1
    flags = _INCOMPLETE if commit.incomplete and index == len(commit.ids) - 1 else 0
    return (
        f"{_VERSION}{_ROLES.get(commit.roles[index], 'o')}{flags}"
        f"{commit.before(index) or _NO_ID}{depth:08x}{max(0, commit.at_ms):012x}{size:08x}"
        f"{start:.<{REF_LENGTH}}{commit.lead.id if commit.lead else _NO_ID}"
    )


def decode_head(node: str, head: bytes, body: bytes | None = None) -> StoredNode:
    """Raises ValueError for a head that does not parse."""
    text = head.decode("ascii")
    if text[:1] != _VERSION or len(text) < 107:
        raise ValueError(f"node {node}: no head of this version")
    flags = int(text[2])
    explicit = text[107:]
    return StoredNode(
        id=node,
        parent="" if text[3:35] == _NO_ID else text[3:35],
        depth=int(text[35:43], 16),
        role=_ROLE_NAMES.get(text[1], "other"),
        at_ms=int(text[43:55], 16),
        incomplete=bool(flags & _INCOMPLETE),
        side=bool(flags & _SIDE),
        subtask=explicit or automatic(text[63:75]),
        size=int(text[55:63], 16),
        lead="" if text[75:107] == _NO_ID else text[75:107],
        body=body,
    )


def encode_body(body: bytes) -> bytes:
    return _PLAIN_BODY + body


def decode_body(stored: bytes) -> bytes:
    """Raises ValueError for a layout or codec that this version does not know."""
    if stored[:2] != _PLAIN_BODY:
        raise ValueError("no body of this version")
    return stored[2:]


def decode_branch(name: str, stored: bytes) -> Branch:
    text = stored.decode("ascii")
    return Branch(name, text[:32], int(text[32:44], 16), int(text[44:56], 16))
