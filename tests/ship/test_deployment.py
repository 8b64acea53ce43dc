"""The files to deploy with, against what they name: the image's recipe, the chart's values, the service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from proxy_plugin.cli import parser
from proxy_plugin.settings import Settings

CONFIG = Path(__file__).parents[2] / "config"
VALUES: dict[str, Any] = yaml.safe_load((CONFIG / "helm-values.yaml").read_text(encoding="utf-8"))

CHART = {
    "replicaCount", "image", "environmentSecrets", "envVars", "proxy_config", "extraResources", "volumes",
    "volumeMounts", "terminationGracePeriodSeconds", "strategy", "serviceMonitor",
}  # fmt: skip
"""Those of LiteLLM's chart that are used, by its own values.yaml."""


def settings_of(environ: dict[str, str], file: Path) -> Settings:
    return Settings.load(environ={**environ, "PROXY_PLUGIN_CONFIG": str(file)})


def test_the_charts_values_hold_a_config_with_the_plugin_and_settings_that_load(tmp_path: Path) -> None:
    assert set(VALUES) == CHART
    config = VALUES["proxy_config"]
    assert "proxy_plugin.handler" in config["litellm_settings"]["callbacks"]
    (resource,) = VALUES["extraResources"]
    (name,) = resource["data"]
    file = tmp_path / name
    file.write_text(resource["data"][name])
    loaded = settings_of(VALUES["envVars"], file)
    assert (loaded.mode, loaded.tenant, loaded.store.embedded) == ("audit", "team", False)


def test_what_the_charts_pods_read_is_mounted() -> None:
    mounted = {mount["mountPath"]: mount["name"] for mount in VALUES["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in VALUES["volumes"]}
    assert set(mounted.values()) == set(volumes)
    environ = VALUES["envVars"]
    where = str(Path(environ["PROXY_PLUGIN_CONFIG"]).parent)
    assert volumes[mounted[where]]["configMap"]["name"] == VALUES["extraResources"][0]["metadata"]["name"]
    assert "emptyDir" in volumes[mounted[environ["PROMETHEUS_MULTIPROC_DIR"]]]


def test_the_service_runs_commands_that_there_are_with_settings_that_there_are() -> None:
    text = (CONFIG / "litellm.service").read_text(encoding="utf-8")
    sections = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert sections == ["Unit", "Service", "Install"]
    environ = dict(re.findall(r"^Environment=(PROXY_PLUGIN_\w+)=(\S+)$", text, re.MULTILINE))
    environ.pop("PROXY_PLUGIN_CONFIG")
    loaded = settings_of(environ, CONFIG / "plugin.yaml")
    assert loaded.store.embedded_dir == "/var/lib/litellm"
    checked = re.search(r"^ExecStartPre=-\S+/proxy-plugin (.+)$", text, re.MULTILINE)
    started = re.search(r"^ExecStart=\S+/litellm --config (\S+) .*--num_workers (\d+)$", text, re.MULTILINE)
    assert checked and started
    asked = parser().parse_args(checked[1].split())
    assert (asked.config, asked.workers) == (started[1], int(started[2]))
