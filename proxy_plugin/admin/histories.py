"""What a session holds: its history in any wire form, and single nodes of its tree."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import ApiError, Context, Json, Rule, address_of, not_found
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import FIELDS, WireHistory, parsed, unwrap
from proxy_plugin.sessions.tree import History, StoredNode, rfc3339


async def history(context: Context, request: Request) -> Response:
    info = await context.session(request)
    branch, node = request.query_params.get("branch"), request.query_params.get("node")
    found = await context.ask(context.sessions.reader.history(address_of(info), branch=branch, node=node))
    if found is None:
        raise not_found(f"the session has no such {'node' if node else 'branch'}")
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


async def show_node(context: Context, request: Request) -> Response:
    info = await context.session(request)
    found = await context.ask(context.sessions.reader.node(address_of(info), request.path_params["ref"]))
    if found is None:
        raise not_found("the session has no such node", "ref")
    path = await context.ask(context.sessions.reader.history(address_of(info), node=found.id))
    return Json({**_node(found), "subtask_messages": _subtask_messages(path, found)})


def wire_history(history: History, form: str | None = None) -> WireHistory:
    """The client's own list: leading system text as sent last, then each node. A node that does not parse is
    left out; the others are served."""
    lead = parsed(history.lead) if history.lead else None
    entries = lead if isinstance(lead, list) else []
    return unwrap([*entries, *(parsed(node.body) for node in history.nodes)], form)


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


RULES = (
    Rule("GET", "/sessions/{session_id}/history", history, "The messages of a path, in any of the wire forms."),
    Rule("GET", "/sessions/{session_id}/nodes/{ref}", show_node, "One message, and the subtask it belongs to."),
)
