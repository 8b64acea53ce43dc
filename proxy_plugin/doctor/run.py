"""Runs all checks and prints them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import orjson

from proxy_plugin.doctor.config import check_config
from proxy_plugin.doctor.encryption import check_keys
from proxy_plugin.doctor.environment import check_metrics_folder, check_versions
from proxy_plugin.doctor.finding import Finding, as_json, error, ok
from proxy_plugin.doctor.store import check_store
from proxy_plugin.settings import ENCRYPTION_KEYS, Settings, SettingsError

_MARKS = {"ok": "  ok     ", "warning": "  warning", "error": "  ERROR  "}


def run(config: Path, out: TextIO, *, workers: int, json: bool, environ: Mapping[str, str] | None = None) -> int:
    """Prints what was found. Returns 0, or 1 where something must be fixed."""
    findings = examine(config, workers, os.environ if environ is None else environ)
    if json:
        out.write(orjson.dumps(as_json(findings), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        for finding in findings:
            out.write(f"{_MARKS[finding.level]}  {finding.check}: {finding.message}\n")
            if finding.cure:
                out.write(f"           → {finding.cure}\n")
        wrong, doubtful = (sum(f.level == level for f in findings) for level in ("error", "warning"))
        out.write(f"\n{wrong} errors, {doubtful} warnings\n")
    return int(any(finding.level == "error" for finding in findings))


def examine(config: Path, workers: int, environ: Mapping[str, str]) -> list[Finding]:
    findings = [*check_versions(), *check_config(config, environ)]
    findings += check_metrics_folder(environ, workers)
    try:
        settings = Settings.load(beside=config.resolve().parent, environ=environ)
    except SettingsError as problem:
        cure = "mend the setting; config/plugin.yaml names all of them"
        return [*findings, error("settings", str(problem), cure)]
    findings.append(ok("settings", f"mode {settings.mode}, policy {settings.collapse.policy}"))
    encryption = list(check_keys(environ))
    if any(finding.level == "error" for finding in encryption):  # the store can be looked at all the same
        environ = {name: value for name, value in environ.items() if name != ENCRYPTION_KEYS}
    return findings + encryption + asyncio.run(check_store(settings, environ))
