"""The runbooks send an operator to what is there: panels, settings, routes, commands, reasons and causes."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from proxy_plugin.admin.api import RULES
from proxy_plugin.cli import main
from proxy_plugin.metrics import BREAKS, PASSTHROUGH_REASONS
from proxy_plugin.settings import Settings
from tests.observability.dashboards import FILES, load, panels

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
RUNBOOKS = README[README.index("\n## Runbooks") :].removeprefix("\n## Runbooks").partition("\n## ")[0]
NAMED = sorted(set(re.findall(r"`([^`]+)`", RUNBOOKS)))
PANELS = {panel["title"] for file in FILES for panel in panels(load(file))}
REDIS = {"maxmemory", "SLOWLOG"}
"""Words of Redis' own."""


def settings(cls: type = Settings, prefix: str = "") -> set[str]:
    """Dotted names of all sections and settings."""
    found = set()
    for one in fields(cls):
        found.add(prefix + one.name)
        if isinstance(one.default_factory, type) and is_dataclass(one.default_factory):
            found |= settings(one.default_factory, f"{prefix}{one.name}.")
    return found


def route(name: str) -> bool:
    """Whatever its parameters are called."""
    known = {f"{rule.method} /api/v1{re.sub('{[^}]*}', '{}', rule.path)}" for rule in RULES}
    return re.sub("{[^}]*}", "{}", name).partition("?")[0] in known


def command(name: str, capsys: pytest.CaptureFixture[str]) -> bool:
    with pytest.raises(SystemExit) as left:
        main([name.split()[1], "--help"])
    return left.value.code == 0 and f"proxy-plugin {name.split()[1]}" in capsys.readouterr().out


def test_the_panels_that_they_name_are_on_a_dashboard() -> None:
    titles = set(re.findall(r'"([A-Z][^"]+)"', re.sub(r"`[^`]*`", "", RUNBOOKS)))
    assert len(titles) >= 5
    assert titles - PANELS == set()


@pytest.mark.parametrize("name", NAMED)
def test_what_they_name_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("proxy-plugin "):
        assert command(name, capsys)
    elif re.match(r"[A-Z]+ /", name):
        assert route(name)
    elif re.fullmatch(r"PROXY_PLUGIN_\w+=\w+", name):
        assert name.partition("=")[0].removeprefix("PROXY_PLUGIN_").lower().replace("__", ".") in settings()
    elif "." in name:
        assert name in settings()
    elif re.fullmatch(r"\w+", name):
        assert name in {*PASSTHROUGH_REASONS, *BREAKS, *settings(), *REDIS}
    else:  # a line to copy
        assert name in ('"pin": true', "x-proxy-plugin: off", "collapse: {policy: never}")


def test_each_break_that_is_no_design_has_its_advice() -> None:
    section = RUNBOOKS.partition("### Runbook: the prompt cache breaks")[2].partition("###")[0]
    designed = {"subtask", "plan_step", "pressure", "reset", "client_edit"}
    assert set(re.findall(r"^- `(\w+)`", section, re.MULTILINE)) == set(BREAKS) - designed
