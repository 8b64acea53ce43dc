"""Settings: the documented file holds every one with its default, and a mistake is named in one line."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy_plugin import Settings, SettingsError
from proxy_plugin.settings import Collapse, Store

ROOT = Path(__file__).parents[1]


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if is_dataclass(value):
            values |= flat(value, f"{prefix}{f.name}.")
        else:
            values[prefix + f.name] = value
    return values


def test_the_documented_file_holds_every_setting_with_its_default_and_a_line() -> None:
    text = (ROOT / "config" / "plugin.yaml").read_text()
    documented = {
        f"{section}.{key}" if isinstance(inner, dict) else section: value
        for section, inner in yaml.safe_load(text).items()
        for key, value in (inner.items() if isinstance(inner, dict) else [("", inner)])
    }
    assert documented == flat(Settings())
    for name in documented:
        assert re.search(rf"^\s*{name.split('.')[-1]}:.*#\s+\S", text, re.M), f"{name} has no line of explanation"
    assert Settings.load(ROOT / "config" / "plugin.yaml", environ={}) == Settings()


def test_the_readme_names_every_setting() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in flat(Settings()) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("colapse: {policy: never}", r"plugin\.yaml: unknown setting 'colapse' \(did you mean 'collapse'\?\)"),
        ("collapse: {polcy: never}", r"plugin\.yaml: unknown setting 'collapse\.polcy'"),
        ("collapse: {policy: sometimes}", r"plugin\.yaml: collapse\.policy: .*'always' or 'never'"),
        ("store: {session_ttl_s: soon}", r"plugin\.yaml: store\.session_ttl_s: "),
        ("store: {session_ttl_s: 0}", r"plugin\.yaml: store: session_ttl_s: 0 is less than 1"),
        ("targets: {providers: {m: mistrall}}", r"plugin\.yaml: targets: providers: m: 'mistrall' is not one of"),
        ("mode: maybe", r"plugin\.yaml: mode: "),
        ("- a list", r"plugin\.yaml: must hold settings"),
        ("mode: [", r"plugin\.yaml: is no valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named_in_one_line(tmp_path: Path, written: str, line: str) -> None:
    file = tmp_path / "plugin.yaml"
    file.write_text(written)
    with pytest.raises(SettingsError, match=line) as caught:
        Settings.load(file, environ={})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"PROXY_PLUGIN_COLLAPSE__POLICI": "never"}, "environment: .*PROXY_PLUGIN_COLLAPSE__POLICY"),
        ({"PROXY_PLUGIN_STORE__SESSION_TTL_S": "soon"}, "environment: store.session_ttl_s"),
        ({"PROXY_PLUGIN_MODE": "maybe"}, "environment: mode"),
    ],
)
def test_a_mistake_in_the_environment_is_named(environ: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        Settings.load(environ=environ)


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plugin.yaml"
    file.write_text("mode: audit\ncollapse: {policy: never, summary_role: user}\n")
    environ = {"PROXY_PLUGIN_CONFIG": str(file), "PROXY_PLUGIN_COLLAPSE__POLICY": "always"}
    loaded = Settings.load(environ=environ)
    assert (loaded.mode, loaded.collapse) == ("audit", Collapse(policy="always", summary_role="user"))


def test_the_file_beside_the_litellm_config_is_found(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "plugin.yaml").write_text("mode: off\n")
    with pytest.raises(SettingsError, match="mode"):  # YAML reads a bare `off` as false
        Settings.load(beside=tmp_path, environ={})
    (tmp_path / "config" / "plugin.yaml").write_text('mode: "off"\n')
    assert Settings.load(beside=tmp_path, environ={}).mode == "off"
    assert Settings.load(beside=tmp_path / "config", environ={}) == Settings()


def test_values_built_directly_are_checked_too() -> None:
    with pytest.raises(ValueError, match="policy"):
        Collapse(policy="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="session_ttl_s"):
        Store(session_ttl_s=0)
