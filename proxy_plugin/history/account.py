"""What is kept of one request, and how what came and what left is made of it again. Pure.

The rewriting is a function of the history, the settings, the target and what the client said (P4), so the list
that left is not kept: it is rewritten once more, by the settings that held then. A hash of each list shows
whether it is the same to the byte.

A record is a JSON object:

    at, api, model, mode, outcome     "rewritten" | "unchanged" | "audited"
    tip        last step of the stored path's list (see sessions/requests.py)
    received   the client's list, where it is not the whole path: see `relative`
    input      what was rewritten, where that is not the whole path, and `nodes`, the node of each of its messages as
               an index into the path's
    rules      id of the settings and the target          ends, resets, continued   the context
    chains     hashes of the client's list, and of the rewritten one (history/chain.py); where there are `hashes`
               instead, they are of the whole lists
    version    of the plugin
    report     the numbers of the Report that are not 0

Where no texts are kept there is nothing to make the lists of: it has no tip, lists and chains, but

    content    "structure"          edits    as in Account
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson

from proxy_plugin.history.chain import Chain
from proxy_plugin.history.dialects import Dialect, IdRule
from proxy_plugin.history.model import dump
from proxy_plugin.history.plan import Edit, source_of
from proxy_plugin.history.redaction import NOT_KEPT
from proxy_plugin.history.report import Report
from proxy_plugin.history.rewrite import Rewrite, read, rewrite
from proxy_plugin.history.subtasks import Context
from proxy_plugin.history.wire import CODECS
from proxy_plugin.settings import Collapse, Limits, Reset, Running, Settings

_ALPHABET = re.compile(r"[\w.:-]*", re.ASCII)
_LONGEST_ID = 1_000
_SECTIONS: Mapping[str, type[Any]] = {"collapse": Collapse, "running": Running, "reset": Reset, "limits": Limits}
_NO_RULES = frozenset({"memo_bytes"})
"""Settings of these sections that change no list."""


@dataclass(frozen=True, slots=True)
class Account:
    """One request, rebuilt.

    received   the list as the hook received it          sent    as it left
    rewritten  what the rewriting made of it: `sent`, but where the original was sent (audit)
    edits      what was changed: {message, edit, instead_of, why}
    exact      whether both are the same to the byte     why     "" or why they are not

    The lists are None where no texts are kept."""

    received: list[Any] | None
    sent: list[Any] | None
    rewritten: list[Any] | None
    edits: list[dict[str, Any]]
    why: str

    @property
    def exact(self) -> bool:
        return not self.why


def rules_of(settings: Settings, dialect: Dialect) -> bytes:
    """What the rewriting hangs on beside the history and the context."""
    return _dumped_rules(dialect, *[getattr(settings, name) for name in _SECTIONS])


@lru_cache(maxsize=256)
def _dumped_rules(dialect: Dialect, *sections: Any) -> bytes:
    said = [{key: value for key, value in asdict(section).items() if key not in _NO_RULES} for section in sections]
    return orjson.dumps({**dict(zip(_SECTIONS, said, strict=True)), "dialect": asdict(dialect)})


def are_rules(stored: Any) -> bool:
    """Whether it is what `rules_of` gives, and nothing beside that."""
    try:
        return orjson.dumps(stored) == rules_of(*_rules(stored))
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def _rules(stored: Any) -> tuple[Settings, Dialect]:
    sections = {name: _made(cls, stored[name]) for name, cls in _SECTIONS.items()}
    row = {key: value for key, value in stored["dialect"].items() if key not in ("ids", "on_responses")}
    return Settings(**sections), Dialect(ids=_id_rule(stored["dialect"]["ids"]), **row)


def _id_rule(stored: Mapping[str, Any]) -> IdRule:
    """An import may say anything, and this becomes part of a pattern and the length of new ids."""
    rule = IdRule(**stored)
    lengths = [length for length in (rule.at_most, rule.exactly) if length is not None]
    if not _ALPHABET.fullmatch(rule.alphabet) or not all(type(n) is int and 0 < n <= _LONGEST_ID for n in lengths):
        raise ValueError("no rule of a dialect")
    return rule


def _made(cls: type[Any], values: Mapping[str, Any]) -> Any:
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def relative(items: Sequence[Any], whole: Sequence[Any]) -> list[Any] | None:
    """A list by the items of another one: an index for an object of that, [item] for any other. None: it is that."""
    if items is whole:
        return None
    places = {id(item): index for index, item in enumerate(whole)}
    return [places.get(id(item), [item]) for item in items]


def _absolute(kept: list[Any] | None, whole: list[Any]) -> list[Any]:
    if kept is None:
        return whole
    indices = [entry for entry in kept if isinstance(entry, int)]
    if len(indices) > len(set(indices)):
        raise ValueError("an item stands there twice")  # a small import must not grow into a huge list
    return [whole[entry] if isinstance(entry, int) else entry[0] for entry in kept]


def _chain_hash(items: Sequence[Any]) -> str:
    return Chain([dump(item) for item in items]).hash


def _whole_hash(items: Sequence[Any]) -> str:
    return sha256(b"[%s]" % b",".join([dump(item) for item in items])).hexdigest()[:32]


def rebuilt(record: Mapping[str, Any], rules: Any, fragments: Sequence[bytes], node_ids: Sequence[str]) -> Account:
    """`fragments` and `node_ids`: of the messages of the stored path, "" for leading system text. Raises ValueError,
    LookupError or TypeError where something is damaged."""
    api, continued = record["api"], bool(record.get("continued"))
    whole = CODECS[api].join([orjson.loads(fragment) for fragment in fragments])
    received = _absolute(record.get("received"), whole)
    settings, dialect = _rules(rules)
    came = _absolute(record.get("input"), whole)
    path = read(came, api, continued=continued)
    if path is None:
        raise ValueError("what was rewritten cannot be read")
    if "nodes" in record:
        path.stands_for([node_ids[index] if index >= 0 else "" for index in record["nodes"]])
    context = Context(frozenset(record.get("ends", ())), continued, frozenset(record.get("resets", ())))
    result = rewrite(path, dialect, settings, context)
    hash_of, hashes = (_chain_hash, record["chains"]) if "chains" in record else (_whole_hash, record["hashes"])
    why = "" if hash_of(received) == hashes[0] else "what came is not what is stored now"
    if not why and hash_of(result.messages) != hashes[1]:
        why = f"version {record.get('version', 'unknown')} of the plugin rewrote it, and this one does it otherwise"
    sent = received if record["outcome"] == "audited" else result.messages
    return Account(received, sent, result.messages, edits_of(result, path.node_ids), why)


def withheld(record: Mapping[str, Any]) -> Account:
    """What is told of a request whose texts are not kept."""
    return Account(None, None, None, record["edits"], NOT_KEPT)


def edits_of(result: Rewrite, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """The edits of a rewriting in words; `message` is an index into what left, before wire messages are joined."""
    taken = {source for step in result.plan if (source := source_of(step)) is not None}
    found = []
    for index, step in enumerate(result.plan):
        if isinstance(step, Edit):
            stands_for = [nodes[i] for i in step.instead_of if i < len(nodes) and i not in taken]
            said = {"message": index, "node": nodes[step.source] if step.source is not None else None}
            found.append({**said, "edits": _kinds(step), **({"instead_of": stands_for} if stands_for else {})})
    return found


_KINDS: Mapping[str, Callable[[Edit], bool]] = {
    "summary": lambda edit: edit.summary is not None or (edit.added is not None and bool(edit.instead_of)),
    "added": lambda edit: edit.added is not None and not edit.instead_of,
    "call_ids_renamed": lambda edit: edit.call_ids is not None,
    "result_id_renamed": lambda edit: edit.answers is not None,
    "result_added": lambda edit: edit.result is not None,
}
EDIT_KINDS = frozenset(_KINDS)


def _kinds(edit: Edit) -> list[str]:
    return [kind for kind, holds in _KINDS.items() if holds(edit)]


def numbers_of(report: Report) -> dict[str, Any]:
    values = {f.name: getattr(report, f.name) for f in fields(report)}
    return {name: value for name, value in values.items() if value}
