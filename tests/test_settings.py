"""Settings: the documented file holds every one with its default, and a mistake is named in one line."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy_plugin import Settings, SettingsError
from proxy_plugin.settings import Collapse, ModelFacts, Overrides, Running, Store

ROOT = Path(__file__).parents[1]


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if is_dataclass(value):
            values |= flat(value, f"{prefix}{f.name}.")
        else:
            values[prefix + f.name] = list(value) if isinstance(value, tuple) else value
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
        ("collapse: {policy: sometimes}", r"plugin\.yaml: collapse\.policy: .*'economical' or 'never'"),
        ("collapse: {exclude_tools: read}", r"plugin\.yaml: collapse\.exclude_tools"),
        ("running: {trigger_fraction: 1.2}", r"plugin\.yaml: running: trigger_fraction: 1\.2 is more than 1"),
        ("running: {keep_rounds: 0}", r"plugin\.yaml: running: keep_rounds: 0 is less than 1"),
        ("overrides: {model: {}}", r"plugin\.yaml: unknown setting 'overrides\.model' \(did you mean"),
        ("overrides: {models: {m: {colapse: {}}}}", r"plugin\.yaml: overrides: models\.m: 'colapse' is not one of"),
        (
            "overrides: {models: {m: {collapse: {polcy: never}}}}",
            r"plugin\.yaml: overrides: models\.m\.collapse: unknown setting 'polcy'",
        ),
        (
            "overrides: {keys: {k: {collapse: {policy: sometimes}}}}",
            r"plugin\.yaml: overrides: keys\.k\.collapse\.policy: 'sometimes' is not one of",
        ),
        (
            "overrides: {teams: {t: {running: {keep_rounds: many}}}}",
            r"plugin\.yaml: overrides: teams\.t\.running\.keep_rounds: 'many' is no whole number",
        ),
        ("overrides: {teams: {t: 3}}", r"plugin\.yaml: overrides"),
        ("overrides: {teams: {t: {collapse: 3}}}", r"plugin\.yaml: overrides: teams\.t\.collapse: 3 is no mapping"),
        (
            "overrides: {models: {m: {mode: watch}}}",
            r"plugin\.yaml: overrides: models\.m\.mode: 'watch' is not one of enforce, audit, off",
        ),
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
    with pytest.raises(ValueError, match="trigger_fraction"):
        Running(trigger_fraction=2)
    with pytest.raises(ValueError, match="keep_rounds"):
        Overrides(models={"m": {"running": {"keep_rounds": 0}}})


def test_lists_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "plugin.yaml"
    file.write_text("collapse: {exclude_tools: [read, grep], plan_tools: [TodoWrite]}\n")
    loaded = Settings.load(file, environ={"PROXY_PLUGIN_COLLAPSE__PLAN_TOOLS": '["update_plan"]'})
    assert loaded.collapse.exclude_tools == ("read", "grep")
    assert loaded.collapse.plan_tools == ("update_plan",)


OVERRIDES = """
collapse: {policy: economical, min_tokens: 100, price_cached: 0.2}
overrides:
  models:
    small: {collapse: {policy: always, price_cached: 0.5, exclude_tools: [read]}, running: {keep_rounds: 2}}
  teams:
    research: {collapse: {min_tokens: 7}, running: {keep_rounds: 3}}
  keys:
    ci-key: {collapse: {policy: never}}
    88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b: {collapse: {min_tokens: 1}}
"""


def test_overrides_hold_for_their_model_team_and_key(tmp_path: Path) -> None:
    file = tmp_path / "plugin.yaml"
    file.write_text(OVERRIDES)
    settings = Settings.load(file, environ={})
    assert settings.for_request(model="large", team="sales", key=("another",)) is settings

    of_model = settings.for_request(model="small")
    assert of_model.collapse == Collapse("always", min_tokens=100, price_cached=0.5, exclude_tools=("read",))
    assert of_model.running == Running(keep_rounds=2)
    assert of_model.store is settings.store

    of_team = settings.for_request(model="small", team="research")
    assert (of_team.collapse.min_tokens, of_team.collapse.policy, of_team.running.keep_rounds) == (7, "always", 3)

    of_key = settings.for_request(model="small", team="research", key=("ci-key",))
    assert (of_key.collapse.min_tokens, of_key.collapse.policy) == (7, "never")
    by_hash = settings.for_request(key=("", "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"))
    assert by_hash.collapse.min_tokens == 1
    assert settings.for_request(model="small") == of_model


def test_what_is_known_of_a_model_fills_in_and_an_override_goes_over_it(tmp_path: Path) -> None:
    file = tmp_path / "plugin.yaml"
    file.write_text(OVERRIDES)
    settings = Settings.load(file, environ={})
    facts = ModelFacts(price_cached=0.25, price_write=1.0, window_tokens=8_000)
    known = settings.for_request(model="large", facts=facts)
    assert (known.collapse.price_cached, known.collapse.price_write, known.running.window_tokens) == (0.25, 1.0, 8_000)
    assert settings.for_request(model="small", facts=facts).collapse.price_cached == 0.5
    assert settings.for_request(model="large", facts=ModelFacts()).collapse == settings.collapse
    own = Settings(running=Running(window_tokens=500)).for_request(facts=facts)
    assert own.running.window_tokens == 500


def test_a_mode_of_its_own_for_a_model_a_team_and_a_key(tmp_path: Path) -> None:
    file = tmp_path / "plugin.yaml"
    file.write_text(
        "overrides:\n  models: {m: {mode: audit, collapse: {min_tokens: 9}}}\n"
        "  teams: {t: {mode: off}}\n  keys: {k: {mode: enforce}}\n"
    )
    loaded = Settings.load(file, environ={})
    assert loaded.for_request() is loaded and loaded.mode == "enforce"
    audited = loaded.for_request(model="m")
    assert (audited.mode, audited.collapse.min_tokens) == ("audit", 9)
    assert loaded.for_request(model="m", team="t").mode == "off"  # YAML reads a bare `off` as false
    assert loaded.for_request(model="m", team="t", key=["k"]).mode == "enforce"
    watching = Settings.load(file, environ={"PROXY_PLUGIN_MODE": "audit"})
    assert (watching.for_request().mode, watching.for_request(key=["k"]).mode) == ("audit", "enforce")
