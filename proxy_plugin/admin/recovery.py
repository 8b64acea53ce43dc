"""What was interrupted when a worker was lost, and what is not done yet."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import CURSOR, LIMIT, Context, Json, Query, Rule, index_cursor, number, wanted_tenant
from proxy_plugin.sessions.recovery import SessionState
from proxy_plugin.sessions.tree import Subtask, rfc3339

STATES = ("pending", "in_progress", "completed", "failed", "rolled_back")
_LIMIT, _MOST = 100, 500


async def report(context: Context, request: Request) -> Response:
    """`totals` count the subtasks of the sessions that were looked at: those that were interrupted, and the `limit`
    newest ones. Sessions whose subtasks are all done are counted and not listed."""
    caller = await context.authenticate(request)
    tenant = wanted_tenant(request, caller) if caller.admin else caller.tenant
    limit = number(request, "limit", _LIMIT, 1, _MOST)
    found = await context.ask(context.sessions.recovery.report(tenant, limit=limit, cursor=index_cursor(request)))
    known = found.starts_and_stops
    return Json(
        {
            **{name: _time(known.get(name)) for name in ("last_start", "last_clean_stop", "last_unclean_stop")},
            "unclean_stops": known.get("unclean_stops", 0),
            "totals": {state: found.totals[state] for state in STATES},
            "interrupted": sum(state.interruption is not None for state in found.sessions),
            "sessions": [_session(state) for state in found.sessions],
            "cursor": found.cursor,
        }
    )


def _session(state: SessionState) -> dict[str, Any]:
    interruption, foremost, counts = state.interruption, state.foremost, state.counts
    return {
        "session_id": state.info.session_id,
        "tenant": state.info.tenant,
        "subtask": foremost.id if foremost else None,
        "state": foremost.state if foremost else None,
        "attempts": foremost.attempts if foremost else None,
        "iteration_count": state.info.requests,
        "current_subtask": state.current.id if state.current else None,
        "interrupted": interruption is not None,
        "interrupted_at": _time(interruption.at_ms if interruption is not None else None),
        "interrupted_calls": interruption.calls if interruption is not None else 0,
        "incomplete": counts["pending"] + counts["in_progress"],
        "failed": counts["failed"],
        "subtasks": [_subtask(subtask) for subtask in state.subtasks],
        "last_activity": rfc3339(state.info.last_activity_ms),
    }


def _subtask(subtask: Subtask) -> dict[str, Any]:
    return {
        "id": subtask.id,
        "state": subtask.state,
        "attempts": subtask.attempts,
        "error_message": subtask.error_message,
        "started_at": rfc3339(subtask.started_ms),
    }


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)


RULES = (
    Rule(
        "GET",
        "/recovery",
        report,
        "What lost workers interrupted, and what is not done yet.",
        query=(LIMIT, CURSOR, Query("tenant", "Only this tenant's; for an admin's key.")),
    ),
)
