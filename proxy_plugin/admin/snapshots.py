"""Snapshots of a session: list, create, restore, delete."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import LIMIT, OFFSET, ApiError, Context, Json, Rule, address_of, granted, json_body, sliced
from proxy_plugin.sessions.tree import Snapshot, rfc3339

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}\Z")
_LONGEST_TTL_S = 10 * 365 * 24 * 3600


async def list_snapshots(context: Context, request: Request) -> Response:
    info = await context.session(request)
    snapshots = await context.ask(context.sessions.reader.snapshots(address_of(info)))
    page, total = sliced(request, snapshots)
    return Json({"session_id": info.session_id, "snapshots": [_shown(one) for one in page], "total": total})


async def create_snapshot(context: Context, request: Request) -> Response:
    info = await context.session(request)
    body = await json_body(request, {"name": str, "node": str, "pin": bool, "ttl": (int, float)})
    name, ttl = body.get("name", "").strip(), body.get("ttl")
    if not _NAME.match(name):
        raise ApiError(400, "name must have 1 to 200 characters and no control characters", param="name")
    if ttl is not None and not 1 <= ttl <= _LONGEST_TTL_S:
        raise ApiError(400, f"ttl must be a number of seconds from 1 to {_LONGEST_TTL_S}", param="ttl")
    if ttl is not None and body.get("pin"):
        raise ApiError(400, "a pinned snapshot has no ttl", param="ttl")
    made = await context.ask(
        context.sessions.snapshots.create(
            address_of(info),
            name,
            node=body.get("node"),
            pin=body.get("pin", False),
            ttl_ms=None if ttl is None else int(ttl * 1000),
        )
    )
    return Json({"session_id": info.session_id, **_shown(granted(made, "node"))}, status_code=201)


async def restore_snapshot(context: Context, request: Request) -> Response:
    try:
        info = await context.session(request)
    except ApiError as error:
        if error.status == 404:
            context.sessions.snapshots.not_restored()
        raise
    body = await json_body(request, {"preserve_last_result": bool, "delete": bool})
    answer = await context.ask(
        context.sessions.snapshots.restore(
            address_of(info),
            request.path_params["snapshot_id"],
            preserve_last_result=body.get("preserve_last_result", True),
            delete=body.get("delete", False),
        )
    )
    restored = granted(answer, "snapshot_id")
    return Json(
        {
            "session_id": info.session_id,
            "snapshot_id": restored.snapshot_id,
            "branch": restored.branch,
            "head": restored.head or None,
            "message_count": restored.message_count,
            "restored": True,
        }
    )


async def delete_snapshot(context: Context, request: Request) -> Response:
    info = await context.session(request)
    answer = await context.ask(context.sessions.snapshots.delete(address_of(info), request.path_params["snapshot_id"]))
    snapshot = granted(answer, "snapshot_id")
    return Json({"session_id": info.session_id, "snapshot_id": snapshot.snapshot_id, "deleted": True})


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot.snapshot_id,
        "name": snapshot.name,
        "node": snapshot.node or None,
        "title": snapshot.title,
        "agent": snapshot.agent,
        "message_count": snapshot.message_count,
        "created_at": rfc3339(snapshot.created_ms),
        "expires_at": rfc3339(snapshot.expires_ms) if snapshot.expires_ms is not None else None,
        "size_bytes": snapshot.size_bytes,
        "pinned": snapshot.pinned,
        "auto": snapshot.auto,
    }


_ALL, _ONE = "/sessions/{session_id}/snapshots", "/sessions/{session_id}/snapshots/{snapshot_id}"
RULES = (
    Rule(
        "GET",
        _ALL,
        list_snapshots,
        "The snapshots that have not expired, in the order they were made.",
        query=(LIMIT, OFFSET),
    ),
    Rule(
        "POST",
        _ALL,
        create_snapshot,
        "Name a message of the session, by default its newest, to come back to it.",
        body={
            "name": {"type": "string"},
            "node": {"type": "string", "description": "The message: its id, or the first 12 characters."},
            "pin": {"type": "boolean", "description": "Keep it as long as the session."},
            "ttl": {"type": "number", "description": "Seconds that it is kept."},
        },
        required=("name",),
        status=201,
    ),
    Rule(
        "POST",
        _ONE + "/restore",
        restore_snapshot,
        "Go on from a snapshot, on a new branch. What came after it stays on its own.",
        body={
            "preserve_last_result": {"type": "boolean", "default": True, "description": "Put the last result on top."},
            "delete": {"type": "boolean", "default": False, "description": "Forget the snapshot."},
        },
    ),
    Rule("DELETE", _ONE, delete_snapshot, "Forget a snapshot. Its messages stay."),
)
