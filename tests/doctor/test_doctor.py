"""`proxy-plugin doctor`: each fault is found, named and comes with its cure; no secret is printed."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy_plugin.doctor.config import check_config
from proxy_plugin.doctor.environment import check_metrics_folder, check_versions
from proxy_plugin.doctor.finding import Finding
from proxy_plugin.doctor.run import run
from tests.proxy import free_port, plugin_callback
from tests.sessions.servers import client, running

GOOD = """
model_list: [{model_name: gpt, litellm_params: {model: openai/gpt-4o}}]
litellm_settings: {callbacks: ["%s"]}
general_settings: {master_key: os.environ/MASTER}
"""


def found(findings: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def of_config(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> dict[str, Finding]:
    file = folder / "config.yaml"
    file.write_text(text)
    return found(check_config(file, environ or {"MASTER": "sk-secret"}))


def test_a_config_that_loads_the_plugin_is_fine(tmp_path: Path) -> None:
    findings = of_config(tmp_path, GOOD % plugin_callback(tmp_path))
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert "sk-secret" not in str(findings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{callbacks: [proxy_plugin.Handler]}", "names proxy_plugin.Handler"),
        ("{success_callback: [proxy_plugin.handler]}", "success_callback"),
        ("{drop_params: true}", "does not load the plugin"),
    ],
)
def test_a_plugin_that_is_not_loaded_is_an_error_with_the_line_that_loads_it(
    tmp_path: Path, settings: str, said: str
) -> None:
    finding = of_config(tmp_path, f"litellm_settings: {settings}")["callback"]
    assert finding.level == "error" and said in finding.message
    assert 'callbacks: ["proxy_plugin.handler"]' in finding.cure


def test_what_shadows_the_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "proxy_plugin.py").write_text("")
    assert of_config(tmp_path, GOOD % plugin_callback(tmp_path))["shadowing"].level == "error"


def test_a_master_key_that_is_not_set_is_a_warning(tmp_path: Path) -> None:
    findings = of_config(tmp_path, GOOD % plugin_callback(tmp_path), {"OTHER": "1"})
    assert findings["master key"].level == "warning" and "$MASTER" in findings["master key"].message


def test_a_config_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    assert [f.level for f in check_config(tmp_path / "none.yaml", {})] == ["error"]
    (tmp_path / "broken.yaml").write_text("a: [")
    assert [f.level for f in check_config(tmp_path / "broken.yaml", {})] == ["error"]


def test_what_a_cure_names_stands_in_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy_plugin.doctor.config.version", lambda name: "1.80.0")
    findings = [*of_config(tmp_path, "").values(), *of_config(tmp_path, GOOD % "proxy_plugin.handler").values()]
    named = [place for finding in findings for place in re.findall("“(.+?)”", finding.cure)]
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert len(named) == 2 and all(f"## {place}\n" in readme or f"**{place}.**" in readme for place in named)


def test_several_workers_need_a_folder_for_their_metrics(tmp_path: Path) -> None:
    name = "PROMETHEUS_MULTIPROC_DIR"
    assert found(check_metrics_folder({}, 1))["metrics"].level == "ok"
    assert found(check_metrics_folder({}, 4))["metrics"].level == "warning"
    assert found(check_metrics_folder({name: str(tmp_path)}, 4))["metrics"].level == "ok"
    (tmp_path / "counter_1.db").write_text("x")
    assert found(check_metrics_folder({name: str(tmp_path)}, 4))["metrics"].level == "warning"
    assert found(check_metrics_folder({name: str(tmp_path / "counter_1.db")}, 4))["metrics"].level == "error"


def test_a_folder_for_metrics_that_is_missing_or_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finding(folder: Path) -> Finding:
        return found(check_metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(folder)}, 2))["metrics"]

    missing = finding(tmp_path / "none" / "yet")
    assert missing.level == "ok" and "made at the start" in missing.message
    (tmp_path / "file").write_text("")
    below_a_file = finding(tmp_path / "file" / "metrics")
    assert below_a_file.level == "error" and "cannot be made" in below_a_file.message
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a test that runs as root may write everywhere
    for folder, said in ((tmp_path, "cannot be written"), (tmp_path / "none", "cannot be made")):
        refused = finding(folder)
        assert refused.level == "error" and said in refused.message and refused.cure


def test_the_installed_packages_are_within_their_bounds() -> None:
    findings = found(check_versions())
    assert {"python", "litellm", "redis", "starlette", "prometheus-client"} <= set(findings)
    assert {finding.level for finding in findings.values()} == {"ok"}


def checked(tmp_path: Path, url: str, **environ: str) -> tuple[int, dict[str, Any]]:
    config = tmp_path / "config.yaml"
    config.write_text(GOOD % plugin_callback(tmp_path))
    out = io.StringIO()
    given = {"PROXY_PLUGIN_REDIS_URL": url, "MASTER": "m", **environ}
    code = run(config, out, workers=1, json=True, environ=given)
    assert "s3cret" not in out.getvalue()
    return code, {finding["check"]: finding for finding in json.loads(out.getvalue())["findings"]}


def test_a_store_is_looked_at_for_what_it_would_lose(tmp_path: Path) -> None:
    port = free_port()
    settings = f"port {port}\nmaxmemory 100mb\nmaxmemory-policy allkeys-lru\nappendonly no\nrequirepass s3cret"
    with running(tmp_path, settings):
        client(port, "s3cret")
        code, findings = checked(tmp_path, f"redis://:s3cret@127.0.0.1:{port}")
        assert code == 0
        assert findings["store persistence"]["level"] == "warning"
        assert findings["store eviction"]["level"] == "warning"
        assert "allkeys-lru" in findings["store eviction"]["message"]
        assert findings["store rights"]["level"] == findings["clock"]["level"] == "ok"

        code, findings = checked(tmp_path, f"redis://:s3cret-wrong@127.0.0.1:{port}")
        assert code == 1 and "password" in findings["store answers"]["cure"]


def test_a_store_user_who_may_not_write_is_an_error(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, f"port {port}\nuser reader on >s3cret ~* +@read +@connection +info +time"):
        client(port)
        code, findings = checked(tmp_path, f"redis://reader:s3cret@127.0.0.1:{port}")
        assert code == 1 and findings["store rights"]["level"] == "error"
        assert "~pp:1:*" in findings["store rights"]["cure"]


def test_a_store_that_is_away_is_an_error(tmp_path: Path) -> None:
    code, findings = checked(tmp_path, f"redis://127.0.0.1:{free_port()}")
    assert code == 1 and findings["store answers"]["level"] == "error"


def test_a_key_that_cannot_be_used_is_named_without_its_value_and_the_store_is_looked_at(tmp_path: Path) -> None:
    away = f"redis://127.0.0.1:{free_port()}"
    code, findings = checked(tmp_path, away, PROXY_PLUGIN_ENCRYPTION_KEYS="s3cret")
    assert code == 1 and "PROXY_PLUGIN_ENCRYPTION_KEYS: key 1 " in findings["encryption"]["message"]
    assert findings["store"]["level"] == "ok" and findings["store answers"]["level"] == "error"
    assert checked(tmp_path, away)[1]["encryption"]["level"] == "ok"


def test_a_setting_that_is_mistyped_is_named(tmp_path: Path) -> None:
    code, findings = checked(tmp_path, "redis://127.0.0.1:1", PROXY_PLUGIN_COLLAPSE__POLICI="never")
    assert code == 1 and "PROXY_PLUGIN_COLLAPSE__POLICY" in findings["settings"]["message"]
