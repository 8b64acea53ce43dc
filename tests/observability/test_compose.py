"""config/compose.yaml against what it mounts, builds and scrapes: all of it but starting the containers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy_plugin.settings import Settings
from tests.binaries import require_binary

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
COMPOSE: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*")


def mounts(service: str) -> dict[str, tuple[str, str]]:
    """Path in the container -> what is mounted there, and how."""
    found = {}
    for entry in SERVICES[service].get("volumes", ()):
        source, inside, *mode = entry.split(":")
        found[inside] = (source, mode[0] if mode else "rw")
    return found


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_it_holds_the_whole_stack() -> None:
    assert set(SERVICES) == {"litellm", "redis", "prometheus", "grafana"}
    known = {"build", "image", "command", "ports", "environment", "volumes", "depends_on", "healthcheck", "restart"}
    for name, service in SERVICES.items():
        assert set(service) <= known and ("image" in service) != ("build" in service), name
        assert set(service.get("depends_on", ())) <= set(SERVICES), name


def test_images_are_pinned_to_a_version() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    recipe = (CONFIG / "Dockerfile").read_text()
    chosen = dict(re.findall(r"^ARG (\w+)=(\S+)$", recipe, re.MULTILINE))
    images += [chosen.get(name.strip("${}"), name) for name in re.findall(r"^FROM (\S+)", recipe, re.MULTILINE)]
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_ports_are_published_on_loopback_only_and_once() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    hosts = [re.fullmatch(r"127\.0\.0\.1:(\d+):\d+", port) for port in published]
    assert all(hosts)
    assert len({match[1] for match in hosts if match}) == len(published)


def test_what_is_mounted_exists_and_is_read_only() -> None:
    volumes = set(COMPOSE["volumes"])
    used = set()
    for name in SERVICES:
        for source, mode in mounts(name).values():
            if source in volumes:
                used.add(source)
            else:
                assert (CONFIG / source).exists(), source
                assert mode == "ro", source
    assert used == volumes


def test_the_image_is_built_of_what_is_there_and_starts_with_what_is_mounted() -> None:
    build = SERVICES["litellm"]["build"]
    assert (CONFIG / build["context"]).resolve() == ROOT
    text = (ROOT / build["dockerfile"]).read_text()
    copied = [name for line in re.findall(r"^COPY ([^-].*) \S+$", text, re.MULTILINE) for name in line.split()]
    assert {"pyproject.toml", "proxy_plugin"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    started = re.search(r'"--config", "([^"]+)"', text)
    assert started and started[1] in mounts("litellm")
    assert f"EXPOSE {SERVICES['litellm']['ports'][0].split(':')[-1]}" in text


def test_the_proxy_gets_all_that_its_config_reads_and_settings_that_load(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SERVICES["litellm"]["environment"]
    wanted = set(re.findall(r"os\.environ/(\w+)", (ROOT / "litellm_config.yaml").read_text()))
    assert wanted <= set(environment)
    assert read("litellm_config.yaml")["litellm_settings"]["callbacks"] == ["proxy_plugin.handler"]
    assert environment["PROXY_PLUGIN_CONFIG"] in mounts("litellm")
    for name, value in environment.items():
        if name.startswith("PROXY_PLUGIN_") and name != "PROXY_PLUGIN_CONFIG":
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PROXY_PLUGIN_CONFIG", str(CONFIG / "plugin.yaml"))
    assert Settings.load().http.open_metrics
    assert environment["PROXY_PLUGIN_REDIS_URL"] == "redis://redis:6379"


def test_prometheus_scrapes_the_proxy_and_reads_the_alerts() -> None:
    config, inside = read("config/prometheus.yml"), mounts("prometheus")
    assert inside["/etc/prometheus/prometheus.yml"][0] == "./prometheus.yml"
    assert all(file in inside for file in config["rule_files"])
    (job,) = config["scrape_configs"]
    assert job["metrics_path"] == Settings().http.prefix + "/metrics"
    port = SERVICES["litellm"]["ports"][0].split(":")[-1]
    assert job["static_configs"] == [{"targets": [f"litellm:{port}"]}]


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    config = read("config/prometheus.yml")
    config["rule_files"] = [str(ROOT / "grafana" / Path(file).name) for file in config["rule_files"]]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    command = [require_binary("promtool"), "check", "config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_the_dashboards_and_their_prometheus() -> None:
    inside = mounts("grafana")
    assert inside["/etc/grafana/provisioning"][0] == "../grafana/provisioning"
    (provider,) = read("grafana/provisioning/dashboards/proxy-plugin.yml")["providers"]
    assert inside[provider["options"]["path"]][0] == "../grafana/dashboards"
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    port = SERVICES["prometheus"]["ports"][0].split(":")[-1]
    assert source["url"] == f"http://prometheus:{port}"
    assert source["jsonData"]["timeInterval"] == read("config/prometheus.yml")["global"]["scrape_interval"]
