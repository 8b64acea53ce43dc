"""Sessions: the list of them, one, what a user notes of it, its agent, and the end of it and of a whole tenant."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import orjson
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
    granted,
    index_cursor,
    json_body,
    number,
    wanted_tenant,
)
from proxy_plugin.sessions.identity import is_tenant
from proxy_plugin.sessions.index import SETTLED_SECONDS
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.tree import SessionInfo, rfc3339

_PAGE = 50
_LARGEST_PAGE = 500
_TITLE, _DESCRIPTION, _METADATA_BYTES, _ALIASES = 200, 4_000, 16 * 1024, 32
_ALIAS = re.compile(r"(?!\.{1,2}\Z)[^\x00-\x1f\x7f/]{1,256}\Z")
_AT_A_TIME = 16
"""Sessions of a tenant that are deleted at the same time."""
_EMPTY_LISTS = 2


async def list_sessions(context: Context, request: Request) -> Response:
    caller = await context.authenticate(request)
    query = request.query_params
    if "tenant" in query and not caller.admin:
        raise ApiError(403, "only an admin key may ask for a tenant", kind="auth_error", param="tenant")
    page = await context.ask(
        context.sessions.index.sessions(
            wanted_tenant(request, caller) if caller.admin else caller.tenant,
            limit=number(request, "limit", _PAGE, 1, _LARGEST_PAGE),
            offset=number(request, "offset", 0, 0),
            cursor=index_cursor(request),
            agent=query.get("agent"),
            active_since_ms=_moment(request, "active_since"),
        )
    )
    return Json({"sessions": [summary(info) for info in page.sessions], "total": page.total, "cursor": page.cursor})


async def show_session(context: Context, request: Request) -> Response:
    return Json(_whole(await context.session(request)))


async def change_session(context: Context, request: Request) -> Response:
    info = await context.session(request)
    body = await json_body(request, {"title": str, "description": str, "metadata": dict, "aliases": list})
    profile = Profile(
        title=_text(body, "title", _TITLE),
        description=_text(body, "description", _DESCRIPTION),
        metadata=body.get("metadata"),
        aliases=_aliases(body.get("aliases")),
    )
    if len(orjson.dumps(profile.metadata)) > _METADATA_BYTES:
        raise ApiError(400, f"metadata must be at most {_METADATA_BYTES} bytes of JSON", param="metadata")
    changed = await context.ask(context.sessions.profiles.change(address_of(info), profile))
    return Json(_whole(granted(changed, "aliases")))


async def delete_session(context: Context, request: Request) -> Response:
    info = await context.session(request)
    await context.ask(context.sessions.delete(address_of(info)))
    return Json({"session_id": info.session_id, "deleted": True})


async def delete_tenant(context: Context, request: Request) -> Response:
    """A few sessions at a time, so that no number of them is too much for one answer of the store. Ends when none
    is found twice: other workers may yet have to list some."""
    if not (await context.authenticate(request)).admin:
        raise ApiError(403, "deleting a tenant needs an admin key", kind="auth_error")
    tenant = request.path_params["tenant"]
    if not is_tenant(tenant):
        raise ApiError(400, "a tenant is named by the 32 hexadecimal digits that listings show", param="tenant")
    deleted = empty = 0
    while empty < _EMPTY_LISTS:
        listed, gone = await context.ask(context.sessions.erase(tenant, _AT_A_TIME))
        deleted += gone
        empty = 0 if listed else empty + 1
        if empty == 1:
            await asyncio.sleep(SETTLED_SECONDS)
    return Json({"tenant": tenant, "deleted": deleted})


async def current_agent(context: Context, request: Request) -> Response:
    info = await context.session(request)
    return Json(
        {
            "session_id": info.session_id,
            "current_agent": info.current_agent,
            "agent_history": list(info.agent_history),
            "switch_count": info.switch_count,
            "last_switch_at": _time_of(info.last_switch_ms),
            "context_metadata": info.metadata,
        }
    )


def summary(info: SessionInfo) -> dict[str, Any]:
    return {
        "session_id": info.session_id,
        "tenant": info.tenant,
        "title": info.title,
        "message_count": info.message_count,
        "token_estimate": info.token_estimate,
        "created_at": rfc3339(info.created_ms),
        "last_activity": rfc3339(info.last_activity_ms),
        "current_agent": info.current_agent,
        "switch_count": info.switch_count,
        "last_switch_at": _time_of(info.last_switch_ms),
        "branch": info.branch or None,
        "branches": info.branches,
        "snapshots": info.snapshots,
        "subtasks": info.subtasks,
        "requests": info.requests,
    }


def _whole(info: SessionInfo) -> dict[str, Any]:
    return {
        **summary(info),
        "head": info.head or None,
        "description": info.description,
        "metadata": info.metadata,
        "aliases": list(info.aliases),
        "agent_history": list(info.agent_history),
    }


def _time_of(ms: int | None) -> str | None:
    return rfc3339(ms) if ms is not None else None


def _moment(request: Request, name: str) -> int:
    """Milliseconds since 1970 from a number of them or from RFC 3339 (without an offset: UTC); 0 where not said."""
    text = request.query_params.get(name, "0")
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # an offset's "+" that was not escaped
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ApiError(
            400, f"{name} must be a time in RFC 3339 or milliseconds, not {text[:40]!r}", param=name
        ) from None


def _text(body: dict[str, Any], name: str, longest: int) -> str | None:
    text: str | None = body.get(name)
    if text is not None and len(text := text.strip()) > longest:
        raise ApiError(400, f"{name} must have at most {longest} characters", param=name)
    return text


def _aliases(given: list[Any] | None) -> list[str] | None:
    if given is None:
        return None
    aliases = [alias.strip() for alias in given if isinstance(alias, str)]
    if len(aliases) < len(given) or len(aliases) > _ALIASES or not all(map(_ALIAS.match, aliases)):
        raise ApiError(
            400,
            f"aliases must be at most {_ALIASES} texts of 1 to 256 characters, no control characters, no slash",
            param="aliases",
        )
    return aliases


RULES = (
    Rule(
        "GET",
        "/sessions",
        list_sessions,
        "The sessions, newest activity first.",
        query=(
            LIMIT,
            CURSOR,
            OFFSET,
            Query("agent", "Only those in which this agent works now; a page may be short and still have a cursor."),
            Query("active_since", "Only those active since then: RFC 3339, or milliseconds since 1970."),
            Query("tenant", "Only this tenant's; for an admin's key."),
        ),
    ),
    Rule("GET", "/sessions/{session_id}", show_session, "One session, without its messages."),
    Rule(
        "PATCH",
        "/sessions/{session_id}",
        change_session,
        "Set what is noted of a session; what is empty is taken away.",
        body={
            "title": {"type": "string", "maxLength": _TITLE},
            "description": {"type": "string", "maxLength": _DESCRIPTION},
            "metadata": {"type": "object", "description": f"At most {_METADATA_BYTES} bytes."},
            "aliases": {
                "type": "array",
                "items": {"type": "string"},
                "maxItems": _ALIASES,
                "description": "Other names for the session in these routes.",
            },
        },
    ),
    Rule("DELETE", "/sessions/{session_id}", delete_session, "Delete a session with everything in it."),
    Rule("DELETE", "/tenants/{tenant}", delete_tenant, "Delete all sessions of a tenant. Needs an admin key."),
    Rule("GET", "/agents/{session_id}/current", current_agent, "The agent that works in a session."),
)
