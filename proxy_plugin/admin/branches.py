"""Branches of a session: list, create, switch, rename, delete."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy_plugin.admin.http import LIMIT, OFFSET, ApiError, Context, Json, Rule, address_of, granted, json_body, sliced
from proxy_plugin.sessions.tree import Branch, rfc3339

_NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,100}\Z")


async def list_branches(context: Context, request: Request) -> Response:
    info = await context.session(request)
    branches = await context.ask(context.sessions.reader.branches(address_of(info)))
    page, total = sliced(request, branches)
    shown = [shown_branch(branch, info.branch) for branch in page]
    return Json({"session_id": info.session_id, "branches": shown, "current": info.branch or None, "total": total})


async def create_branch(context: Context, request: Request) -> Response:
    info = await context.session(request)
    body = await json_body(request, {"name": str, "node": str})
    name = _name_of(body)
    made = await context.ask(context.sessions.branches.create(address_of(info), name, body.get("node")))
    branch = granted(made, "node" if "node" in body else "name")
    return Json({"session_id": info.session_id, **shown_branch(branch, info.branch)}, status_code=201)


async def switch_branch(context: Context, request: Request) -> Response:
    info = await context.session(request)
    await json_body(request, {})
    switched = granted(await context.ask(context.sessions.branches.switch(address_of(info), _wanted(request))), "name")
    branch = switched.branch
    shown = shown_branch(branch, branch.name)
    return Json({"session_id": info.session_id, **shown, "message_count": switched.message_count})


async def rename_branch(context: Context, request: Request) -> Response:
    info = await context.session(request)
    new, old = _name_of(await json_body(request, {"name": str})), _wanted(request)
    branch = granted(await context.ask(context.sessions.branches.rename(address_of(info), old, new)), "name")
    return Json({"session_id": info.session_id, **shown_branch(branch, new if info.branch == old else info.branch)})


async def delete_branch(context: Context, request: Request) -> Response:
    info = await context.session(request)
    branch = granted(await context.ask(context.sessions.branches.delete(address_of(info), _wanted(request))), "name")
    return Json({"session_id": info.session_id, "name": branch.name, "head": branch.head or None, "deleted": True})


def shown_branch(branch: Branch, current: str) -> dict[str, Any]:
    return {
        "name": branch.name,
        "head": branch.head or None,
        "current": branch.name == current,
        "created_at": rfc3339(branch.created_ms),
        "updated_at": rfc3339(branch.updated_ms),
    }


def _wanted(request: Request) -> str:
    name: str = request.path_params["name"]
    return name


def _name_of(body: dict[str, Any]) -> str:
    name = body.get("name", "").strip()
    if not _NAME.match(name) or name in (".", ".."):
        raise ApiError(400, "name must have 1 to 100 characters, no control characters and no slash", param="name")
    return str(name)


_ALL, _ONE = "/sessions/{session_id}/branches", "/sessions/{session_id}/branches/{name}"
_TEXT = {"type": "string"}
RULES = (
    Rule("GET", _ALL, list_branches, "The branches, in the order they were made.", query=(LIMIT, OFFSET)),
    Rule(
        "POST",
        _ALL,
        create_branch,
        "Name the end of a path, by default of the current one.",
        body={"name": _TEXT, "node": {**_TEXT, "description": "Where it ends: an id, or its first 12 characters."}},
        required=("name",),
        status=201,
    ),
    Rule("POST", _ONE + "/switch", switch_branch, "Make a branch the current one.", body={}),
    Rule("PATCH", _ONE, rename_branch, "Rename a branch.", body={"name": _TEXT}, required=("name",)),
    Rule("DELETE", _ONE, delete_branch, "Delete a branch that is not current; its messages stay readable by id."),
)
