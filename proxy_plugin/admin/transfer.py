"""Export and import of a session as JSON Lines."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from proxy_plugin.admin.http import ApiError, Context, Json, Query, Rule, address_of, not_found, wanted_tenant
from proxy_plugin.sessions.lines import LineError
from proxy_plugin.sessions.transfer import AliasTaken, Import, Imported, SessionExists, SessionGone

MEDIA = "application/x-ndjson"
MAX_IMPORT_BYTES = 2_000_000_000
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


async def export(context: Context, request: Request) -> Response:
    info = await context.session(request)
    pieces = await context.ask(context.sessions.transfer.export(address_of(info)))
    if pieces is None:
        raise not_found("no such session", "session_id")
    first = await context.ask(anext(pieces))
    name = re.sub(r"[^A-Za-z0-9._-]", "_", info.session_id)
    headers = {"content-disposition": f'attachment; filename="{name}.jsonl"'}
    return StreamingResponse(_rest(context, first, pieces), media_type=MEDIA, headers=headers)


async def _rest(context: Context, first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A fault on the way ends the connection: the client must not take what it has for the whole."""
    yield first
    while (piece := await context.ask(anext(pieces, None))) is not None:
        yield piece


async def import_session(context: Context, request: Request) -> Response:
    caller = await context.authenticate(request)
    tenant = wanted_tenant(request, caller)
    said = request.query_params.get("replace", "false").lower()
    if said not in _FLAGS:
        raise ApiError(400, "replace must be true or false", param="replace")
    running = context.sessions.transfer.importing(tenant or caller.tenant, replace=_FLAGS[said])
    try:
        done = await _import(context, request, running)
    except LineError as error:
        raise ApiError(400, str(error)) from None
    except SessionExists:
        raise ApiError(
            409, "the session is there already: add ?replace=true", kind="conflict_error", param="session_id"
        ) from None
    except AliasTaken as error:
        raise ApiError(409, str(error), kind="conflict_error", param="aliases") from None
    except SessionGone as error:
        raise ApiError(503, str(error), kind="store_unavailable") from None
    finally:
        await context.ask(running.close())
    answer = {
        "session_id": done.address.session_id,
        "tenant": done.address.tenant,
        "nodes": done.nodes,
        "branches": done.entries["branches"],
        "snapshots": done.entries["named"],
    }
    return Json(answer, status_code=201)


async def _import(context: Context, request: Request, running: Import) -> Imported:
    taken = 0
    async for piece in request.stream():
        taken += len(piece)
        if taken > MAX_IMPORT_BYTES:
            raise ApiError(413, f"the body is longer than {MAX_IMPORT_BYTES} bytes")
        await context.ask(running.feed(piece))
    return await context.ask(running.finish())


RULES = (
    Rule(
        "GET",
        "/sessions/{session_id}/export",
        export,
        "The whole session as JSON Lines: messages, branches, snapshots, subtasks and what belongs to them.",
        media=MEDIA,
    ),
    Rule(
        "POST",
        "/sessions/import",
        import_session,
        "Takes an export in as a session of the caller's. A broken line is named, and nothing is imported.",
        query=(
            Query("replace", "Put it in the place of a session that is there.", "boolean"),
            Query("tenant", "Whose session it becomes; for an admin's key."),
        ),
        takes=MEDIA,
        status=201,
    ),
)
