"""What the checks report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `cure`: what to do, "" where nothing is wrong. No text holds a secret."""

    check: str
    level: Level
    message: str
    cure: str = ""


def ok(check: str, message: str) -> Finding:
    return Finding(check, "ok", message)


def warning(check: str, message: str, cure: str) -> Finding:
    return Finding(check, "warning", message, cure)


def error(check: str, message: str, cure: str) -> Finding:
    return Finding(check, "error", message, cure)


def as_json(findings: Iterable[Finding]) -> Mapping[str, Any]:
    """{"ok": whether there is no error, "findings": [{check, level, message, cure}]}"""
    listed = [asdict(finding) for finding in findings]
    return {"ok": all(finding["level"] != "error" for finding in listed), "findings": listed}
