"""How a commit's records are written for the scripts, and how stored ones are read."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from proxy_plugin.sessions import identity, keys, tree
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.tree import Base, Commit, SessionInfo, Snapshot, StoredNode, Subtask

GOES_ON = "goes_on"
"""In the place of a subtask's field: the one that the base belongs to."""


def subtask_said(commit: Commit, lead_count: int, snapshot_ttl_ms: int) -> dict[str, str]:
    """What the commit says of subtasks, in the words of the script."""
    ids = commit.ids
    start, explicit, name, mark = commit.subtask_start, "", "", ""
    if commit.subtask_id is not None:
        explicit, name = keys.subtask_field(commit.subtask_id), tree.clean(commit.subtask_id)
        start = min(commit.explicit_base, len(ids) - 1)
        mark = commit.before(start) if start >= 0 else ""
    said = {"explicit": explicit, "name": name, "mark": mark, "subtask": ""}
    ended = _end(commit.tip, commit.at_ms) if commit.closes else ""
    if start < 0 and commit.base is not None:
        return {**said, "subtask": GOES_ON, "before": "", "ended": ended}
    if not 0 <= start < len(ids) or commit.subtask_start >= len(ids):
        return said
    before = commit.before(start)
    subtask_id = name if explicit else tree.automatic(ids[start])
    agent = _cleaned(commit.subtask_agent) or _cleaned(commit.agent)
    snapshot_id = "snap-" + sha256(f"{before}\0{subtask_id}".encode()).hexdigest()[:16]
    record = {
        "id": subtask_id,
        "base": before,
        "first": ids[start],
        "started": commit.at_ms,
        "agent": agent,
        "description": _cleaned(commit.subtask_description),
        "snapshot": snapshot_id,
        "explicit": bool(explicit),
    }
    snapshot = {
        "id": snapshot_id,
        "name": subtask_id,
        "node": before,
        "created": commit.at_ms,
        "size": commit.size_bytes,
        "messages": commit.depth - len(ids) + start + lead_count,
        "agent": agent,
        "auto": True,
    }
    return {
        **said,
        "subtask": explicit or subtask_id,
        "record": _json(record),
        "before": before,
        "snapshot": _json(snapshot),
        "expires": str(commit.at_ms + snapshot_ttl_ms),
        "ended": ended,
        "ended_before": _end(before, commit.at_ms),
    }


def _end(result: str, at_ms: int) -> str:
    return _json({"state": "completed", "result": result, "ended": at_ms})


def agent_said(commit: Commit) -> dict[str, str]:
    """The agent, and the JSON of a switch to it without its `from`, which the script knows."""
    if not commit.agent:
        return {"agent": "", "switch": ""}
    agent, reason = tree.clean(commit.agent), _cleaned(commit.agent_reason)
    return {"agent": agent, "switch": _json({"to": agent, "reason": reason, "timestamp": commit.at_ms})[1:]}


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
        message_count=int(meta.get(b"messages", 0)),
        created_ms=int(meta[b"created"]),
        last_activity_ms=int(meta.get(b"last", meta[b"created"])),
        current_agent=meta[b"agent"].decode() if b"agent" in meta else None,
        agent_history=(),
        switch_count=switches,
        last_switch_ms=orjson.loads(last)["timestamp"] if last else None,
        branch=meta.get(b"cur", b"").decode(),
        head=meta.get(b"head", b"").decode(),
        branches=branches,
        snapshots=snapshots,
        subtasks=int(meta.get(b"subtasks", 0)),
        requests=int(meta.get(b"requests", 0)),
    )


def subtask_record(began: bytes, ended: bytes | None) -> Subtask:
    record = orjson.loads(began)
    end = orjson.loads(ended) if ended else {}
    return Subtask(
        id=record["id"],
        state=end.get("state", "in_progress"),
        base=record["base"],
        first=record["first"],
        result=end.get("result"),
        started_ms=record["started"],
        ended_ms=end.get("ended"),
        agent=record["agent"],
        description=record["description"],
        snapshot_id=record["snapshot"],
        explicit=record["explicit"],
    )


def snapshot_record(stored: bytes, expires: float) -> Snapshot:
    record = orjson.loads(stored)
    return Snapshot(
        snapshot_id=record["id"],
        name=record["name"],
        node=record["node"],
        created_ms=record["created"],
        expires_ms=int(expires),
        size_bytes=record["size"],
        message_count=record["messages"],
        agent=record["agent"],
        auto=record["auto"],
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


def stored_node(node: str, head: bytes | None, body: bytes | None) -> StoredNode | None:
    try:
        return tree.decode_head(node, head, stored_body(body)) if head is not None else None
    except ValueError:
        return None


def stored_body(stored: bytes | None) -> bytes | None:
    try:
        return tree.decode_body(stored) if stored is not None else None
    except ValueError:
        return None


def list_length(body: bytes) -> int:
    try:
        value = orjson.loads(body)
    except ValueError:
        return 0
    return len(value) if isinstance(value, list) else 0
