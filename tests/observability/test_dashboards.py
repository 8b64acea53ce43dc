"""The dashboards against the registry, by themselves, and against a real Prometheus."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from proxy_plugin.events import (
    BreakerTurned,
    Event,
    HistoryEstimated,
    ModelsNamed,
    PassedThrough,
    PrefixBroken,
    Prompt,
    Refused,
    RequestHandled,
    SessionsCounted,
    SnapshotCreated,
    SnapshotRestored,
    SnapshotRestoreFailed,
    StoreCalled,
    StoreChosen,
    SubtaskChanged,
    SubtaskRecovered,
    UsageReported,
    ValueLocked,
)
from proxy_plugin.history.report import Report
from proxy_plugin.metrics import (
    BREAKS,
    ENDPOINTS,
    MODES,
    OPERATIONS,
    OUTCOMES,
    PASSTHROUGH_REASONS,
    STORES,
    SUBTASK_STATES,
    Metrics,
)
from tests.observability.dashboards import FILES, GRAFANA, Json, alerts, filled_in, load, panels, queries, selectors
from tests.observability.prometheus import Labels, Prometheus, scraping

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
BUILT_IN = {"__rate_interval", "__range"}
DASHBOARDS = [pytest.param(load(file), id=file.stem) for file in FILES]
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS)


def exported() -> dict[str, list[Labels]]:
    """Sample name -> the label sets that are there before the first request."""
    found: dict[str, list[Labels]] = {}
    body, _ = Metrics(CollectorRegistry()).exposition()
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def faults(expression: str, series: dict[str, list[Labels]]) -> list[str]:
    """What an expression asks for that no scrape would find: a name, a label or a label's value."""
    wrong = []
    grouping = r"\bby \(([^)]*)\)"
    named = re.findall(r"proxy_plugin_\w+", expression)
    known = {label for name in named for labels in series.get(name, ()) for label in labels} | {"instance"}
    for labels in re.findall(grouping, expression):
        wrong += [f"by ({label})" for label in labels.split(", ") if label not in known]
    expression = re.sub(grouping, "", expression)
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\}|(?=\[|$|,|\)))", expression):
        if name not in series:
            wrong.append(name)
            continue
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            values = {labels[label] for labels in series[name] if label in labels}
            if label == "instance" or (value.startswith("$") and values):
                continue  # set by Prometheus; or chosen from its own answers
            wanted = value.split("|") if operator.endswith("~") else [value]
            wrong += [f"{name}{{{label}={one}}}" for one in wanted if one not in values]
    return wrong


def test_there_are_four_of_them() -> None:
    assert [file.stem for file in FILES] == ["cache", "overview", "sessions", "store"]


@each_dashboard
def test_every_expression_asks_for_what_is_exported(dashboard: Json) -> None:
    series = exported()
    asked = queries(dashboard) + [selector for selector, _ in selectors(dashboard)]
    assert asked
    assert all("proxy_plugin_" in expression for expression in asked)
    assert [fault for expression in asked for fault in faults(expression, series)] == []


@each_dashboard
def test_a_renamed_metric_would_be_noticed(dashboard: Json) -> None:
    series = exported()
    used = {name for query in queries(dashboard) for name in re.findall(r"proxy_plugin_\w+", query)}
    for name in used:
        without = {other: labels for other, labels in series.items() if other != name}
        assert any(name in faults(query, without) for query in queries(dashboard)), name


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(proxy_plugin_request_total[1m])", "proxy_plugin_request_total"),
        ("sum(proxy_plugin_rewrite_seconds)", "proxy_plugin_rewrite_seconds"),
        ('proxy_plugin_history_bytes_total{stage="send"}', "proxy_plugin_history_bytes_total{stage=send}"),
        ('rate(proxy_plugin_repairs_total{reason=~"$x"}[1m])', "proxy_plugin_repairs_total{reason=$x}"),
        ("sum by (outcomes) (proxy_plugin_requests_total)", "by (outcomes)"),
        ("sum(litellm_requests_total)", "litellm_requests_total"),
    ],
)
def test_a_wrong_name_label_or_value_is_found(expression: str, fault: str) -> None:
    assert faults(expression, exported()) == [fault]


