"""The HTTP API: all routes under one prefix. Plain Starlette.

Whoever mounts them says how a request is authenticated. A session of another tenant is the same 404 as
one that does not exist.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from proxy_plugin.admin import (
    branches,
    feed,
    histories,
    operations,
    recovery,
    requests,
    search,
    sessions,
    snapshots,
    subtasks,
    transfer,
)
from proxy_plugin.admin.http import ApiError, Context, Rule, guarded, not_found, route

RULES: tuple[Rule, ...] = (
    *sessions.RULES,
    *histories.RULES,
    *branches.RULES,
    *snapshots.RULES,
    *subtasks.RULES,
    *recovery.RULES,
    *requests.RULES,
    *search.RULES,
    *transfer.RULES,
    *feed.RULES,
    *operations.RULES,
)


_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def routes(prefix: str, context: Context) -> list[Route]:
    """In front of LiteLLM's own. What begins like one of the rules and is none is answered here too."""
    root = "/" + prefix.strip("/") if prefix.strip("/") else ""
    known = [route(rule, root, context) for rule in RULES]

    async def nothing(context: Context, request: Request) -> Response:
        await context.authenticate(request)
        scope = {**request.scope, "path": request.url.path}
        if any(one.matches(scope)[0] is Match.PARTIAL for one in known):
            raise ApiError(405, f"{request.method} is not allowed here")
        raise not_found("no such route")

    kinds = sorted({rule.path.split("/")[1] for rule in RULES if "{" in rule.path})
    paths = [path for kind in kinds for path in (f"{root}/{kind}", f"{root}/{kind}/{{rest:rest}}")]
    return [*known, *[Route(path, guarded(nothing, context), methods=_METHODS) for path in paths]]
