"""What a session holds: its history in any wire form, and single nodes of its tree."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.branches import shown_branch
from proxy_plugin.admin.http import CURSOR, ApiError, Context, Json, Query, Rule, address_of, not_found, number
from proxy_plugin.history.redaction import STRUCTURE, is_redacted
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import FIELDS, WireHistory, parsed, unwrap
from proxy_plugin.sessions.keys import subtask_field
from proxy_plugin.sessions.tree import History, StoredNode, place_in_tree, rfc3339

_PAGE, _LARGEST_PAGE = 500, 2_000
_CURSOR = re.compile(r"(\d{1,9})\.(\d{1,15})\.([0-9a-f]{32})\Z")


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
            "content": content_of(found.lead, found.nodes),
            **({FIELDS[wire.api]: wire.system} if wire.system is not None else {}),
            "messages": wire.messages,
            "message_count": found.message_count,
            "missing_nodes": list(found.missing),
            "last_activity": rfc3339(info.last_activity_ms),
            "current_agent": info.current_agent,
            "agent_history": list(info.agent_history),
        }
    )


async def tree(context: Context, request: Request) -> Response:
    info = await context.session(request)
    limit, after = number(request, "limit", _PAGE, 1, _LARGEST_PAGE), _place(request)
    reader, address = context.sessions.reader, address_of(info)
    nodes, damaged = await context.ask(reader.tree(address))
    branches = await context.ask(reader.branches(address))
    children = _grouped((node.parent, node.id) for node in nodes)
    heads = _grouped((branch.head, branch.name) for branch in branches)
    subtasks = await context.ask(reader.subtasks(address))
    names = {subtask_field(subtask.id): subtask.id for subtask in subtasks if subtask.explicit}
    rest = [node for node in nodes if after is None or place_in_tree(node) > after]
    page = rest[:limit]
    return Json(
        {
            "session_id": info.session_id,
            "nodes": [
                {
                    "id": node.id,
                    "parent": node.parent or None,
                    "children": children.get(node.id, []),
                    "role": node.role,
                    "depth": node.depth,
                    "created_at": rfc3339(node.at_ms),
                    "branches": heads.get(node.id, []),
                    "incomplete": node.incomplete,
                    "subtask": names.get(node.subtask, node.subtask),
                }
                for node in page
            ],
            "roots": children.get("", []),
            "branches": [shown_branch(branch, info.branch) for branch in branches],
            "head": info.head or None,
            "missing_nodes": sorted({*damaged, *children} - {"", *(node.id for node in nodes)}),
            "total": len(nodes),
            "cursor": ".".join(map(str, place_in_tree(page[-1]))) if len(rest) > limit else None,
        }
    )


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _place(request: Request) -> tuple[int, int, str] | None:
    """Where the last page of the tree ended."""
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return None
    match = _CURSOR.match(cursor)
    if match is None:
        raise ApiError(400, "cursor is none that this route returned", param="cursor")
    return int(match[1]), int(match[2]), match[3]


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


def content_of(lead: bytes | None, nodes: Iterable[StoredNode]) -> str:
    """Whether all texts of it are kept: "full", else "structure"."""
    leading = parsed(lead) if lead else None
    entries = [*(leading if isinstance(leading, list) else ()), *(parsed(node.body) for node in nodes)]
    return STRUCTURE if any(map(is_redacted, entries)) else "full"


def _node(node: StoredNode) -> dict[str, Any]:
    return {
        "id": node.id,
        "content": content_of(None, [node]),
        "parent": node.parent or None,
        "role": node.role,
        "created_at": rfc3339(node.at_ms),
        "incomplete": node.incomplete,
        "subtask": node.subtask,
        "message": body.get("wire") if isinstance(body := parsed(node.body), dict) else None,
    }


def _subtask_messages(path: History | None, node: StoredNode) -> list[Any]:
    """What a summary stands for: the messages of the node's subtask, up to the node."""
    own = [other for other in path.nodes if other.subtask == node.subtask] if path is not None else []
    return unwrap([parsed(other.body) for other in own]).messages


RULES = (
    Rule(
        "GET",
        "/sessions/{session_id}/tree",
        tree,
        "All messages without their texts, with parents, children and branches; parents come before children.",
        query=(Query("limit", "Most messages in one answer.", "integer"), CURSOR),
    ),
    Rule(
        "GET",
        "/sessions/{session_id}/history",
        history,
        "The messages of a path, in any of the wire forms.",
        query=(
            Query("branch", "Whose path; the current one's if nothing is said."),
            Query("node", "The path to this message: its id, or the first 12 characters or more."),
            Query("format", "Wire form: chat, messages or responses; the newest message's if nothing is said."),
        ),
    ),
    Rule("GET", "/sessions/{session_id}/nodes/{ref}", show_node, "One message, and the subtask it belongs to."),
)
