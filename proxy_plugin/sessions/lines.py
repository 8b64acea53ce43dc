"""A session as JSON Lines: how an export is written and what an import believes of it. Pure.

    {"format": "litellm-session-plugin", "version": 1, "session": {"session_id", "tenant", "meta": {…}}}
    {"type": "lead", "id", "body"}            leading system messages, before the first node that has them
    {"type": "node", "id", "parent", "depth", "role", "at", "incomplete", "side", "start", "subtask", "lead", "body"}
    {"type": "missing", "id"}                 a node that was damaged or gone where others stand on it
    {"type": "branch" | "tip" | "subtask" | …, "name", "value"}    what else the session holds, see PARTS
    {"type": "rules" | "step" | "request", …}     records of its requests, see request_lines.py
    {"type": "end", "nodes"}

Parents come before their children, times are ms since 1970. A node's body is what is kept of one message,
`{"api", "wire"}`, or null where that was damaged. A record that is stored as JSON stands there as JSON.

Nothing is taken on trust: a node's id must be the hash of its parent's and of what its message means, what
refers to a node must find it, and every record must read back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Any, NamedTuple

import orjson

from proxy_plugin.history.model import dump, node_id
from proxy_plugin.history.redaction import is_redacted, is_redacted_lead, redacted, redacted_lead, size_of_whole
from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions import identity, keys, records, tree
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.content import record_without_texts
from proxy_plugin.sessions.request_lines import TYPES as REQUEST_TYPES
from proxy_plugin.sessions.request_lines import RequestReader
from proxy_plugin.sessions.texts import TEXTS, Texts
from proxy_plugin.sessions.tree import StoredNode

FORMAT, VERSION = "litellm-session-plugin", 1
MAX_LINE_BYTES = 64_000_000
MAX_NODES = 1_000_000
MAX_ENTRIES = 200_000
MAX_ALIASES, MAX_ALIAS = 32, 256

_ID = re.compile(r"[0-9a-f]{32}\Z")
_START = re.compile(r"(?:[0-9a-f]{12}|\.{12})\Z")
_EXPLICIT = re.compile(r"x-[0-9a-f]{32}\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z")
_NUMBERS = ("created", "last", "messages", "bytes", "branches", "subtasks", "requests", "total", "reset")


class LineError(ValueError):
    """An import that is refused; `line` counts from 1."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}: {fault}")
        self.line, self.fault = line, fault


class Write(NamedTuple):
    """What a line brings into a part of the session (SessionKeys). `place`: field of a hash, score of a sorted
    set, place in a list."""

    part: str
    place: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the session that is carried entry by entry. `kind`: "hash" | "zset" | "list"."""

    type: str
    kind: str


PARTS: Mapping[str, Part] = {
    "branches": Part("branch", "hash"),
    "tips": Part("tip", "zset"),
    "named": Part("snapshot", "hash"),
    "snapshots": Part("expiry", "zset"),
    "subtasks": Part("subtask", "hash"),
    "marks": Part("mark", "zset"),
    "agents": Part("agent", "list"),
    "profile": Part("profile", "hash"),
}
KINDS: Mapping[str, str] = {
    "meta": "hash", "nodes": "hash", "bodies": "hash", "leads": "hash", "log": "list", "requests": "hash",
    **{name: part.kind for name, part in PARTS.items()},
}  # fmt: skip
"""Everything that is carried, and what holds it."""

NOT_CARRIED = frozenset({"links", "kept", "flights", "tomb"})
"""What leads to a session from outside of it is made anew or gone; calls under way and a tomb are no part of it."""

COUNTED = frozenset({"total"})
"""Fields of `meta` that are not carried but counted anew: what a tenant's limits hang on is nobody's to say."""
_WEIGHED = frozenset({"nodes", "bodies", "leads", "requests"})

_PART_OF = {part.type: name for name, part in PARTS.items()}


def header(address: identity.Address, meta: Mapping[str, str]) -> bytes:
    session = {"session_id": address.session_id, "tenant": address.tenant, "meta": dict(sorted(meta.items()))}
    return orjson.dumps({"format": FORMAT, "version": VERSION, "session": session}) + b"\n"


def lead_line(lead: str, body: bytes | None) -> bytes | None:
    """None for a lead that is gone or damaged."""
    if not _is_json(body, list) or body is None or (_lead_id(body) != lead and not is_redacted_lead(_parsed(body))):
        return None
    return b'{"type":"lead","id":"%s","body":%s}\n' % (lead.encode(), body)


def node_line(node: StoredNode) -> bytes:
    head = {
        "type": "node",
        "id": node.id,
        "parent": node.parent or None,
        "depth": node.depth,
        "role": node.role,
        "at": node.at_ms,
        "incomplete": node.incomplete,
        "side": node.side,
        "start": node.start,
        "subtask": None if node.subtask == tree.automatic(node.start) else node.subtask,
        "lead": node.lead or None,
    }
    return b'%s,"body":%s}\n' % (orjson.dumps(head)[:-1], (_is_json(node.body, dict) and node.body) or b"null")


def missing_line(node: str) -> bytes:
    return orjson.dumps({"type": "missing", "id": node}) + b"\n"


def entry_line(part: str, name: str | float | None, value: bytes) -> bytes | None:
    """None for an entry that is no text. `name`: field, place in the list, or score (None: without end)."""
    try:
        text = value.decode()
        shown = orjson.loads(text) if text.startswith("{") else text
    except ValueError:
        return None
    return orjson.dumps({"type": PARTS[part].type, "name": name, "value": shown}) + b"\n"


def end_line(nodes: int) -> bytes:
    return orjson.dumps({"type": "end", "nodes": nodes}) + b"\n"


def _is_json(body: bytes | None, kind: type) -> bool:
    """Whether the body can stand in a line as it is."""
    try:
        return body is not None and b"\n" not in body and isinstance(_parsed(body), kind)
    except ValueError:
        return False


def _lead_id(body: bytes) -> str:
    return sha256(body).hexdigest()[:32]


def _parsed(text: bytes) -> Any:
    """Python's parser: it keeps long numbers and lone surrogates, which a message's id depends on."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


