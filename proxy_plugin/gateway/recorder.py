"""From a request that was handled to what is kept of it (history/account.py).

Its messages are hashed only where they differ from those of the session's request before it (`Digests`), so that
noting a request costs what its new messages do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from secrets import token_hex
from typing import Any, NamedTuple

import orjson

from proxy_plugin.gateway.turn import Incoming
from proxy_plugin.history.account import edits_of, numbers_of, relative, rules_of
from proxy_plugin.history.chain import Chain, common
from proxy_plugin.history.path import Path
from proxy_plugin.history.redaction import STRUCTURE
from proxy_plugin.history.rewrite import Rewrite
from proxy_plugin.history.subtasks import Context
from proxy_plugin.sessions.requests import NO_STEP, STEP_BYTES, Request, Stored
from proxy_plugin.sessions.tree import Commit
from proxy_plugin.settings import Settings
from proxy_plugin.version import VERSION

_DIGEST_BYTES = 120  # of what Digests holds of a message besides its bytes


class Handled(NamedTuple):
    """came  the client's list    path  what is stored    sent  what was rewritten    commit  as it was asked for"""

    incoming: Incoming
    came: Any
    path: Path
    sent: Path
    commit: Commit
    settings: Settings
    context: Context
    result: Rewrite
    outcome: str


@dataclass(frozen=True, slots=True)
class Digests:
    """What was hashed of a session's request.

    form    wire form of the path         labels  of each message of the path: its node, or the lead's id
    path    items of the path             steps   ids of the steps that the messages are, one behind the other
    came    items of the client's list    left    items of the rewritten list"""

    form: tuple[str, bool]
    path: Chain
    came: Chain
    left: Chain
    labels: Sequence[str]
    steps: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of memory, about, besides what a memo holds too."""
        own = sum(map(len, self.left.pieces)) if self.left is not self.path else 0
        return _DIGEST_BYTES * len(self.labels) + own


Make = Callable[[Stored], Request]


def noted(handled: Handled, before: Digests | None) -> tuple[Make, Digests | None]:
    """Takes what came and what left now, before anybody changes them; the rest is made once it is known how the
    commit was stored. `before`: of the session's request before."""
    if handled.settings.store.content == STRUCTURE:
        return partial(_without_texts, handled), None
    path, commit = handled.path, handled.commit
    chains = (before.path, before.came, before.left) if before is not None else (None, None, None)
    whole = Chain(path.dumps, chains[0])
    came = whole if handled.came is path.wire else Chain(path.dumped(handled.came), chains[1])
    dumps = handled.result.dumps
    dumps = handled.sent.dumped(handled.result.messages) if dumps is None else dumps
    left = whole if dumps is path.dumps else Chain(dumps, chains[2])
    labels, form = _labels(commit, path), (path.api, path.continued)
    alike = 0
    if before is not None and before.form == form:
        alike = common(labels[: path.alike_messages(whole.alike)], before.labels)
    new = [path.fragment(index) for index in range(alike, len(labels))]
    steps = _steps(before.steps[: STEP_BYTES * alike] if before is not None else b"", labels[alike:], new)
    digests = Digests(form, whole, came, left, labels, steps)
    record = _facts(handled) | {
        "received": relative(handled.came, path.wire),
        "input": relative(handled.sent.wire, path.wire),
        "nodes": _nodes(handled.sent, path) if handled.sent is not path else None,
        "chains": [came.hash, left.hash],
    }
    return partial(_request, handled, record, digests, new), digests


def _facts(handled: Handled) -> dict[str, Any]:
    """What a record says beside the messages."""
    incoming = handled.incoming
    return {
        "at": handled.commit.at_ms,
        "api": handled.path.api,
        "model": incoming.body.get("model") if isinstance(incoming.body.get("model"), str) else None,
        "mode": incoming.mode,
        "outcome": handled.outcome,
        "version": VERSION,
        "limited": handled.result.limited or None,
        "ends": _on(handled.context.ends, handled.sent),
        "resets": _on(handled.context.resets, handled.sent),
        "continued": handled.context.continued or None,
        "report": numbers_of(handled.result.report),
    }


def _without_texts(handled: Handled, stored: Stored) -> Request:
    """The lists cannot be made of this again, so it holds the edits themselves."""
    record = _facts(handled) | {
        "content": STRUCTURE,
        "edits": edits_of(handled.result, handled.sent.node_ids),
    }
    return Request(
        address=stored.address,
        token=token_hex(8),
        lead="",
        nodes=(),
        steps=b"",
        fragments=_no_fragments,
        written=0,
        rules=_rules(handled),
        record=_known(record),
    )


def _request(
    handled: Handled, record: dict[str, Any], digests: Digests, new: Sequence[bytes], stored: Stored
) -> Request:
    path, labels, steps = handled.path, digests.labels, digests.steps
    commit = handled.commit.stored_as(alone=stored.alone)
    if commit is not handled.commit:
        labels = _labels(commit, path)
        new = _fragments(path, (), 0)
        steps = _steps(b"", labels, new)
    return Request(
        address=stored.address,
        token=token_hex(8),
        lead=commit.lead.id if commit.lead is not None else "",
        nodes=[*[""] * (len(labels) - len(commit.ids)), *commit.ids],
        steps=steps,
        fragments=partial(_fragments, path, new),
        written=stored.written,
        rules=_rules(handled),
        record=_known(record),
    )


def _rules(handled: Handled) -> bytes:
    return rules_of(handled.settings, handled.incoming.dialect)


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


def _labels(commit: Commit, path: Path) -> list[str]:
    """What each message of the path is: its node, or for leading system text the lead."""
    lead = commit.lead.id if commit.lead is not None else ""
    return [lead] * (path.lead if commit.base is None else 0) + list(commit.ids)


def _steps(before: bytes, labels: Sequence[str], fragments: Sequence[bytes]) -> bytes:
    """Ids of the steps behind some others. One is a hash over the one before it, what the message is and its bytes."""
    steps = bytearray(before)
    step = before[-STEP_BYTES:].hex() or NO_STEP
    for label, fragment in zip(labels, fragments, strict=True):
        digest = sha256(f"{step}{label}".encode())
        digest.update(fragment)
        steps += digest.digest()[:STEP_BYTES]
        step = digest.hexdigest()[: 2 * STEP_BYTES]
    return bytes(steps)


def _fragments(path: Path, new: Sequence[bytes], begin: int) -> Sequence[bytes]:
    """Those of the messages from `begin` on; `new`: of the last ones. Others are made from the bytes that came, since
    the objects may have changed meanwhile. Raises ValueError where those are no JSON."""
    alike = len(path.messages) - len(new)
    if begin >= alike:
        return new[begin - alike :]
    wire = [orjson.loads(dumped) for dumped in path.dumps]
    return [*[path.codec.fragment(wire, message) for message in path.messages[begin:alike]], *new]


def _no_fragments(_begin: int) -> Sequence[bytes]:
    return ()


def _nodes(sent: Path, path: Path) -> list[int]:
    places = {node: index for index, node in enumerate(path.node_ids) if node}
    return [places.get(node, -1) for node in sent.node_ids]


def _on(nodes: frozenset[str], path: Path) -> list[str] | None:
    return (sorted(nodes.intersection(path.node_ids)) or None) if nodes else None
