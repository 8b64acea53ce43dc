"""Sessions: the list of them, one, and its agent."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import Context, Json, Rule, number
from proxy_plugin.sessions.tree import SessionInfo, rfc3339

_PAGE = 50
_LARGEST_PAGE = 500


async def list_sessions(context: Context, request: Request) -> Response:
    caller = await context.authenticate(request)
    limit = number(request, "limit", _PAGE, 1, _LARGEST_PAGE)
    offset = number(request, "offset", 0, 0)
    tenant = None if caller.admin else caller.tenant
    page = await context.ask(context.sessions.index.sessions(tenant, limit=limit, offset=offset))
    return Json({"sessions": [summary(info) for info in page.sessions], "total": page.total})


async def show_session(context: Context, request: Request) -> Response:
    info = await context.session(request)
    return Json({**summary(info), "agent_history": list(info.agent_history), "switch_count": info.switch_count})


async def current_agent(context: Context, request: Request) -> Response:
    info = await context.session(request)
    return Json(
        {
            "session_id": info.session_id,
            "current_agent": info.current_agent,
            "agent_history": list(info.agent_history),
            "switch_count": info.switch_count,
            "last_switch_at": rfc3339(info.last_switch_ms) if info.last_switch_ms is not None else None,
            "context_metadata": {},
        }
    )


def summary(info: SessionInfo) -> dict[str, Any]:
    return {
        "session_id": info.session_id,
        "tenant": info.tenant,
        "message_count": info.message_count,
        "created_at": rfc3339(info.created_ms),
        "last_activity": rfc3339(info.last_activity_ms),
        "current_agent": info.current_agent,
        "branch": info.branch,
        "branches": info.branches,
        "snapshots": info.snapshots,
        "subtasks": info.subtasks,
        "requests": info.requests,
    }


RULES = (
    Rule("GET", "/sessions", list_sessions, "The sessions, newest activity first."),
    Rule("GET", "/sessions/{session_id}", show_session, "One session, without its messages."),
    Rule("GET", "/agents/{session_id}/current", current_agent, "The agent that works in a session."),
)