class Reader:
    """Reads the lines of one import in their order, into what is to be written. Raises LineError.

    address   whose session it becomes; known after the first line
    nodes     how many nodes came so far
    entries   how many of each part
    aliases   that the session had
    replies   ids of first replies, by which a session without a client's id is found again

    keeps_texts  whether what it writes holds the texts that came"""

    def __init__(self, tenant: str, codec: Codec, keeps_texts: bool = True) -> None:
        self.address: identity.Address | None = None
        self.nodes = 0
        self.entries = dict.fromkeys(PARTS, 0)
        self.aliases: tuple[str, ...] = ()
        self.replies: list[str] = []
        self._tenant = tenant
        self._codec = codec
        self._keeps_texts = keeps_texts
        self._line = 0
        self._total = 0
        self._ended = False
        self._meta: dict[str, str] = {}
        self._ids: dict[str, _Seen] = {}
        self._branches: set[str] = set()
        self._snapshots: set[str] = set()
        self._subtasks: dict[str, bytes] = {}
        self._requests = RequestReader(codec, "", keeps_texts)

    def read(self, line: bytes) -> list[Write]:
        self._line += 1
        if not line.strip():
            return []
        try:
            if self._ended:
                raise ValueError("stands behind the end")
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"is longer than {MAX_LINE_BYTES} bytes")
            said = _parsed(line)
            if not isinstance(said, dict):
                raise ValueError("is no JSON object")
            writes = self._header(said) if self.address is None else self._entry(said)
            self._total += sum(map(_weight, writes))
            return writes
        except json.JSONDecodeError as error:
            raise LineError(self._line, f"is no JSON ({error.msg})") from None
        except UnicodeDecodeError:
            raise LineError(self._line, "is no UTF-8") from None
        except KeyError as error:
            raise LineError(self._line, f"has no {error.args[0]!r}") from None
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise LineError(self._line, str(error) or "cannot be read") from None

    def finish(self) -> None:
        """Raises LineError where the export is not whole."""
        if self.address is None or not self._ended:
            raise LineError(self._line + 1, "the export ends before its last line")

    def _header(self, said: dict[str, Any]) -> list[Write]:
        if said.get("format") != FORMAT:
            raise ValueError(f"is no export of a session (format {str(said.get('format'))[:40]!r})")
        if said.get("version") != VERSION:
            raise ValueError(f"version {str(said.get('version'))[:40]!r} is not known, only {VERSION}")
        session = said["session"]
        name, meta = session["session_id"], session["meta"]
        address = identity.address(self._tenant, _string(name, "session_id"))
        if address.session_id != name:
            raise ValueError(f"session_id {name[:40]!r} is none that the store gives")
        self._meta = {_string(key, "meta"): _string(value, "meta") for key, value in meta.items()}
        for key in _NUMBERS:
            if key in self._meta and not _NUMBER.match(self._meta[key]):
                raise ValueError(f"meta: {key} is no number")
        raw = {key.encode(): value.encode() for key, value in self._meta.items()}
        if records.session_info(address, raw, 0, None, 0, 0) is None:
            raise ValueError("meta has no 'created'")
        self.address = address
        self._requests.key = self._names.requests
        return [Write("meta", name, text.encode()) for name, text in self._texts.sealed("meta", self._meta).items()]

    def _entry(self, said: dict[str, Any]) -> list[Write]:
        kind = said["type"]
        if kind == "node":
            return self._node(said)
        if kind == "lead":
            return self._lead(said)
        if kind == "missing":
            return [self._new_id(said["id"], _Seen(0, False, False))]
        if kind == "end":
            return self._end(said)
        if kind in REQUEST_TYPES:
            return [Write("requests", name, value) for name, value in self._requests.read(said).items()]
        if not isinstance(kind, str) or kind not in _PART_OF:
            raise ValueError(f"unknown type {str(kind)[:40]!r}")
        return self._record(_PART_OF[kind], said["name"], said["value"])

    @property
    def _names(self) -> keys.SessionKeys:
        """Where the session will lie: what is encrypted is bound to that place."""
        assert self.address is not None
        return keys.of_session(self.address)

    @property
    def _texts(self) -> Texts:
        return Texts(self._codec, self._names)

    def _new_id(self, given: Any, seen: _Seen) -> Write:
        """Its place in the log, where a node that is missing keeps it for the day it comes back."""
        if given in self._ids or not isinstance(given, str) or not _ID.match(given):
            raise ValueError("id is none of a node, or stands there twice")
        if len(self._ids) >= MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} nodes")
        self._ids[given] = seen
        return Write("log", str(len(self._ids) - 1), given.encode())

    def _lead(self, said: dict[str, Any]) -> list[Write]:
        body = dump(said["body"])
        withheld = is_redacted_lead(said["body"]) and _ID.match(_string(said["id"], "id"))
        if not isinstance(said["body"], list) or (said["id"] != _lead_id(body) and not withheld):
            raise ValueError("id is not the hash of the lead")
        if withheld or not self._keeps_texts:
            body = redacted_lead(body)
        return [Write("leads", said["id"], self._codec.encode(body, self._names.leads, said["id"]))]

    def _node(self, said: dict[str, Any]) -> list[Write]:
        parent, lead, start, explicit = said["parent"] or "", said["lead"] or "", said["start"], said["subtask"]
        above, depth = self._above(parent, said["depth"]), said["depth"]
        if lead and not _ID.match(_string(lead, "lead")):
            raise ValueError("lead is none of a session")
        if not _START.match(_string(start, "start")) or (explicit is not None and not _EXPLICIT.match(explicit)):
            raise ValueError("start or subtask is none of a subtask")
        at = said["at"]
        if type(at) is not int or not 0 <= at < 1 << 48:
            raise ValueError("at is no time in ms")
        body = said["body"]
        stored, size = self._body(said["id"], parent, body) if body is not None else (b"", 0)
        role = _string(said["role"], "role")
        node = StoredNode(
            id=said["id"], parent=parent, depth=depth, role=role, at_ms=at,
            incomplete=_flag(said["incomplete"]), side=_flag(said["side"]),
            subtask=explicit or tree.automatic(start), size=size, lead=lead, start=start,
        )  # fmt: skip
        head = tree.encode_node(node).encode()
        if tree.decode_head(node.id, head) != node:
            raise ValueError("is none that can be stored")
        writes = [Write("nodes", node.id, head), self._new_id(node.id, self._seen(node, above))]
        self.nodes += 1
        if body is None:
            return writes
        return [Write("bodies", node.id, self._codec.encode(stored, self._names.bodies, node.id)), *writes]

    def _body(self, node: Any, parent: str, body: Any) -> tuple[bytes, int]:
        """The message as it is stored, and its size. Of one that came without its texts no id can show the meaning."""
        if not is_redacted(body) and node not in _ids_of(parent, body):
            raise ValueError("id is not the hash of the parent's id and the message")
        stored = dump(body)
        size = size_of_whole(body, len(stored))
        return (stored if self._keeps_texts and not is_redacted(body) else redacted(stored)), size

    def _above(self, parent: str, depth: Any) -> _Seen | None:
        """What is known of a node's parent, where the node can stand behind it."""
        above = self._ids.get(parent)
        if parent and above is None:
            raise ValueError(f"parent {str(parent)[:32]!r} did not come before")
        fitting = 1 if above is None else above.depth + 1 if above.depth else depth
        if type(depth) is not int or not 0 < depth < 1 << 31 or depth != fitting:
            raise ValueError("depth is not that of the parent and one")
        return above

    def _seen(self, node: StoredNode, above: _Seen | None) -> _Seen:
        asked = node.role == "user" or (above is not None and above.asked)
        replied = above is not None and above.replied
        if node.role == "assistant" and asked and not replied:
            self.replies.append(node.id)
            replied = True
        return _Seen(node.depth, asked, replied)

    def _record(self, part: str, name: Any, value: Any) -> list[Write]:
        count = self.entries[part]
        if count >= MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} of these")
        self.entries[part] += 1
        stored = value.encode() if isinstance(value, str) else dump(value)
        kind = PARTS[part].kind
        if kind == "zset":
            place = "inf" if name is None else str(name) if type(name) in (int, float) and isfinite(name) else ""
        else:
            place = str(count) if kind == "list" else _string(name, "name")
        try:
            readable = bool(place) and _CHECKS[part](self, place, stored)
        except (ValueError, KeyError, TypeError, AttributeError):
            readable = False
        if not readable:
            raise ValueError(f"is no {PARTS[part].type} of this session")
        if isinstance(value, dict) and not self._keeps_texts:
            value = record_without_texts(part, value)
            stored = dump(value)
        return [Write(part, place, self._sealed(part, place, value, stored))]

    def _sealed(self, part: str, place: str, value: Any, stored: bytes) -> bytes:
        """What is stored of a record, its texts encrypted where there are keys."""
        if part == "profile":
            text: str = self._texts.sealed(part, {place: stored.decode()})[place]
            return text.encode()
        if isinstance(value, dict) and TEXTS.get(part, frozenset()) & value.keys():
            stored = dump(self._texts.sealed(part, value))
        return stored

    def _is_branch(self, name: str, stored: bytes) -> bool:
        self._branches.add(name)
        return self._knows(tree.decode_branch(name, stored).head)

    def _is_tip(self, _score: str, stored: bytes) -> bool:
        node, _, branch = stored.decode().partition("/")
        return self._knows(node) and branch in self._branches

    def _is_snapshot(self, snapshot: str, stored: bytes) -> bool:
        self._snapshots.add(snapshot)
        return self._knows(records.snapshot_record(snapshot, stored, 0.0).node)

    def _is_expiry(self, _at: str, stored: bytes) -> bool:
        return stored.decode() in self._snapshots

    def _is_subtask(self, field: str, stored: bytes) -> bool:
        if field.endswith(":end"):
            return isinstance(records.subtask_record(self._subtasks[field[:-4]], stored).state, str)
        self._subtasks[field] = stored
        return self._knows(records.subtask_record(stored, None).base)

    def _is_mark(self, _at: str, stored: bytes) -> bool:
        return self._knows(stored[:32].decode())

    def _is_agent(self, _place: str, stored: bytes) -> bool:
        return isinstance(records.agent_switch(stored), dict)

    def _is_profile(self, field: str, stored: bytes) -> bool:
        values = records.profile_values({field.encode(): stored})
        self.aliases = values.get("aliases", self.aliases)
        right = all(isinstance(alias, str) and 0 < len(alias) <= MAX_ALIAS for alias in self.aliases)
        return right and len(self.aliases) <= MAX_ALIASES

    def _knows(self, node: str) -> bool:
        return not node or node in self._ids

    def _end(self, said: dict[str, Any]) -> list[Write]:
        if said["nodes"] != self.nodes:
            raise ValueError(f"the export had {str(said['nodes'])[:20]} nodes, {self.nodes} came")
        if not self._knows(self._meta.get("head", "")):
            raise ValueError("the head that the first line names did not come")
        if self._meta.get("cur") and self._meta["cur"] not in self._branches:
            raise ValueError("the branch that the first line names did not come")
        self._ended = True
        counted = [Write("requests", name, value) for name, value in self._requests.end().items()]
        return [*counted, Write("meta", "total", str(self._total).encode())]


