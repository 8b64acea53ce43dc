"""What all routes share: who asks, errors in LiteLLM's shape, answers, and how query and body are read."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from redis.exceptions import ResponseError
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy_plugin.logs import describe
from proxy_plugin.metrics import Metrics
from proxy_plugin.sessions.edits import Contended, Refused
from proxy_plugin.sessions.identity import Address, address, is_tenant
from proxy_plugin.sessions.index import is_cursor
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import SessionInfo
from proxy_plugin.sessions.writer import GuardedStore, StoreUnavailable

T = TypeVar("T")
_log = logging.getLogger("proxy_plugin")

MAX_BODY_BYTES = 1_000_000
"""Of a JSON body; an import reads its own."""
LARGEST_LIST = 1_000
"""Most entries of a small list in one answer."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    tenant  whose sessions these are               admin  whether the key is the proxy's admin
    keys    alias and hash of the key, if known    team   its team's id, if any"""

    tenant: str
    admin: bool
    keys: tuple[str, ...] = ()
    team: str = ""


class _Rest(PathConvertor):
    """`{name:rest}` in a path: all of it, line breaks too, which Starlette's own `path` leaves to other routes."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


class ApiError(Exception):
    """An error that the client shall see, in LiteLLM's shape."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", param: str | None = None):
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


Authenticate = Callable[[Request], Coroutine[Any, Any, Caller]]
"""Whose key a request has; its body is not read. Raises where LiteLLM does not take the key."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler works with. `store` None: the sessions' routes answer 503."""

    store: GuardedStore | None
    metrics: Metrics
    authenticate: Authenticate
    open_metrics: bool = False

    @property
    def sessions(self) -> SessionStore:
        return self._guarded.store

    async def ask(self, answer: Awaitable[T]) -> T:
        """What `sessions` or one of its parts answers. Raises StoreUnavailable."""
        return await self._guarded.ask(answer)

    @property
    def stores(self) -> bool:
        """Whether what this worker is to store gets into the store: a full one answers and takes nothing."""
        return self._guarded.answering or not self._guarded.pending

    @property
    def _guarded(self) -> GuardedStore:
        if self.store is None:
            raise ApiError(503, "no session store is configured", kind="store_unavailable")
        return self.store

    async def session(self, request: Request) -> SessionInfo:
        """The session of this id, else of this alias, if it is the caller's (an admin: if it is anyone's)."""
        caller = await self.authenticate(request)
        session_id = request.path_params["session_id"]
        wanted = wanted_tenant(request, caller)
        tenant = wanted or caller.tenant
        await self._guarded.settle(address(tenant, session_id))
        info = await self.ask(self.sessions.reader.session(address(tenant, session_id)))
        info = info or await self.ask(self.sessions.profiles.find(tenant, session_id))
        if info is None and caller.admin and not wanted:
            owners = await self.ask(self.sessions.index.owners(session_id))
            if not owners:
                tenants = await self.ask(self.sessions.index.tenants())
                owners = await self.ask(self.sessions.profiles.owners(tenants, session_id))
            if len(owners) > 1:
                raise ApiError(409, "several tenants have a session of this id: add ?tenant=", param="tenant")
            info = owners[0] if owners else None
        if info is None:
            raise not_found("no such session", "session_id")
        return info


