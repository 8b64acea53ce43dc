"""A real LiteLLM proxy process with the plugin, for tests.

    with Proxy(folder, models={"gpt": provider.base_url}) as proxy:
        client = openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key)

Everything is on loopback and on free ports; only processes that were started here are ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests import forked

START_SECONDS = 90.0
PATIENT = {"PROXY_PLUGIN_DEADLINES__STORE_MS": "1000", "PROXY_PLUGIN_DEADLINES__TOTAL_MS": "5000"}
"""A busy machine stops a process for longer than the plugin waits: it would stand aside."""
READ_LATE = ("PROXY_PLUGIN_", "ANTHROPIC_API_")
"""How variables begin that nothing reads while LiteLLM is imported."""

CUSTOM_AUTH = """
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

KEYS = {"sk-alice": "alice", "sk-bob": "bob"}


async def check(request, api_key):
    if api_key == "%(admin)s":
        return UserAPIKeyAuth(api_key=api_key, user_role=LitellmUserRoles.PROXY_ADMIN, user_id="admin")
    if api_key in KEYS:
        return UserAPIKeyAuth(api_key=api_key, user_id=KEYS[api_key], user_role=LitellmUserRoles.INTERNAL_USER)
    raise Exception("unknown key")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plugin_callback(folder: Path) -> str:
    """The callback as a config names it. LiteLLM before 1.95 loads callbacks from files beside the config
    only, so there it is a file of one line (README, "Older LiteLLM")."""
    release = tuple(int(part) for part in version("litellm").split(".")[:2])
    if release >= (1, 95):
        return "proxy_plugin.handler"
    (folder / "session_plugin.py").write_text("from proxy_plugin import handler\n")
    return "session_plugin.handler"


class Proxy:
    """One proxy. `models`: name -> litellm_params; a bare address is an OpenAI deployment there.

    redis_url  None: the plugin's embedded server, on a free port with its data in `folder`
    environ    further variables of the process
    plugin     False: a proxy without the plugin
    arguments  further ones of the command line
    key        the admin key; proxies that answer for one another have the same
    patient    waits longer for its store than the plugin does by default
    fresh      a new Python process, as it always is with several workers of another server than gunicorn and where
               `environ` has variables that are not READ_LATE; else it is forked from one that has imported LiteLLM
               (tests/forked.py)
    custom_auth  keys sk-alice and sk-bob beside the admin key, which is `key` (there is no database)"""

    def __init__(
        self,
        folder: Path,
        models: Mapping[str, str | Mapping[str, Any]],
        *,
        redis_url: str | None = None,
        environ: Mapping[str, str] | None = None,
        plugin: bool = True,
        custom_auth: bool = False,
        litellm_settings: Mapping[str, Any] | None = None,
        router_settings: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        key: str = "",
        patient: bool = True,
        fresh: bool = False,
    ) -> None:
        self.folder = folder
        self.arguments = arguments
        self.python = sys.executable
        self.port = free_port()
        self.store_port = free_port()
        self.key = key or "sk-" + secrets.token_hex(16)
        self.log_file = folder / "proxy.log"
        self.process: subprocess.Popen[bytes] | forked.Forked | None = None
        late = all(name.startswith(READ_LATE) for name in environ or ())
        spawns = bool(arguments) and "--run_gunicorn" not in arguments  # workers as new processes; gunicorn forks, too
        self.fresh = fresh or spawns or not late or not forked.POSSIBLE
        general: dict[str, Any] = {"master_key": self.key}
        if custom_auth:
            (folder / "keys_of_test.py").write_text(CUSTOM_AUTH % {"admin": self.key})
            general.update(custom_auth="keys_of_test.check", custom_auth_run_common_checks=True)
        callbacks = [plugin_callback(folder)] if plugin else []
        config = {
            "model_list": [
                {"model_name": name, "litellm_params": _openai(address) if isinstance(address, str) else dict(address)}
                for name, address in models.items()
            ],
            "litellm_settings": {
                "num_retries": 0,
                **(litellm_settings or {}),
                "callbacks": [*callbacks, *(litellm_settings or {}).get("callbacks", [])],
            },
            "router_settings": dict(router_settings or {}),
            "general_settings": general,
        }
        self.config_file = folder / "litellm_config.yaml"
        self.config_file.write_text(yaml.safe_dump(config))
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PROXY_PLUGIN_", "REDIS_", "LITELLM_", "PYTEST_"))
        }
        self.environ |= {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "HOME": str(folder),
        }
        if plugin and redis_url is None:
            self.environ["PROXY_PLUGIN_STORE__EMBEDDED_PORT"] = str(self.store_port)
            self.environ["PROXY_PLUGIN_STORE__EMBEDDED_DIR"] = str(folder / "store")
        elif plugin and redis_url is not None:
            self.environ["PROXY_PLUGIN_REDIS_URL"] = redis_url
        if plugin and patient:
            self.environ |= PATIENT
        self.environ |= environ or {}

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return self.root + "/v1"

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def launch(self) -> None:
        """Starts the process without waiting for it to serve."""
        config, port = str(self.config_file), str(self.port)
        arguments = ["--config", config, "--port", port, "--host", "127.0.0.1", *self.arguments]
        if not self.fresh:
            self.process = forked.Forked(arguments, self.folder, self.environ, self.log_file)
            return
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-c", "from litellm import run_server; run_server()", *arguments],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def start(self) -> None:
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.root + "/health/liveliness", timeout=2).status_code == 200:
                    return
            time.sleep(0.1)
        log = self.log()
        self.stop()
        raise RuntimeError(f"the proxy did not start:\n{log[-4000:]}")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def kill(self) -> None:
        """kill -9, as a crash would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(15)
        self.process = None

    def get(self, path: str, *, key: str | None = None, **params: Any) -> httpx.Response:
        """GET on the plugin's own prefix."""
        headers = {"authorization": f"Bearer {self.key if key is None else key}"} if key != "" else {}
        return httpx.get(f"{self.root}/api/v1{path}", headers=headers, params=params, timeout=20)

    def metric(self, name: str, **labels: str) -> float:
        """Value of one sample of the plugin's own /metrics; 0 where it is not there."""
        text = self.get("/metrics").text
        total = 0.0
        for line in text.splitlines():
            match = re.fullmatch(rf"{re.escape(name)}(?:\{{(.*)\}})? ([0-9.e+-]+|NaN)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total


def _openai(address: str) -> dict[str, str]:
    return {"model": "openai/gpt-4o", "api_base": address, "api_key": "sk-upstream-secret"}


def eventually(check: Any, seconds: float = 20.0) -> Any:
    """The first true value of `check()`, polled; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value or time.monotonic() > deadline:
            assert value, "did not come true in time"
            return value
        time.sleep(0.02)
