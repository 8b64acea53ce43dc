"""For those who run the proxy: health and metrics."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import ApiError, Context, Json, Rule

_HEALTH_SECONDS = 1.0


async def health(context: Context, request: Request) -> Response:
    """Open to everyone, and says one word."""
    try:
        await asyncio.wait_for(context.ask(context.sessions.ping()), _HEALTH_SECONDS)
        stored = context.stores
    except Exception:
        stored = False
    return Json({"status": "ok" if stored else "degraded"})


async def metrics(context: Context, request: Request) -> Response:
    if not context.open_metrics and not (await context.authenticate(request)).admin:
        raise ApiError(403, "metrics need an admin key", kind="auth_error")
    body, content_type = context.metrics.exposition()
    return Response(body, headers={"content-type": content_type})


RULES = (
    Rule(
        "GET",
        "/health",
        health,
        "ok, or degraded where the store does not answer or takes nothing. Needs no key.",
        open=True,
    ),
    Rule(
        "GET",
        "/metrics",
        metrics,
        "Prometheus metrics. Needs an admin key unless a setting opens them.",
        media="text/plain",
    ),
)
