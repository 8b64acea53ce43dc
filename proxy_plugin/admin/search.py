"""Search over the texts of a session."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import LIMIT, OFFSET, ApiError, Context, Json, Query, Rule, address_of, number
from proxy_plugin.history.redaction import NOT_KEPT
from proxy_plugin.sessions.tree import rfc3339

_PAGE, _LARGEST_PAGE = 50, 500
_LONGEST_QUERY = 1_000


async def search(context: Context, request: Request) -> Response:
    info = await context.session(request)
    if not context.sessions.keeps_texts:
        raise ApiError(409, f"there is nothing to search in: {NOT_KEPT}", kind="texts_not_kept")
    query = request.query_params.get("q", "")
    if not query.strip() or len(query) > _LONGEST_QUERY:
        raise ApiError(400, f"q must say what to look for, in at most {_LONGEST_QUERY} characters", param="q")
    limit, offset = number(request, "limit", _PAGE, 1, _LARGEST_PAGE), number(request, "offset", 0, 0)
    found = await context.ask(context.sessions.searches.search(address_of(info), query, limit=limit, offset=offset))
    results = [
        {
            "node": hit.node,
            "role": hit.role,
            "created_at": rfc3339(hit.at_ms),
            "snippet": hit.snippet,
            "branch": hit.branch,
        }
        for hit in found.hits
    ]
    return Json({"results": results, "total": found.total, "complete": found.complete})


RULES = (
    Rule(
        "GET",
        "/sessions/{session_id}/search",
        search,
        "Messages of all branches that say something, newest first, in any case of letters.",
        query=(Query("q", "What to look for.", required=True), LIMIT, OFFSET),
    ),
)
