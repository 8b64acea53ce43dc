"""What is kept of a conversation, as frozen values, and how a node lies in the store. Pure.

A session holds a tree of messages. A node's id is a hash over its parent's id and what the message means,
so an id names a whole path: a path that is sent again adds nothing, an edited message is a new branch.
Nodes are never changed or removed one by one.

A node is kept in two hashes under its id. `nodes` holds its head, characters at fixed places, so that a
script can walk and compare without ever touching a body:

    0      layout version "1"          43..54    time, ms, 12 hex digits
    1      role, one letter            55..62    size of the message, bytes, 8 hex digits
    2      flags: 1 incomplete,        63..74    running subtask: its first node's id, 12 characters
                  2 side               75..106   lead in force, or dashes
    3..34  parent, or dashes           107..     field of the explicit subtask, or nothing
    35..42 depth, 8 hex digits

`bodies` holds the message itself, see bodies.py.
"side" marks the first exchange of a further root (a title request under the same session id).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Literal

import orjson

from proxy_plugin.sessions.identity import Address

REF_LENGTH = 12
"""Fewest characters of a node id that name it."""

MAX_ATTEMPTS = 3
"""At a subtask; one that failed as often has failed for good."""

_VERSION = "1"
NO_ID = "-" * 32
INHERIT = "." * REF_LENGTH
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
    sizes        bytes of each as it came, where the bodies are less than that
    roles        "user" | "assistant" | "tool" | "system" | "other" of each
    first_reply  id of the first assistant message after the first user message
    subtask_start  index of the running subtask's first message; len(ids) where none is running, -1 where the
                 running one began before `base`
    closes       this reply is a complete assistant text without calls: the running subtask is done
    subtask_id   explicit subtask, the client's text; `explicit_base`: index at which one begins that was
                 not running before
    subtask_depends_on, subtask_given   ids of the subtasks that it needs the results of, and of those whose it has
    subtask_metadata   what else the client says of it
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
    subtask_depends_on: tuple[str, ...] = ()
    subtask_given: tuple[str, ...] = ()
    subtask_metadata: Mapping[str, Any] | None = None
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
    sizes: Sequence[int] | None = None

    def stored_as(self, *, alone: bool) -> Commit:
        """What is stored of it: itself, or where its base was not there (`Committed.alone`) the path of its own."""
        return self.alone if alone and self.alone is not None else self

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
    `alone`: the base was not there, and Commit.alone is what is stored. `refused`: the subtask that the client
    named is over for good; its record did not change. `resets`: nodes at which the session was reset for its age.
    `full`: "session_full" or "tenant_full", the limit that the commit would have passed, or "newer_layout": the
    session is laid out by a newer version; nothing is stored."""

    session_id: str
    new_nodes: int
    snapshot_created: bool
    snapshot_restored: bool
    marks: tuple[str, ...]
    branch: str
    round_trips: int
    deleted: bool = False
    alone: bool = False
    refused: bool = False
    resets: tuple[str, ...] = ()
    full: str = ""


@dataclass(frozen=True, slots=True)
class StoredNode:
    """`subtask`: field of the subtask it belongs to ("auto-…", or "x-…" for an explicit one). `size`: bytes
    of the message. `body` is None where only heads were read, or where it is damaged. `start`: beginning of the id
    of its implicit subtask's first node, which stands there beside an explicit one too."""

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
    start: str = ""


