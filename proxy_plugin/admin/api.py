"""The HTTP routes: sessions, their history, agents, health and metrics. Plain Starlette.

Whoever mounts them says how a request is authenticated. A session of another tenant is the same 404 as
one that does not exist.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import FIELDS, WireHistory, parsed, unwrap
from proxy_plugin.logs import describe
from proxy_plugin.metrics import Metrics
from proxy_plugin.sessions.identity import Address, address
from proxy_plugin.sessions.tree import History, SessionInfo, StoredNode, rfc3339
from proxy_plugin.sessions.writer import GuardedStore, StoreUnavailable

_log = logging.getLogger("proxy_plugin")

_PAGE = 50
_LARGEST_PAGE = 500
_HEALTH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the tenant whose sessions these are, and whether the key is the proxy's admin."""

    tenant: str
    admin: bool


class ApiError(Exception):
    """An error that the client shall see, in LiteLLM's shape."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", param: str | None = None):
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param


Authenticate = Callable[[Request], Awaitable[Caller]]
Handler = Callable[["Api", Request], Awaitable[Response]]


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


def _route(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def safe(self: Api, request: Request) -> Response:
        try:
            return await handler(self, request)
        except ApiError as error:
            body = {"message": error.message, "type": error.kind, "param": error.param, "code": str(error.status)}
            return Json({"error": body}, status_code=error.status)
        except StoreUnavailable as error:
            return _failure(503, "the session store does not answer", "store_unavailable", error)
        except Exception as error:
            return _failure(500, "internal error, see the proxy's log", "internal_error", error)

    return safe


def _failure(status: int, message: str, kind: str, error: Exception) -> Response:
    _log.warning("HTTP %d: %s", status, describe(error))
    body = {"message": message, "type": kind, "param": None, "code": str(status)}
    return Json({"error": body}, status_code=status)


class Api:
    """The routes of one worker. `store` None: the sessions' routes answer 503."""

    def __init__(
        self,
        prefix: str,
        store: GuardedStore | None,
        metrics: Metrics,
        authenticate: Authenticate,
        *,
        open_metrics: bool = False,
    ) -> None:
        self._prefix = "/" + prefix.strip("/")
        self._store = store
        self._metrics = metrics
        self._authenticate = authenticate
        self._open_metrics = open_metrics

    def routes(self) -> list[Route]:
        table: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
            ("/sessions", self.sessions),
            ("/sessions/{session_id}", self.session),
            ("/sessions/{session_id}/history", self.history),
            ("/sessions/{session_id}/nodes/{ref}", self.node),
            ("/agents/{session_id}/current", self.agent),
            ("/health", self.health),
            ("/metrics", self.exposition),
        ]
        return [Route(self._prefix + path, endpoint, methods=["GET"]) for path, endpoint in table]

    @_route
    async def sessions(self, request: Request) -> Response:
        caller = await self._authenticate(request)
        limit = _number(request, "limit", _PAGE, 1, _LARGEST_PAGE)
        offset = _number(request, "offset", 0, 0, None)
        page = await self._sessions().sessions(None if caller.admin else caller.tenant, limit=limit, offset=offset)
        return Json({"sessions": [_summary(info) for info in page.sessions], "total": page.total})

    @_route
    async def session(self, request: Request) -> Response:
        info = await self._session(request)
        return Json({**_summary(info), "agent_history": list(info.agent_history), "switch_count": info.switch_count})

    @_route
    async def history(self, request: Request) -> Response:
        info = await self._session(request)
        branch, node = request.query_params.get("branch"), request.query_params.get("node")
        found = await self._sessions().history(_address(info), branch=branch, node=node)
        if found is None:
            raise ApiError(404, f"the session has no such {'node' if node else 'branch'}", kind="not_found_error")
        form = request.query_params.get("format")
        if form is not None and form not in CODECS:
            raise ApiError(400, f"format must be one of {', '.join(CODECS)}", param="format")
        wire = wire_history(found, form)
        return Json(
            {
                "session_id": info.session_id,
                "format": wire.api,
                **({FIELDS[wire.api]: wire.system} if wire.system is not None else {}),
                "messages": wire.messages,
                "message_count": found.message_count,
                "missing_nodes": list(found.missing),
                "last_activity": rfc3339(info.last_activity_ms),
                "current_agent": info.current_agent,
                "agent_history": list(info.agent_history),
            }
        )

    @_route
    async def node(self, request: Request) -> Response:
        info = await self._session(request)
        found = await self._sessions().node(_address(info), request.path_params["ref"])
        if found is None:
            raise ApiError(404, "the session has no such node", kind="not_found_error", param="ref")
        path = await self._sessions().history(_address(info), node=found.id)
        return Json({**_node(found), "subtask_messages": _subtask_messages(path, found)})

    @_route
    async def agent(self, request: Request) -> Response:
        info = await self._session(request)
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

    @_route
    async def health(self, request: Request) -> Response:
        """Open to everyone, and says one word."""
        try:
            await asyncio.wait_for(self._sessions().ping(), _HEALTH_SECONDS)
            status = "ok"
        except Exception:
            status = "degraded"
        return Json({"status": status})

    @_route
    async def exposition(self, request: Request) -> Response:
        if not self._open_metrics and not (await self._authenticate(request)).admin:
            raise ApiError(403, "metrics need an admin key", kind="auth_error")
        body, content_type = self._metrics.exposition()
        return Response(body, headers={"content-type": content_type})

    def _sessions(self) -> GuardedStore:
        if self._store is None:
            raise ApiError(503, "no session store is configured", kind="store_unavailable")
        return self._store

    async def _session(self, request: Request) -> SessionInfo:
        """The session that the path names, if it is the caller's (an admin: if it is anyone's)."""
        caller = await self._authenticate(request)
        session_id = request.path_params["session_id"]
        wanted = request.query_params.get("tenant") if caller.admin else None
        info = await self._sessions().session(address(wanted or caller.tenant, session_id))
        if info is None and caller.admin and not wanted:
            owners = await self._sessions().owners(session_id)
            if len(owners) > 1:
                raise ApiError(409, "several tenants have a session of this id: add ?tenant=", param="tenant")
            info = owners[0] if owners else None
        if info is None:
            raise ApiError(404, "no such session", kind="not_found_error", param="session_id")
        return info


def _address(info: SessionInfo) -> Address:
    return address(info.tenant, info.session_id)


def _summary(info: SessionInfo) -> dict[str, Any]:
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


def _node(node: StoredNode) -> dict[str, Any]:
    return {
        "id": node.id,
        "parent": node.parent or None,
        "role": node.role,
        "created_at": rfc3339(node.at_ms),
        "incomplete": node.incomplete,
        "subtask": node.subtask,
        "message": (parsed(node.body) or {}).get("wire"),
    }


def _subtask_messages(path: History | None, node: StoredNode) -> list[Any]:
    """What a summary stands for: the messages of the node's subtask, up to the node."""
    own = [other for other in path.nodes if other.subtask == node.subtask] if path is not None else []
    return unwrap([parsed(other.body) for other in own]).messages


def wire_history(history: History, form: str | None = None) -> WireHistory:
    """The client's own list: leading system text as sent last, then each node. A node that does not parse is
    left out; the others are served."""
    lead = parsed(history.lead) if history.lead else None
    entries = lead if isinstance(lead, list) else []
    return unwrap([*entries, *(parsed(node.body) for node in history.nodes)], form)


def _number(request: Request, name: str, default: int, least: int, most: int | None) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ApiError(400, f"{name} must be a whole number of at least {least}, not {text[:40]!r}", param=name)
    return min(int(text), most) if most is not None else int(text)
