"""The dashboards and the alerts as they stand in the repository, and the questions they ask."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.observability.prometheus import Labels, Prometheus

GRAFANA = Path(__file__).parents[2] / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")

Json = dict[str, Any]


def load(file: Path) -> Json:
    dashboard: Json = json.loads(file.read_text(encoding="utf-8"))
    return dashboard


def panels(dashboard: Json) -> list[Json]:
    """All panels, those inside collapsed rows too."""
    return [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]


def queries(dashboard: Json) -> list[str]:
    """The expressions of all panels."""
    return [target["expr"] for panel in panels(dashboard) for target in panel.get("targets", ())]


def selectors(dashboard: Json) -> list[tuple[str, str]]:
    """(series selector, label) of every variable that asks Prometheus."""
    asked = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    return [(match["selector"], match["label"]) for query in asked if (match := LABEL_VALUES.fullmatch(query))]


def alerts() -> list[Json]:
    """The alerting rules."""
    groups = yaml.safe_load((GRAFANA / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def filled_in(expression: str, window: str = "5m", **variables: str) -> str:
    """An expression as Grafana sends it: the longest names first, one may begin another."""
    values = {"__rate_interval": window, "__range": window, "model": ".*", "endpoint": ".*", **variables}
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(f"${name}", values[name])
    assert "$" not in expression
    return expression


@dataclass(frozen=True)
class Answer:
    """What a panel or an alert shows: label text -> value."""

    place: str
    title: str
    expression: str
    values: dict[str, float]


def answers(prometheus: Prometheus, window: str = "5m") -> list[Answer]:
    """Of every expression of every panel, and of every alert without its limit, in the order of the files."""
    asked = [
        (file.stem, panel["title"], filled_in(target["expr"], window, instance=".*"))
        for file in FILES
        for panel in panels(load(file))
        for target in panel.get("targets", ())
    ]
    asked += [("alerts", rule["alert"], re.sub(r"\s*> [\d.]+\s*$", "", rule["expr"])) for rule in alerts()]
    return [
        Answer(place, title, expression, {_text(labels): value for labels, value in prometheus.query(expression)})
        for place, title, expression in asked
    ]


def _text(labels: Labels) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name != "instance")