@dataclass(frozen=True, slots=True)
class NodePath:
    """A path without its texts, root first. `lead_count`: messages that lead it. `missing`: as in History."""

    nodes: tuple[StoredNode, ...]
    lead_count: int
    missing: tuple[str, ...]

    @property
    def message_count(self) -> int:
        return (self.nodes[-1].depth if self.nodes else 0) + self.lead_count

    @property
    def size_bytes(self) -> int:
        return sum(node.size for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Branch:
    """`head` is "" where it ends before the first message."""

    name: str
    head: str
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A name for a node, "" before the first message. `expires_ms` None: it is pinned, kept as long as the session.
    `size_bytes`: of the path to the node. `agent` and the session's `title`: as they were when it was made."""

    snapshot_id: str
    name: str
    node: str
    created_ms: int
    expires_ms: int | None
    size_bytes: int
    message_count: int
    agent: str | None
    auto: bool
    title: str | None = None

    @property
    def pinned(self) -> bool:
        return self.expires_ms is None


@dataclass(frozen=True, slots=True)
class Subtask:
    """`base` is the node before its `first`, "" at the root; `result` the reply that ended it. `first` is "" where
    it was begun before its first message.

    started_ms   when its newest attempt began, which is the one of this number: `attempts`
    result_text  its result where that is no reply
    withheld     whether a text of its end, a result or an error, was given and is not kept
    depends_on   ids of the subtasks that it needs the results of; `given`: of those whose it has"""

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
    attempts: int = 1
    error_message: str | None = None
    result_text: str | None = None
    depends_on: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    withheld: bool = False

    @property
    def over(self) -> bool:
        """Whether nobody may begin it again."""
        return self.state == "completed" or (self.state == "failed" and self.attempts >= MAX_ATTEMPTS)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session without its messages. `branches`, `snapshots` and `subtasks` are numbers. `agent_history`:
    {from, to, reason, timestamp}, oldest first. `size_bytes`: of the current path. Listings leave out the
    `agent_history`, `description`, `metadata` and `aliases`."""

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
    size_bytes: int = 0
    title: str | None = None
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def token_estimate(self) -> int:
        """Tokens of the current path, by its size alone: a token is about four bytes of it (off by a fifth on
        average, see history/tokens.py)."""
        return -(-self.size_bytes // 4)


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
    """`total` counts all sessions that were asked for, None where they are too many to look through; `cursor`
    continues after the last one, None at the end."""

    sessions: tuple[SessionInfo, ...]
    total: int | None
    cursor: str | None


_LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def clamped(ms: float) -> int:
    """A stored time as one that can be shown, whatever was made of it."""
    return int(min(max(ms, 0), _LATEST_MS))


def rfc3339(ms: int) -> str:
    """UTC with milliseconds and `Z`: 2026-01-31T08:00:00.123Z"""
    seconds, rest = divmod(clamped(ms), 1000)
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
    """Head of the node at `index`. The script puts in what a node has from its parent. `size`: of the body, which
    counts where the commit does not say how large the message was."""
    size = size if commit.sizes is None else commit.sizes[index]
    start = commit.ids[commit.subtask_start][:REF_LENGTH] if 0 <= commit.subtask_start <= index else INHERIT
    depth = commit.depth - len(commit.ids) + index + 1
    flags = _INCOMPLETE if commit.incomplete and index == len(commit.ids) - 1 else 0
    return (
        f"{_VERSION}{_ROLES.get(commit.roles[index], 'o')}{flags}"
        f"{commit.before(index) or NO_ID}{depth:08x}{max(0, commit.at_ms):012x}{size:08x}"
        f"{start:.<{REF_LENGTH}}{commit.lead.id if commit.lead else NO_ID}"
    )


def encode_node(node: StoredNode) -> str:
    """Head of a node as it is stored; the reverse of `decode_head`."""
    flags = _INCOMPLETE * node.incomplete | _SIDE * node.side
    explicit = "" if node.subtask == automatic(node.start) else node.subtask
    return (
        f"{_VERSION}{_ROLES.get(node.role, 'o')}{flags}{node.parent or NO_ID}{node.depth:08x}"
        f"{max(0, node.at_ms):012x}{node.size:08x}{node.start:.<{REF_LENGTH}}{node.lead or NO_ID}{explicit}"
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
        parent="" if text[3:35] == NO_ID else text[3:35],
        depth=int(text[35:43], 16),
        role=_ROLE_NAMES.get(text[1], "other"),
        at_ms=int(text[43:55], 16),
        incomplete=bool(flags & _INCOMPLETE),
        side=bool(flags & _SIDE),
        subtask=explicit or automatic(text[63:75]),
        size=int(text[55:63], 16),
        lead="" if text[75:107] == NO_ID else text[75:107],
        body=body,
        start=text[63:75],
    )


def decode_branch(name: str, stored: bytes) -> Branch:
    text = stored.decode("ascii")
    return Branch(name, "" if text[:32] == NO_ID else text[:32], int(text[32:44], 16), int(text[44:56], 16))


def place_in_tree(node: StoredNode) -> tuple[int, int, str]:
    """Sorts parents before children, and what came earlier first."""
    return node.depth, node.at_ms, node.id


def above_lost(lost: str, behind: StoredNode | None, nodes: Mapping[str, StoredNode], heads: Set[str]) -> str:
    """Where a path goes on above a lost node, "" where nothing tells. `behind`: the node that stands on the lost
    one, None where that was the newest; `heads`: where branches end.

    Of the nodes above it, it is the deepest that nothing stands on and no branch ends at, since what stood on it
    is lost. Without one, it is the newest of those one step above, which is a guess where branches part."""
    depth = behind.depth - 1 if behind is not None else 1 + max((node.depth for node in nodes.values()), default=0)
    stood_on = {node.parent for node in nodes.values()} | heads
    above = [node for node in nodes.values() if node.depth < depth and node.id != lost]
    until = behind.at_ms if behind is not None else max((node.at_ms for node in above), default=0)
    loose = [node for node in above if node.id not in stood_on]
    if not loose and behind is not None:
        loose = [node for node in above if node.depth == depth - 1 and node.at_ms <= until]
    return max(loose, key=lambda node: (node.depth, node.at_ms)).id if loose else ""
