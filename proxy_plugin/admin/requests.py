"""What came with each request of a session, what was sent, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from proxy_plugin.admin.http import (
    CURSOR,
    LIMIT,
    ApiError,
    Context,
    Json,
    Query,
    Rule,
    address_of,
    not_found,
    number,
)
from proxy_plugin.history.account import Account
from proxy_plugin.history.difference import Line, difference
from proxy_plugin.history.redaction import STRUCTURE
from proxy_plugin.history.report import Report
from proxy_plugin.sessions.tree import rfc3339

_PAGE, _LARGEST_PAGE = 50, 500
_NUMBERS = ("bytes_before", "bytes_after", "subtasks_collapsed", "tool_messages_cleared", "pressure_steps", "resets")


async def list_requests(context: Context, request: Request) -> Response:
    info = await context.session(request)
    limit = number(request, "limit", _PAGE, 1, _LARGEST_PAGE)
    before = number(request, "cursor", 0, 1) or None
    requests = context.sessions.requests
    await context.ask(requests.settled())
    page = await context.ask(requests.page(address_of(info), limit, before))
    shown = [shown_request(n, record) for n, record in page.records]
    return Json(
        {"requests": shown, "total": page.total, "cursor": str(page.cursor) if page.cursor is not None else None}
    )


async def show_request(context: Context, request: Request) -> Response:
    info, form = await context.session(request), request.query_params.get("format", "json")
    if form not in ("json", "text"):
        raise ApiError(400, "format must be json or text", param="format")
    given = request.path_params["n"]
    wanted = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0
    requests, address = context.sessions.requests, address_of(info)
    await context.ask(requests.settled())
    record = await context.ask(requests.record(address, wanted))
    if record is None:
        raise not_found("the session has no such request, or no longer", "n")
    account = await context.ask(requests.rebuild(address, record))
    if account is None:
        raise not_found("what the request was made of is gone or damaged", "n")
    if form == "text":
        lines = await asyncio.to_thread(lambda: list(told(wanted, record, account)))
        return PlainTextResponse("".join(f"{line.mark} {line.text}\n" for line in lines))
    return Json(shown_account(wanted, record, account))


def shown_request(n: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the list."""
    report = record["report"]
    return {
        "n": n,
        "at": rfc3339(record["at"]),
        "api": record["api"],
        "model": record.get("model"),
        "mode": record["mode"],
        "outcome": record["outcome"],
        "limited": record.get("limited"),
        "version": record.get("version"),
        **{name: report.get(name, 0) for name in _NUMBERS},
        "repairs": {kind: report[kind] for kind in Report.REPAIRS if report.get(kind)},
        "prefix_break": report.get("prefix_break"),
    }


def shown_account(n: int, record: Mapping[str, Any], account: Account) -> dict[str, Any]:
    return {
        **shown_request(n, record),
        "exact": account.exact,
        "inexact_because": account.why or None,
        "content": "full" if account.received is not None else STRUCTURE,
        "received": account.received,
        "sent": account.sent,
        **({"rewritten": account.rewritten} if record["outcome"] == "audited" else {}),
        "edits": account.edits,
    }


def told(n: int, record: Mapping[str, Any], account: Account) -> Iterator[Line]:
    """The request for people: what is known of it, what was done to which message, and the difference."""
    shown = shown_request(n, record)
    yield Line("@", f"request {n}  {shown['at']}  {shown['api']}  {shown['model'] or ''}  {shown['outcome']}")
    yield Line("@", f"{shown['bytes_before']} bytes came, {shown['bytes_after']} after the rewriting")
    if not account.exact:
        yield Line("@", f"not exact: {account.why}")
    if record["outcome"] == "audited":
        yield Line("@", "audit: the original was sent; below is what would have been")
    for kind, count in [("subtasks_collapsed", shown["subtasks_collapsed"]), *shown["repairs"].items()]:
        if count:
            yield Line("@", f"{kind} {count}")
    for edit in account.edits:
        nodes = f" instead of {' '.join(node[:12] for node in edit['instead_of'])}" if "instead_of" in edit else ""
        yield Line("@", f"message {edit['message']}: {', '.join(edit['edits'])}{nodes}")
    if account.received is not None and account.rewritten is not None:
        yield from difference(account.received, account.rewritten)


RULES = (
    Rule(
        "GET",
        "/sessions/{session_id}/requests",
        list_requests,
        "The newest requests, newest first, each with what was done to it in numbers.",
        query=(LIMIT, CURSOR),
    ),
    Rule(
        "GET",
        "/sessions/{session_id}/requests/{n}",
        show_request,
        "One request: the list as it came and as it was sent, to the byte, and the edits between them; the edits alone "
        "where no texts are kept.",
        query=(Query("format", "json, or text: a difference that people can read."),),
    ),
)
