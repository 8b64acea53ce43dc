"""From a request that was handled to what is kept of it (history/account.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from proxy_plugin.history.account import list_hash, numbers_of, relative, rules_of
from proxy_plugin.history.model import dump
from proxy_plugin.history.path import Path
from proxy_plugin.history.rewrite import Rewrite
from proxy_plugin.history.subtasks import Context
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.requests import Part, Request
from proxy_plugin.sessions.tree import Commit
from proxy_plugin.settings import Settings

if TYPE_CHECKING:
    from proxy_plugin.gateway.pipeline import Incoming


class Handled(NamedTuple):
    """came  the client's list    path  what is stored    sent  what was rewritten"""

    incoming: Incoming
    address: Address
    came: Any
    path: Path
    sent: Path
    commit: Commit
    settings: Settings
    context: Context
    result: Rewrite
    outcome: str


def noted(handled: Handled) -> Callable[[], Request]:
    """Takes the bytes of what came and what left now, before anybody changes them; the rest is made later."""
    incoming, commit, path = handled.incoming, handled.commit, handled.path
    came, left = _pieces(handled.came, path), _pieces(handled.result.messages, handled.sent)
    record = {
        "at": commit.at_ms,
        "api": path.api,
        "model": incoming.body.get("model") if isinstance(incoming.body.get("model"), str) else None,
        "mode": incoming.mode,
        "outcome": handled.outcome,
        "limited": handled.result.limited or None,
        "received": relative(handled.came, path.wire),
        "input": relative(handled.sent.wire, path.wire),
        "nodes": _nodes(handled.sent, path) if handled.sent is not path else None,
        "ends": _on(handled.context.ends, handled.sent),
        "resets": _on(handled.context.resets, handled.sent),
        "continued": handled.context.continued or None,
        "report": numbers_of(handled.result.report),
    }
    return partial(_request, handled, record, came, left)


def _request(handled: Handled, record: dict[str, Any], came: Sequence[bytes], left: Sequence[bytes]) -> Request:
    path, commit = handled.path, handled.commit
    hashes = [list_hash(came), list_hash(left)]
    nodes = [""] * (path.lead if commit.base is None else 0) + list(commit.ids)
    return Request(
        address=handled.address,
        token=token_hex(8),
        lead=commit.lead.id if commit.lead is not None else "",
        parts=[Part(node, path.fragment(index)) for index, node in enumerate(nodes)],
        rules=rules_of(handled.settings, handled.incoming.dialect),
        record={key: value for key, value in record.items() if value is not None} | {"hashes": hashes},
    )


def _pieces(items: Sequence[Any], path: Path) -> Sequence[bytes]:
    if items is path.wire:
        return path.dumps
    known = dict(zip(map(id, path.wire), path.dumps, strict=True))
    return [known.get(id(item)) or dump(item) for item in items]


def _nodes(sent: Path, path: Path) -> list[int]:
    places = {node: index for index, node in enumerate(path.node_ids) if node}
    return [places.get(node, -1) for node in sent.node_ids]


def _on(nodes: frozenset[str], path: Path) -> list[str] | None:
    return sorted(nodes.intersection(path.node_ids)) or None
