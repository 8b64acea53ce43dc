"""/v1/messages/count_tokens, which reaches no hook: routes in front of LiteLLM's own, so that the count is that
of the history as it would be sent.

They change the body and let the router find LiteLLM's route, which does everything else, the key included.
Whatever goes wrong here, the count is that of the body as it came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send

from proxy_plugin.admin.http import Authenticate, Caller
from proxy_plugin.logs import describe
from proxy_plugin.patience import within

log = logging.getLogger("proxy_plugin")

PATHS = (
    "/v1/messages/count_tokens",
    "/messages/count_tokens",
    "/claude_code_gateway/v1/messages/count_tokens",
)
_HANDED_ON = "proxy_plugin_handed_on"

Preview = Callable[[Caller, Mapping[str, Any]], Any]
"""The messages that a request of this caller with this data (as LiteLLM's hooks get it) would be sent with."""


def counting_routes(app: Starlette, preview: Preview, authenticate: Authenticate, seconds: float) -> list[Route]:
    """Routes to stand in front of the others of `app`. `seconds`: how long the key may take."""
    handler = _Counted(app, preview, authenticate, seconds)
    return [_OnTheWayIn(path, handler, methods=["POST"]) for path in PATHS]


class _OnTheWayIn(Route):
    """Matches a request once, so that what is handed on finds the route behind."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if scope.get(_HANDED_ON) else super().matches(scope)


class _Counted:
    def __init__(self, app: Starlette, preview: Preview, authenticate: Authenticate, seconds: float) -> None:
        self._app = app
        self._preview = preview
        self._authenticate = authenticate
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        came = await _whole_body(receive)
        on = {**scope, _HANDED_ON: True}
        try:
            body = await self._rewritten(scope, b"".join(message.get("body", b"") for message in came))
            if body is not None:
                headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
                on["headers"] = [*headers, (b"content-length", b"%d" % len(body))]
                came = [{"type": "http.request", "body": body, "more_body": False}]
        except Exception as error:
            log.warning("tokens are counted of a history as it came: %s", describe(error))
        await self._app.router(on, _again(came, receive), send)

    async def _rewritten(self, scope: Scope, body: bytes) -> bytes | None:
        """The body with the messages that would be sent; None where they are those that came."""
        request = Request(scope)
        caller = await within(self._seconds, self._authenticate(request))
        asked = orjson.loads(body)
        data = {**asked, "proxy_server_request": {"headers": dict(request.headers), "body": asked}}
        messages = self._preview(caller, data)
        return None if messages is asked.get("messages") else orjson.dumps({**asked, "messages": messages})


async def _whole_body(receive: Receive) -> list[Message]:
    """The messages of a request's body; the last one may say that the client has left."""
    came = [await receive()]
    while came[-1]["type"] == "http.request" and came[-1].get("more_body"):
        came.append(await receive())
    return came


def _again(came: list[Message], receive: Receive) -> Receive:
    """Gives the messages once more, then what comes."""
    left = iter(came)

    async def received() -> Message:
        return next(left, None) or await receive()

    return received
