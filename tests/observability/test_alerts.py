"""The alerts: each says what it means, leads to its runbook, fires in its test and keeps still in another."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.binaries import require_binary
from tests.observability.dashboards import GRAFANA, Json, alerts

README = Path(__file__).parents[2] / "README.md"
each_alert = pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in alerts()])


def test_there_is_one_for_everything_that_should_wake_somebody() -> None:
    assert {rule["alert"].removeprefix("SessionPlugin") for rule in alerts()} == {
        "StandsAside",
        "StoreDown",
        "RestoresFail",
        "BreaksPrefixes",
        "RefusedAfterRewrite",
        "MissesDeadlines",
    }


@each_alert
def test_it_says_what_it_means_and_how_bad_it_is(rule: Json) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert len(rule["annotations"]["summary"]) > 30
    assert "{{ $labels.instance }}" in rule["annotations"]["description"]
    assert "by (instance)" in rule["expr"]


@each_alert
def test_its_runbook_is_a_section_of_the_readme(rule: Json) -> None:
    headings = re.findall(r"^#+ (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert file == "README.md" and anchor in anchors


@each_alert
def test_its_unit_tests_let_it_fire_and_let_it_keep_still(rule: Json) -> None:
    tests = yaml.safe_load((GRAFANA / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


def test_promtool_takes_the_rules_and_their_unit_tests_pass() -> None:
    promtool = require_binary("promtool")
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *command], cwd=GRAFANA, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