Handler = Callable[[Context, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query. `kind`: JSON Schema's word for its type."""

    name: str
    summary: str
    kind: str = "string"
    required: bool = False


LIMIT = Query("limit", "Most entries in one answer.", "integer")
OFFSET = Query("offset", "How many entries to leave out.", "integer")
CURSOR = Query("cursor", "Where the last answer ended: its `cursor`.")

JsonSchema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One route, and what the API's documentation says of it.

    body    properties of the JSON object that it takes, or None     required  those that must be there
    status  of its usual answer; `also`: another one of that kind    media     content type of that
    takes   content type of the body                                 open      it needs no key"""

    method: str
    path: str
    handler: Handler
    summary: str
    query: tuple[Query, ...] = ()
    body: Mapping[str, JsonSchema] | None = None
    required: tuple[str, ...] = ()
    status: int = 200
    also: int | None = None
    media: str = "application/json"
    takes: str = "application/json"
    open: bool = False


def route(rule: Rule, prefix: str, context: Context) -> Route:
    return Route(prefix + rule.path, guarded(rule.handler, context), methods=[rule.method])


def guarded(handler: Handler, context: Context) -> Callable[[Request], Awaitable[Response]]:
    """The handler as a Starlette endpoint whose errors are answers. What it answers is for one caller, and holds
    texts of strangers: no cache keeps it, no browser takes it for a page."""

    async def endpoint(request: Request) -> Response:
        response = await _answer(handler, context, request)
        response.headers.setdefault("cache-control", "no-store")
        response.headers["x-content-type-options"] = "nosniff"
        return response

    return endpoint


async def _answer(handler: Handler, context: Context, request: Request) -> Response:
    try:
        return await handler(context, request)
    except ApiError as error:
        body = {"message": error.message, "type": error.kind, "param": error.param, "code": str(error.status)}
        return Json({"error": body}, status_code=error.status)
    except Contended as error:
        return _failure(503, "the session changes too fast: try again", "conflict_error", error)
    except StoreUnavailable as error:
        return _failure(503, "the session store does not answer", "store_unavailable", error)
    except ResponseError as error:
        message = "the session store answers with an error: what it holds of this may be damaged, see the proxy's log"
        return _failure(500, message, "store_damaged", error)
    except Exception as error:
        return _failure(500, "internal error, see the proxy's log", "internal_error", error)


def _failure(status: int, message: str, kind: str, error: Exception) -> Response:
    _log.warning("HTTP %d: %s", status, describe(error))
    body = {"message": message, "type": kind, "param": None, "code": str(status)}
    return Json({"error": body}, status_code=status)


def not_found(message: str, param: str | None = None) -> ApiError:
    return ApiError(404, message, kind="not_found_error", param=param)


def granted(answer: T | Refused, param: str | None = None) -> T:
    """What an edit answered. Raises ApiError 404 or 409 where it was refused; `param` is what was wrong."""
    if not isinstance(answer, Refused):
        return answer
    if answer in (Refused.NAME_TAKEN, Refused.BRANCH_CURRENT, Refused.ALIAS_TAKEN, Refused.DAMAGED):
        raise ApiError(409, answer.value, kind="conflict_error", param=param)
    raise not_found(answer.value, "session_id" if answer is Refused.NO_SESSION else param)


def address_of(info: SessionInfo) -> Address:
    return address(info.tenant, info.session_id)


def number(request: Request, name: str, default: int, least: int, most: int | None = None) -> int:
    """A whole number of the query; more than `most` is taken as `most`. Raises ApiError 400."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ApiError(400, f"{name} must be a whole number of at least {least}, not {text[:40]!r}", param=name)
    return min(int(text), most) if most is not None else int(text)


def wanted_tenant(request: Request, caller: Caller) -> str | None:
    """The tenant that an admin asks for by the query; None where it names none, or for any other key: that one
    always means its own. Raises ApiError 400 for what no listing shows."""
    wanted = request.query_params.get("tenant") if caller.admin else None
    if wanted and not is_tenant(wanted):
        raise ApiError(400, "tenant must be a tenant's id as the sessions show it", param="tenant")
    return wanted or None


def sliced(request: Request, items: Sequence[T]) -> tuple[Sequence[T], int]:
    """The page of a small list that the query asks for by `limit` and `offset`, and how long the list is."""
    begin, most = number(request, "offset", 0, 0), number(request, "limit", LARGEST_LIST, 1, LARGEST_LIST)
    return items[begin : begin + most], len(items)


def index_cursor(request: Request) -> str | None:
    """The cursor of a list of sessions. Raises ApiError 400 for one that no list returned."""
    cursor = request.query_params.get("cursor") or None
    if cursor is not None and not is_cursor(cursor):
        raise ApiError(400, "cursor is none that this route returned", param="cursor")
    return cursor


async def json_body(request: Request, allowed: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """The JSON object of the body, {} for an empty one. `allowed`: its keys and their types (null is taken as
    not said). Raises ApiError 400 that names the key, 413 for too long a body."""
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > MAX_BODY_BYTES:
            raise ApiError(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    try:
        body = orjson.loads(raw) if raw.strip() else {}
    except ValueError:
        raise ApiError(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    for key, value in body.items():
        if key not in allowed:
            raise ApiError(400, f"unknown key {key[:40]!r}; known are {', '.join(allowed) or 'none'}", param=key[:40])
        kinds = allowed[key]
        wrong_bool = isinstance(value, bool) and kinds is not bool
        if value is not None and (wrong_bool or not isinstance(value, kinds)):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise ApiError(400, f"{key} must be of type {names}", param=key)
    return {key: value for key, value in body.items() if value is not None}
