"""Subtasks: what a plan executor begins, ends, tries again and takes back."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import (
    CURSOR,
    LIMIT,
    OFFSET,
    ApiError,
    Context,
    Json,
    Query,
    Rule,
    address_of,
    json_body,
    not_found,
    number,
)
from proxy_plugin.history.dependencies import text_of_stored
from proxy_plugin.history.model import dump
from proxy_plugin.history.redaction import STRUCTURE
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.subtasks import MAX_DEPENDENCIES, MAX_METADATA_BYTES, Outcome, Plan, Refusal
from proxy_plugin.sessions.tree import MAX_ATTEMPTS, Subtask, rfc3339

_PAGE = 50
_LARGEST_PAGE = 500
_LONGEST = 1_000
"""Characters of an id, a description or an agent: what is kept of those that come with a request."""


async def list_subtasks(context: Context, request: Request) -> Response:
    address = address_of(await context.session(request))
    limit = number(request, "limit", _PAGE, 1, _LARGEST_PAGE)
    offset = number(request, "cursor", number(request, "offset", 0, 0), 0)
    subtasks = await context.ask(context.sessions.reader.subtasks(address))
    state = request.query_params.get("state")
    wanted = [subtask for subtask in subtasks if state in (None, subtask.state)]
    page = await context.ask(context.sessions.subtasks.outcomes(address, wanted[offset : offset + limit]))
    following = offset + limit
    return Json(
        {
            "subtasks": [_shown(outcome) for outcome in page],
            "total": len(wanted),
            "cursor": str(following) if following < len(wanted) else None,
        }
    )


async def begin(context: Context, request: Request) -> Response:
    address = address_of(await context.session(request))
    plan = _plan(
        await json_body(request, {"id": str, "description": str, "agent": str, "depends_on": list, "metadata": dict})
    )
    begun = await context.ask(context.sessions.subtasks.begin(address, plan))
    if isinstance(begun, Refusal):
        raise _error(begun)
    subtask, now = begun
    return await _answer(context, address, subtask, 201 if now else 200)


async def complete(context: Context, request: Request) -> Response:
    address = address_of(await context.session(request))
    body = await json_body(request, {"result": str})
    ended = await context.ask(context.sessions.subtasks.complete(address, _named(request), body.get("result")))
    return await _ended(context, address, ended)


async def fail(context: Context, request: Request) -> Response:
    address = address_of(await context.session(request))
    body = await json_body(request, {"error_message": str})
    ended = await context.ask(context.sessions.subtasks.fail(address, _named(request), body.get("error_message")))
    return await _ended(context, address, ended)


async def roll_back(context: Context, request: Request) -> Response:
    address = address_of(await context.session(request))
    await json_body(request, {})
    return await _ended(
        context, address, await context.ask(context.sessions.subtasks.roll_back(address, _named(request)))
    )


async def _ended(context: Context, address: Address, ended: Subtask | Refusal) -> Response:
    if isinstance(ended, Refusal):
        raise _error(ended)
    return await _answer(context, address, ended, 200)


async def _answer(context: Context, address: Address, subtask: Subtask, status: int) -> Response:
    (outcome,) = await context.ask(context.sessions.subtasks.outcomes(address, [subtask]))
    return Json(_shown(outcome), status_code=status)


def _named(request: Request) -> str:
    return str(request.path_params["subtask_id"])


def _error(refusal: Refusal) -> ApiError:
    return not_found(refusal.reason, "subtask_id") if refusal.unknown else ApiError(409, refusal.reason)


def _plan(body: dict[str, Any]) -> Plan:
    """Raises ApiError 400."""
    for key in ("id", "description", "agent"):
        if len(body.get(key, "")) > _LONGEST:
            raise ApiError(400, f"{key} is longer than {_LONGEST} characters", param=key)
    if not body.get("id", "").strip():
        raise ApiError(400, "a subtask needs an id", param="id")
    depends_on = body.get("depends_on", [])
    if len(depends_on) > MAX_DEPENDENCIES or not all(isinstance(one, str) and one.strip() for one in depends_on):
        raise ApiError(400, f"depends_on must be at most {MAX_DEPENDENCIES} ids of subtasks", param="depends_on")
    metadata = body.get("metadata", {})
    if len(dump(metadata)) > MAX_METADATA_BYTES:
        raise ApiError(400, f"metadata is larger than {MAX_METADATA_BYTES} bytes", param="metadata")
    unique = tuple(dict.fromkeys(depends_on))
    return Plan(body["id"], body.get("description"), body.get("agent"), unique, metadata)


def _shown(outcome: Outcome) -> dict[str, Any]:
    subtask = outcome.subtask
    ended = subtask.ended_ms
    text = subtask.result_text
    if text is None and subtask.result and not outcome.withheld:
        text = text_of_stored(outcome.body)
    return {
        "id": subtask.id,
        "state": subtask.state,
        "description": subtask.description,
        "agent": subtask.agent,
        "depends_on": list(subtask.depends_on),
        "attempts": subtask.attempts,
        "max_attempts": MAX_ATTEMPTS,
        "error_message": subtask.error_message,
        "result": text,
        **({"content": STRUCTURE} if outcome.withheld else {}),
        "result_node": subtask.result,
        "base_node": subtask.base or None,
        "snapshot_id": subtask.snapshot_id,
        "started_at": rfc3339(subtask.started_ms),
        "ended_at": rfc3339(ended) if ended is not None else None,
        "explicit": subtask.explicit,
        "metadata": dict(subtask.metadata),
    }


_ONE = "/sessions/{session_id}/subtasks/{subtask_id:rest}/"

_TEXT = {"type": "string"}
RULES = (
    Rule(
        "GET",
        "/sessions/{session_id}/subtasks",
        list_subtasks,
        "The subtasks of a session, in order.",
        query=(LIMIT, CURSOR, OFFSET, Query("state", "Only those in this state.")),
    ),
    Rule(
        "POST",
        "/sessions/{session_id}/subtasks",
        begin,
        "Begins a subtask, or a further attempt at one.",
        body={
            "id": _TEXT,
            "description": _TEXT,
            "agent": _TEXT,
            "depends_on": {"type": "array", "items": _TEXT, "description": "Ids of subtasks that it needs."},
            "metadata": {"type": "object", "description": f"At most {MAX_METADATA_BYTES} bytes."},
        },
        required=("id",),
        status=201,
        also=200,
    ),
    Rule(
        "POST",
        _ONE + "complete",
        complete,
        "A subtask is done; its result is for those that depend on it.",
        body={"result": _TEXT},
    ),
    Rule(
        "POST",
        _ONE + "fail",
        fail,
        "An attempt at a subtask failed; it can begin again, three times in all.",
        body={"error_message": _TEXT},
    ),
    Rule("POST", _ONE + "rollback", roll_back, "The session goes back to where a subtask began.", body={}),
)
