"""A real Prometheus for the length of a `with` block, asked through its HTTP API."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.binaries import require_binary
from tests.proxy import Proxy, free_port

Labels = dict[str, str]


class Prometheus:
    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = url
        self._process = process
        self._log = log
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; AssertionError with Prometheus' own words if it refuses."""
        try:
            with self._open(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode(errors='replace')}") from None

    def query(self, expression: str, **parameters: str) -> list[tuple[Labels, float]]:
        data = self.get("/api/v1/query", query=expression, **parameters)
        assert data["resultType"] == "vector", expression
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def scraped_since(self, at: float) -> None:
        """Waits for a scrape of the plugin that began after this time."""
        newest = "max(timestamp(proxy_plugin_snapshot_created_total))"
        self.until(newest, lambda value: value > at, lambda: time.sleep(0.05))

    def until(self, expression: str, holds: Callable[[float], bool], wait: Callable[[], object]) -> None:
        """Asks until the one value of an expression is as it should be, with `wait` in between."""
        end = time.monotonic() + 60
        while True:
            assert self._process.poll() is None and time.monotonic() < end, self._log.read_text()
            wait()
            try:
                answer = self.query(expression)
            except (OSError, AssertionError):  # not listening, or not ready yet
                continue
            if answer and holds(answer[0][1]):
                return


@contextmanager
def scraping(folder: Path, job: Mapping[str, Any], every: str = "200ms") -> Iterator[Prometheus]:
    """One that scrapes a job so often. Skips without the binary."""
    binary = require_binary("prometheus")
    scrape = {"scrape_interval": every, "scrape_timeout": every}
    config = {"global": scrape, "scrape_configs": [{"job_name": "litellm", **job}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address, log_file = f"127.0.0.1:{free_port()}", folder / "log"
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(f"http://{address}", process, log_file)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def job_of(proxy: Proxy) -> dict[str, Any]:
    """How config/prometheus.yml scrapes a proxy, and with its key."""
    return {
        "metrics_path": "/api/v1/metrics",
        "authorization": {"credentials": proxy.key},
        "static_configs": [{"targets": [f"127.0.0.1:{proxy.port}"]}],
    }