def test_every_metric_has_a_place_on_a_dashboard() -> None:
    shown = " ".join(query for file in FILES for query in queries(load(file)))
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exported()}
    families -= {name for name in families if f"{name}_total" in families}  # of a counter's creation time
    assert [name for name in families if name not in shown] == []


@each_dashboard
def test_it_leads_to_the_others(dashboard: Json) -> None:
    (link,) = dashboard["links"]
    assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
    assert all(set(link["tags"]) <= set(load(file)["tags"]) for file in FILES)


@each_dashboard
def test_ids_are_unique(dashboard: Json) -> None:
    counted = Counter(panel["id"] for panel in panels(dashboard))
    assert [number for number, times in counted.items() if times > 1] == []
    assert [load(file)["uid"] for file in FILES].count(dashboard["uid"]) == 1
    for panel in panels(dashboard):
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references) and all(references), panel["title"]


@each_dashboard
def test_panels_do_not_overlap_and_fit(dashboard: Json) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for cell in product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])):
            assert cell not in taken, f"{panel['title']} covers {taken.get(cell)}"
            taken[cell] = panel["title"]
    assert {x for x, _ in taken} == set(range(24))


@each_dashboard
def test_the_datasource_is_the_variable_everywhere(dashboard: Json) -> None:
    def named(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            if "datasource" in value:
                yield value["datasource"]
            for inner in value.values():
                yield from named(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from named(inner)

    assert all(source == DATASOURCE for source in named(dashboard))
    for panel in panels(dashboard):
        if panel["type"] != "row":
            assert panel["datasource"] == DATASOURCE
            assert panel["targets"] and all(target["datasource"] == DATASOURCE for target in panel["targets"])
    first, *others = dashboard["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert all(variable["datasource"] == DATASOURCE for variable in others)


@each_dashboard
def test_import_and_provisioning_need_no_edit(dashboard: Json) -> None:
    assert dashboard["id"] is None and dashboard["uid"] and dashboard["title"]
    assert not {"__inputs", "__requires", "__elements"} & set(dashboard)
    assert 39 <= dashboard["schemaVersion"] <= 41, "of another Grafana than 11"


@each_dashboard
def test_every_variable_is_defined_used_and_asks_in_a_known_form(dashboard: Json) -> None:
    variables = dashboard["templating"]["list"]
    names = [variable["name"] for variable in variables]
    text = json.dumps(dashboard)
    used = set(re.findall(r"\$\{?(\w+)", text)) - BUILT_IN - {"__all"}
    assert used == set(names)
    assert names.count("instance") == 1
    assert len(selectors(dashboard)) == len(names) - 1
    for query in queries(dashboard):
        wanted = len(re.findall(r"proxy_plugin_\w+", query))
        assert query.count('instance=~"$instance"') == wanted, f"not filtered by instance: {query}"


@each_dashboard
def test_what_is_counted_by_model_can_be_filtered_by_model(dashboard: Json) -> None:
    by_model = {name for name, series in exported().items() if any("model" in labels for labels in series)}
    for query in queries(dashboard):
        names = re.findall(r"proxy_plugin_\w+", query)
        wanted = len(names) if by_model.issuperset(names) else 0  # else the parts would be of different requests
        assert query.count('model=~"$model"') == wanted, query


@each_dashboard
def test_every_panel_says_what_it_shows(dashboard: Json) -> None:
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles) and all(titles)
    for panel in panels(dashboard):
        if panel["type"] != "row":
            assert len(panel["description"]) > 40, panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            limits = [step["value"] for step in steps]
            assert limits[0] is None and limits[1:] == sorted(limits[1:]), panel["title"]


def test_provisioning_files_name_a_prometheus_and_a_folder_of_dashboards() -> None:
    def read(kind: str) -> list[Json]:
        files = sorted((GRAFANA / "provisioning" / kind).glob("*.yml"))
        contents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
        assert contents and all(content["apiVersion"] == 1 for content in contents)
        key = "providers" if kind == "dashboards" else kind
        return [entry for content in contents for entry in content[key]]

    sources = read("datasources")
    assert [source["type"] for source in sources if source["isDefault"]] == [DATASOURCE["type"]]
    assert all(source["name"] and source["access"] == "proxy" and source["url"] for source in sources)
    providers = read("dashboards")
    assert all(provider["type"] == "file" and provider["options"]["path"] for provider in providers)


# --- against a real Prometheus


def traffic() -> list[Event]:
    """At least one event of every kind, label and value."""
    repaired = Report(**dict.fromkeys(Report.REPAIRS, 1), bytes_before=3000, bytes_after=2400)
    collapsed = Report(subtasks_collapsed=2, tool_messages_cleared=6, bytes_before=60_000, bytes_after=20_000)
    reports = {"rewritten": (repaired, collapsed), "audited": (repaired, collapsed)}
    plain = (Report(bytes_before=2000, bytes_after=2000),)
    return [
        *(
            RequestHandled(endpoint, outcome, report, 0.002)
            for endpoint, outcome in product(ENDPOINTS, OUTCOMES)
            for report in reports.get(outcome, plain)
        ),
        *(PassedThrough(reason) for reason in PASSTHROUGH_REASONS),
        *(StoreCalled(name, 0.003, error) for name, error in product(OPERATIONS, (None, "timeout"))),
        ValueLocked(),
        SnapshotCreated(20_000),
        SnapshotRestored(),
        SnapshotRestoreFailed(),
        *(PrefixBroken(cause) for cause in BREAKS),
        *(Refused(rewritten) for rewritten in (True, False, True, True)),
        *(UsageReported(model, 4000, 3000, 500) for model in ("gpt", "")),
        *(HistoryEstimated("gpt", mode, Prompt(5000, 4000), Prompt(2000, 1500), (1e-6, 1e-5)) for mode in MODES),
        *(SubtaskChanged(state, 42.0) for state in SUBTASK_STATES),
        SubtaskRecovered(),
        *(StoreChosen(kind) for kind in STORES),
        ModelsNamed(("gpt",)),
        BreakerTurned(True),
        SessionsCounted(7),
    ]


def test_the_traffic_holds_every_kind_of_event() -> None:
    assert {type(event) for event in traffic()} == set(get_args(Event))


class Plugin(ThreadingHTTPServer):
    """Serves the exposition as the proxy would, and tells when it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.asked = threading.Condition()
        plugin = self

        class Scrape(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with plugin.asked:
                    body, content_type = plugin.metrics.exposition()
                    plugin.asked.notify_all()
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.metrics.observe(ModelsNamed(("gpt",)))
        super().__init__(("127.0.0.1", 0), Scrape)
        self.instance = f"127.0.0.1:{self.server_port}"

    def observe(self, events: list[Event]) -> None:
        """Counts all events between two scrapes."""
        with self.asked:
            for event in events:
                self.metrics.observe(event)

    def wait_for_scrape(self) -> None:
        with self.asked:
            self.asked.wait(timeout=1)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus that scraped before and after the traffic, and the instance it scraped."""
    plugin = Plugin()
    threading.Thread(target=plugin.serve_forever, daemon=True).start()
    job = {"static_configs": [{"targets": [plugin.instance]}]}
    try:
        with scraping(tmp_path_factory.mktemp("prometheus"), job) as prometheus:
            requests = "sum(proxy_plugin_requests_total)"
            prometheus.until(requests, lambda value: value == 0, plugin.wait_for_scrape)
            plugin.observe(traffic())
            handled = sum(isinstance(event, RequestHandled) for event in traffic())
            prometheus.until(requests, lambda value: value == handled, plugin.wait_for_scrape)
            yield prometheus, plugin.instance
    finally:
        plugin.shutdown()
        plugin.server_close()


@each_dashboard
def test_every_variable_has_values(dashboard: Json, scraped: tuple[Prometheus, str]) -> None:
    prometheus, instance = scraped
    expected = {"instance": [instance], "endpoint": sorted(ENDPOINTS), "model": ["gpt", "other"]}
    for selector, label in selectors(dashboard):
        match = filled_in(selector, instance=".*")
        assert sorted(prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": match})) == expected[label]


@each_dashboard
@pytest.mark.parametrize("everything", [True, False], ids=["all", "one chosen"])
def test_every_expression_answers(dashboard: Json, everything: bool, scraped: tuple[Prometheus, str]) -> None:
    prometheus, instance = scraped
    chosen = {"instance": ".*"} if everything else {"instance": instance, "endpoint": "chat", "model": "gpt"}
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            expression = filled_in(target["expr"], **chosen)
            answer = prometheus.query(expression)
            assert answer and all(math.isfinite(value) for _, value in answer), f"{panel['title']}: {expression}"
            assert any(value != 0 for _, value in answer), f"{panel['title']}: {expression}"
            if panel["type"] == "stat":
                assert len(answer) == 1, panel["title"]
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert all(labels.get(label) for labels, _ in answer), f"{panel['title']}: {label}"


@each_dashboard
def test_an_instance_that_is_not_there_shows_nothing(dashboard: Json, scraped: tuple[Prometheus, str]) -> None:
    prometheus, _ = scraped
    for query in queries(dashboard):
        assert prometheus.query(filled_in(query, instance="nowhere:1")) == []


def test_the_overview_shows_the_saving_that_was_made(scraped: tuple[Prometheus, str]) -> None:
    prometheus, _ = scraped
    overview = load(GRAFANA / "dashboards" / "overview.json")

    at = str(time.time())  # an increase depends on the window; all values are of the same one

    def shown(title: str) -> float:
        (panel,) = [panel for panel in panels(overview) if panel["title"] == title]
        expression = filled_in(panel["targets"][0]["expr"], instance=".*")
        ((_, value),) = prometheus.query(expression, time=at)
        return value

    handled = [event for event in traffic() if isinstance(event, RequestHandled)]
    received = sum(event.report.bytes_before for event in handled)
    saved = sum(e.report.bytes_before - e.report.bytes_after for e in handled if e.outcome == "rewritten")
    assert shown("History saved") == pytest.approx(saved / received)
    asked_for = ("header_off", "mode_off")
    unasked = [reason for reason in PASSTHROUGH_REASONS if reason not in asked_for]
    assert shown("Stood aside unasked") == pytest.approx(len(unasked) / len(handled))
    assert shown("Tool messages cleared") == pytest.approx(3 * shown("Subtasks collapsed"))
    assert shown("Provider's cache hits") == pytest.approx(0.75)
    dollars = (4000 * 1e-6 + 1000 * 1e-5) - (1500 * 1e-6 + 500 * 1e-5)
    assert shown("Dollars saved") / shown("Tokens saved") == pytest.approx(dollars / 3000)
    assert shown("Audit: dollars it would save") == pytest.approx(shown("Dollars saved"))


def test_every_alert_asks_for_what_is_exported_and_fires_on_this_traffic(scraped: tuple[Prometheus, str]) -> None:
    prometheus, instance = scraped
    for rule in alerts():
        assert faults(rule["expr"], exported()) == [], rule["alert"]
        answer = prometheus.query(rule["expr"])
        assert [labels["instance"] for labels, _ in answer] == [instance], rule["alert"]
