"""Records of requests as lines of an export: how they are written, and what an import believes of them. Pure.

    {"type": "rules", "id", "value"}                  settings and target of requests
    {"type": "step", "id", "before", "node", "lead", "residual"}     before the steps and the requests that need it
    {"type": "request", "n", "record"}

Names as in requests.py. A request whose steps or rules are damaged is left out, and so is what only it needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from hashlib import sha256
from secrets import token_hex
from typing import Any

import orjson

from proxy_plugin.history.account import EDIT_KINDS, are_rules
from proxy_plugin.history.model import dump
from proxy_plugin.history.redaction import is_redacted
from proxy_plugin.history.report import Report
from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.requests import NO_LEAD, NO_STEP, STEP_HEAD, record_of, stored_record

TYPES = frozenset({"rules", "step", "request"})
MAX_STEPS, MAX_REQUESTS = 1_000_000, 200_000

_SHORT, _LONG = re.compile(r"[0-9a-f]{16}\Z"), re.compile(r"[0-9a-f]{32}\Z")
_WORD = re.compile(r"[\w.+-]{0,64}\Z", re.ASCII)
_MODEL = re.compile(r"[\w.:/@-]{1,128}\Z", re.ASCII)
_REDACTED = (
    *("at", "api", "model", "mode", "outcome", "version", "limited", "ends", "resets", "continued", "report"),
    *("content", "edits", "tip", "rules"),
)
"""What a record holds where no texts are kept (history/account.py)."""
_EDIT = {"message", "node", "edits", "instead_of"}
_NUMBERS = {each.name for each in fields(Report)}
_MODES, _OUTCOMES = ("enforce", "audit"), ("rewritten", "unchanged", "audited")


@dataclass(frozen=True, slots=True)
class Exported:
    """`leads`: ids of those that the lines name."""

    lines: tuple[bytes, ...] = ()
    leads: tuple[str, ...] = ()


def exported(codec: Codec, key: str, fields: Mapping[str, bytes]) -> Exported:
    """`fields`: all of the hash at `key`. Oldest first."""
    lines: list[bytes] = []
    leads: dict[str, None] = {}
    told: set[str] = set()  # fields that are in the lines

    def body(name: str, stored: bytes | None) -> bytes | None:
        return codec.read(stored, key, name)

    for number in sorted(int(name[2:]) for name in fields if name.startswith("r:") and name[2:].isdecimal()):
        with suppress(ValueError, LookupError, TypeError):  # a damaged one is left out
            token, kept = record_of(fields[f"r:{number}"])
            record = orjson.loads(body("r:" + token, kept) or b"null")
            if not isinstance(record, dict):
                continue
            rules, at = "s:" + record["rules"], record["tip"]
            new: dict[str, dict[str, Any]] = {}
            while at and "w:" + at not in told and at not in new:
                step = _step(at, fields.get("w:" + at), body)
                if step is None:
                    break
                new[at] = step
                at = step["before"]
            value = body(rules, fields.get(rules))
            if (at and "w:" + at not in told) or value is None:
                continue
            if rules not in told:
                lines.append(b'{"type":"rules","id":"%s","value":%s}\n' % (rules[2:].encode(), value))
            for name, step in reversed(new.items()):
                lines.append(orjson.dumps({"type": "step", "id": name, **step}) + b"\n")
                leads |= {step["lead"]: None} if step["lead"] else {}
            lines.append(orjson.dumps({"type": "request", "n": number, "record": record}) + b"\n")
            told |= {rules, *("w:" + name for name in new)}
    return Exported(tuple(lines), tuple(leads))


def _step(step: str, stored: bytes | None, body: Any) -> dict[str, Any] | None:
    """None where it is gone or damaged."""
    residual = body("w:" + step, stored[STEP_HEAD:]) if stored is not None else None
    if stored is None or residual is None:
        return None
    head = stored[:STEP_HEAD].decode()
    before, kind, of = head[: len(NO_STEP)], head[len(NO_STEP)], head[len(NO_STEP) + 1 :]
    return {
        "before": None if before == NO_STEP else before,
        "node": of if kind == "n" else None,
        "lead": of if kind == "l" and of != NO_LEAD else None,
        "residual": residual.decode(),
    }


@dataclass(slots=True)
class RequestReader:
    """Reads such lines in their order, into fields of the hash at `key`. Raises ValueError, KeyError or TypeError."""

    codec: Codec
    key: str
    keeps_texts: bool
    requests: int = 0
    _newest: int = 0
    _oldest: int = 0
    _needed: dict[str, int] = field(default_factory=dict)  # field -> by how many

    def read(self, said: Mapping[str, Any]) -> dict[str, bytes]:
        return {"rules": self._rules, "step": self._step, "request": self._request}[said["type"]](said)

    def end(self) -> dict[str, bytes]:
        """What is counted of all of it."""
        if not self.requests:
            return {}
        more = {f"c:{name}": b"%d" % (times - 1) for name, times in self._needed.items() if times > 1}
        return {"n": b"%d" % self._newest, "o": b"%d" % self._oldest, **more}

    def _rules(self, said: Mapping[str, Any]) -> dict[str, bytes]:
        value = orjson.dumps(said["value"])
        if not isinstance(said["value"], dict) or said["id"] != sha256(value).hexdigest()[:16]:
            raise ValueError("id is not the hash of the rules")
        return self._new("s:" + said["id"], b"", value)

    def _step(self, said: Mapping[str, Any]) -> dict[str, bytes]:
        step, before, node, lead = said["id"], said["before"], said["node"], said["lead"]
        if not _is(_SHORT, step) or (before is not None and "w:" + before not in self._needed):
            raise ValueError("is no step, or the one before it did not come before")
        if (node is not None and (lead is not None or not _is(_LONG, node))) or not (lead is None or _is(_LONG, lead)):
            raise ValueError("is no step of a node or of a lead")
        if before is not None:
            self._needed["w:" + before] += 1
        of = "n" + node if node is not None else "l" + (lead or NO_LEAD)
        return self._new("w:" + step, f"{before or NO_STEP}{of}".encode(), said["residual"].encode())

    def _new(self, name: str, head: bytes, body: bytes) -> dict[str, bytes]:
        if name in self._needed:
            raise ValueError("stands there twice")
        if len(self._needed) >= MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS} of these")
        self._needed[name] = 0
        if not self.keeps_texts and (name.startswith("w:") or not are_rules(orjson.loads(body))):
            return {}
        return {name: head + self.codec.encode(body, self.key, name)}

    def _request(self, said: Mapping[str, Any]) -> dict[str, bytes]:
        number, record = said["n"], said["record"]
        if type(number) is not int or not self._newest < number < 1 << 48 or not _is_record(record):
            raise ValueError("is no request of this session")
        if self.requests >= MAX_REQUESTS:
            raise ValueError(f"more than {MAX_REQUESTS} of these")
        needs = ["s:" + record["rules"], *(["w:" + record["tip"]] if record["tip"] else ())]
        if any(name not in self._needed for name in needs):
            raise ValueError("what it needs did not come before")
        if is_redacted(record):
            record = _without_texts(record)
        elif not self.keeps_texts:
            return {}
        for name in needs:
            self._needed[name] += 1
        self.requests, self._newest, self._oldest = self.requests + 1, number, self._oldest or number
        token = token_hex(8)
        body = self.codec.encode(dump(record), self.key, "r:" + token)
        stored = stored_record(token, record["tip"], record["rules"], body)
        return {f"r:{number}": stored, f"t:{token}": b"%d" % number}


def _is(form: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and form.match(value) is not None


def _without_texts(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record that says it holds no text, with what such a one may hold. Raises ValueError where one of its own
    fields holds a text, KeyError or TypeError where it is none."""
    kept = {name: record[name] for name in _REDACTED if name in record}
    report = {name: value for name, value in record["report"].items() if name in _NUMBERS}
    nodes = [*_list(kept.get("ends", [])), *_list(kept.get("resets", []))]
    for edit in _list(kept["edits"]):
        nodes += [edit["node"], *_list(edit.get("instead_of", []))]
        if edit.keys() - _EDIT or type(edit["message"]) is not int or set(_list(edit["edits"])) - EDIT_KINDS:
            raise ValueError("is no edit")
    if not (
        all(node in ("", None) or _is(_LONG, node) for node in nodes)
        and all(_is(_WORD, kept.get(name, "")) for name in ("version", "limited"))
        and (kept.get("model") is None or _is(_MODEL, kept["model"]))
        and kept.get("continued") in (None, True)
        and report.pop("prefix_break", "") in ("", *Report.CAUSES)
        and all(type(number) is int for number in report.values())
    ):
        raise ValueError("holds a text, and says that it holds none")
    return {**kept, "report": {name: record["report"][name] for name in record["report"] if name in _NUMBERS}}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("is no list")
    return value


def _is_record(record: Any) -> bool:
    """Whether everything can be shown of it, and its lists be asked for."""
    report, model, at = record["report"], record.get("model"), record["at"]
    shown = (
        isinstance(record["rules"], str)
        and isinstance(record["tip"], str)
        and (model is None or isinstance(model, str))
        and isinstance(report, dict)
        and all(type(value) in (int, str) for value in report.values())
        and (record["api"] in CODECS and record["mode"] in _MODES and record["outcome"] in _OUTCOMES)
    )
    whole = isinstance(record["edits"] if is_redacted(record) else record.get("chains", record.get("hashes")), list)
    return shown and whole and type(at) is int and 0 <= at < 1 << 48
