"""Server-sent events of a session."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from time import monotonic

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from proxy_plugin.admin.http import ApiError, Context, Query, Rule, address_of, not_found
from proxy_plugin.history.wire.stored import parsed
from proxy_plugin.sessions.feed import Deleted, News, TooManyListeners
from proxy_plugin.sessions.tree import StoredNode, rfc3339

HEARTBEAT_SECONDS = 15.0
LONGEST_SECONDS = 3_600.0
"""Then the client comes again by itself, and shows its key anew."""
MEDIA = "text/event-stream"
_RETRY = b"retry: 1000\n\n"
_HEARTBEAT = b": still there\n\n"


async def events(context: Context, request: Request) -> Response:
    info = await context.session(request)
    after = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    try:
        news = await context.ask(context.sessions.feed.listen(address_of(info), after))
    except TooManyListeners:
        raise ApiError(503, "too many clients listen to this worker", kind="overloaded_error") from None
    if news is None:
        raise not_found("no such session", "session_id")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(request, news), media_type=MEDIA, headers=headers)


async def _stream(request: Request, news: AsyncGenerator[News]) -> AsyncIterator[bytes]:
    yield _RETRY
    begun = said = monotonic()
    async with aclosing(news):
        async for item in news:
            now = monotonic()
            if isinstance(item, StoredNode):
                yield _message(item)
                said = now
            elif isinstance(item, Deleted):
                yield b"event: deleted\ndata: {}\n\n"
                return
            else:
                if _stopping() or now - begun > LONGEST_SECONDS or await request.is_disconnected():
                    return
                if now - said > HEARTBEAT_SECONDS:
                    yield _HEARTBEAT
                    said = now


def _message(node: StoredNode) -> bytes:
    body = parsed(node.body) or {}
    data = {
        "node": node.id,
        "parent": node.parent or None,
        "role": node.role,
        "created_at": rfc3339(node.at_ms),
        "incomplete": node.incomplete,
        "subtask": node.subtask,
        "api": body.get("api"),
        "content": body.get("content", "full"),
        "message": body.get("wire"),
    }
    return b"id: %s\nevent: message\ndata: %s\n\n" % (node.id.encode(), orjson.dumps(data))


def _stopping() -> bool:
    """Whether the server was told to end. It waits for open answers first, and an ASGI application is told only
    after that; uvicorn's handler of the signal knows."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))


RULES = (
    Rule(
        "GET",
        "/sessions/{session_id}/events",
        events,
        "The session's messages as they are committed, as server-sent events; Last-Event-ID goes on behind a node.",
        query=(Query("last_event_id", "As the header Last-Event-ID, for clients that cannot set it."),),
        media=MEDIA,
    ),
)
