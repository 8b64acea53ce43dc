"""How a commit's records are written for the scripts, and how stored ones are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

import orjson

from proxy_plugin.history.redaction import is_redacted
from proxy_plugin.sessions import identity, keys, tree
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.texts import Texts
from proxy_plugin.sessions.tree import Base, Commit, SessionInfo, Snapshot, StoredNode, Subtask

T = TypeVar("T")

GOES_ON = "goes_on"
"""In the place of a subtask's field: the one that the base belongs to."""


def subtask_said(commit: Commit, lead_count: int, snapshot_ttl_ms: int, texts: Texts) -> dict[str, str]:
    """What the commit says of subtasks, in the words of the script."""
    ids = commit.ids
    start, explicit, name, mark = commit.subtask_start, "", "", ""
    if commit.subtask_id is not None:
        explicit, name = keys.subtask_field(commit.subtask_id), tree.clean(commit.subtask_id)
        start = min(commit.explicit_base, len(ids) - 1)
        mark = commit.before(start) if start >= 0 else ""
    said = {"explicit": explicit, "name": name, "mark": mark, "subtask": ""}
    ended = _end(commit.tip, commit.at_ms) if commit.closes else ""
    said |= {"attempts": str(tree.MAX_ATTEMPTS), "again": attempt_said(commit.at_ms, commit.subtask_given)}
    if start < 0 and commit.base is not None:
        return {**said, "subtask": GOES_ON, "before": "", "ended": ended}
    if not 0 <= start < len(ids) or commit.subtask_start >= len(ids):
        return said
    before = commit.before(start)
    subtask_id = name if explicit else tree.automatic(ids[start])
    agent = _cleaned(commit.subtask_agent) or _cleaned(commit.agent)
    beginning = Beginning(
        id=subtask_id,
        base=before,
        first=ids[start],
        at_ms=commit.at_ms,
        agent=agent,
        description=_cleaned(commit.subtask_description),
        explicit=bool(explicit),
        depends_on=commit.subtask_depends_on,
        given=commit.subtask_given,
        metadata=commit.subtask_metadata,
        size_bytes=commit.size_bytes,
        message_count=commit.depth - len(ids) + start + lead_count,
    )
    return {
        **said,
        "subtask": explicit or subtask_id,
        **begun(beginning, texts),
        "before": before,
        "expires": str(commit.at_ms + snapshot_ttl_ms),
        "ended": ended,
        "ended_before": _end(before, commit.at_ms),
    }


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a subtask begins. `size_bytes` and `message_count`: of the path that its snapshot names."""

    id: str
    base: str
    first: str
    at_ms: int
    agent: str | None
    description: str | None
    explicit: bool
    depends_on: Sequence[str] = ()
    given: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    size_bytes: int = 0
    message_count: int = 0


def begun(said: Beginning, texts: Texts) -> dict[str, str]:
    """The record of a subtask that begins, and its automatic snapshot, in the words of the scripts."""
    snapshot_id = "snap-" + sha256(f"{said.base}\0{said.id}".encode()).hexdigest()[:16]
    record = {
        "id": said.id,
        "base": said.base,
        "first": said.first,
        "started": said.at_ms,
        "agent": said.agent,
        "description": said.description,
        "snapshot": snapshot_id,
        "explicit": said.explicit,
    }
    needs, given = ([tree.clean(one) for one in ids] for ids in (said.depends_on, said.given))
    optional = {"depends_on": needs, "given": given, "metadata": said.metadata}
    named = {
        "name": said.id,
        "node": said.base,
        "created": said.at_ms,
        "size": said.size_bytes,
        "messages": said.message_count,
        "agent": said.agent,
        "auto": True,
    }
    return {
        "record": _json(texts.sealed("subtasks", record | {key: value for key, value in optional.items() if value})),
        "snapshot": snapshot_id,
        "named": _json(texts.sealed("named", named))[1:],
    }


def attempt_said(at_ms: int, given: Sequence[str]) -> str:
    """What is noted of a further attempt at a subtask, without its beginning, which the script knows."""
    said: dict[str, Any] = {"state": "in_progress", "started": at_ms}
    return _json(said | ({"given": [tree.clean(one) for one in given]} if given else {}))[1:]


def _end(result: str, at_ms: int) -> str:
    return _json({"state": "completed", "result": result, "ended": at_ms})


def agent_said(commit: Commit, texts: Texts) -> dict[str, str]:
    """The agent, and the JSON of a switch to it without its `from`, which the script knows."""
    if not commit.agent:
        return {"agent": "", "switch": ""}
    agent, reason = tree.clean(commit.agent), _cleaned(commit.agent_reason)
    switch = texts.sealed("agents", {"to": agent, "reason": reason, "timestamp": commit.at_ms})
    return {"agent": agent, "switch": _json(switch)[1:]}


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()


def _cleaned(text: str | None) -> str | None:
    return None if text is None else tree.clean(text)


def session_info(
    address: Address,
    meta: dict[bytes, bytes],
    switches: int,
    last: bytes | None,
    branches: int,
    snapshots: int,
) -> SessionInfo | None:
    if b"created" not in meta:
        return None
    return SessionInfo(
        tenant=address.tenant,
        session_id=address.session_id,
        message_count=_number(meta, b"messages"),
        created_ms=_number(meta, b"created"),
        last_activity_ms=_number(meta, b"last") or _number(meta, b"created"),
        current_agent=meta[b"agent"].decode(errors="replace") if b"agent" in meta else None,
        agent_history=(),
        switch_count=switches,
        last_switch_ms=readable(lambda entry: int(orjson.loads(entry)["timestamp"]), last) if last else None,
        branch=meta.get(b"cur", b"").decode(errors="replace"),
        head=meta.get(b"head", b"").decode(errors="replace"),
        branches=branches,
        snapshots=snapshots,
        subtasks=_number(meta, b"subtasks"),
        requests=_number(meta, b"requests"),
        size_bytes=_number(meta, b"bytes"),
        title=meta[b"title"].decode(errors="replace") if b"title" in meta else None,
    )


def _number(meta: Mapping[bytes, bytes], name: bytes) -> int:
    """0 where it is not there or damaged."""
    text = meta.get(name, b"")
    return int(text) if text.isdigit() else 0


def profile_values(stored: dict[bytes, bytes]) -> dict[str, Any]:
    """What a user gave to a session beside its title, by the names of SessionInfo; without what is damaged."""
    values = {
        "description": readable(bytes.decode, stored.get(b"description")),
        "metadata": readable(orjson.loads, stored.get(b"metadata")),
        "aliases": readable(lambda aliases: tuple(orjson.loads(aliases)), stored.get(b"aliases")),
    }
    return {name: value for name, value in values.items() if value is not None}


def subtask_record(began: bytes, ended: bytes | None) -> Subtask:
    record = orjson.loads(began)
    end = orjson.loads(ended) if ended else {}
    return Subtask(
        id=record["id"],
        state=end.get("state", "in_progress"),
        base=record["base"],
        first=record["first"],
        result=end.get("result"),
        started_ms=end.get("started") or record["started"],
        ended_ms=end.get("ended"),
        agent=record["agent"],
        description=record["description"],
        snapshot_id=record["snapshot"],
        explicit=record["explicit"],
        attempts=end.get("attempts") or 1,
        error_message=end.get("error"),
        result_text=end.get("text"),
        depends_on=tuple(record.get("depends_on", ())),
        given=tuple(end.get("given") or (() if "started" in end else record.get("given", ()))),
        metadata=record.get("metadata") or {},
        withheld=is_redacted(end),
    )


def snapshot_record(snapshot_id: str, stored: bytes, expires: float) -> Snapshot:
    record = orjson.loads(stored)
    return Snapshot(
        snapshot_id=snapshot_id,
        name=record["name"] or "",
        node=record["node"],
        created_ms=record["created"],
        expires_ms=None if math.isinf(expires) else int(expires),
        size_bytes=record["size"],
        message_count=record["messages"],
        agent=record["agent"],
        auto=record["auto"],
        title=record["title"],
    )


def encode_base(base: Base) -> bytes:
    """Needs an address whose session id is known."""
    record = {
        "session": base.address.session_id,
        "node": base.node,
        "depth": base.depth,
        "concluded": base.concluded,
        "first": base.first_reply,
        "lead": base.lead_count,
    }
    return orjson.dumps(record)


def decode_base(tenant: str, stored: bytes | None) -> Base | None:
    try:
        record = orjson.loads(stored or b"")
        place = identity.address(tenant, record["session"])
        return Base(record["node"], record["depth"], record["concluded"], record["first"], record["lead"], place)
    except (ValueError, KeyError, TypeError):
        return None


def agent_switch(stored: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = orjson.loads(stored)
    return {**entry, "timestamp": tree.rfc3339(entry["timestamp"])}


def stored_node(node: str, head: bytes | None, body: bytes | None = None) -> StoredNode | None:
    """None where the head is damaged or not there. `body`: the node's, decoded."""
    try:
        return tree.decode_head(node, head, body) if head is not None else None
    except ValueError:
        return None


def readable_body(body: bytes | None) -> bytes | None:
    """None where the body is no JSON object or list."""
    try:
        return body if body is not None and isinstance(orjson.loads(body), dict | list) else None
    except ValueError:
        return None


def readable(read: Callable[..., T], *stored: Any) -> T | None:
    """What `read` makes of a stored record, None where that is damaged."""
    try:
        return read(*stored)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def list_length(body: bytes) -> int:
    try:
        value = orjson.loads(body)
    except ValueError:
        return 0
    return len(value) if isinstance(value, list) else 0