def _weight(write: Write) -> int:
    """Bytes that count for a session's limits. Where many values are short the names of fields count too."""
    of_field = len(write.place) if write.part == "requests" else 0
    return of_field + len(write.value) if write.part in _WEIGHED else 0


class _Seen(NamedTuple):
    """A node that came. `depth` 0: it is missing. `asked`, `replied`: whether a user message, and a reply to
    it, stand on its path."""

    depth: int
    asked: bool
    replied: bool


_CHECKS: Mapping[str, Callable[[Reader, str, bytes], bool]] = {
    "branches": Reader._is_branch,
    "tips": Reader._is_tip,
    "named": Reader._is_snapshot,
    "snapshots": Reader._is_expiry,
    "subtasks": Reader._is_subtask,
    "marks": Reader._is_mark,
    "agents": Reader._is_agent,
    "profile": Reader._is_profile,
}


def _ids_of(parent: str, body: Any) -> set[str]:
    """The ids that a stored message may have under a parent: whether a result's call was in sight when it came
    can change how it was read."""
    if not isinstance(body, dict) or body.get("api") not in CODECS:
        raise ValueError("body is no stored message")
    codec = CODECS[body["api"]]
    wire = codec.join([body["wire"]])
    found = set()
    for continued in (False, True):
        messages = codec.parse(wire, continued=continued)
        if len(messages) == 1:
            found.add(node_id(parent, messages[0]))
    return found


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    value.encode()  # what UTF-8 cannot carry is no name of anything that is stored
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a flag is neither true nor false")
    return value
