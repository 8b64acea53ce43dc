"""A real LiteLLM proxy with the plugin, as a process of its own in a folder of its own.

Nothing of the user's reaches it: it gets a fresh configuration, a generated key, free loopback ports, its
own folder for the embedded store, and of the environment only what a process needs to run.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx

from proxy_plugin.sessions import launcher
from proxy_plugin.settings import Settings

LOOPBACK = "127.0.0.1"
PREFIX = Settings().http.prefix
MODEL, GATEWAY_MODEL = "gpt-4o", "gpt-4o-behind-a-gateway"

_START_SECONDS = 150.0
_STORE_SECONDS = 15.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.25
_LOG_LINES = 25

_CONFIG = f"""\
model_list:
  - model_name: {MODEL}
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      api_base: os.environ/OPENAI_API_BASE
  - model_name: {GATEWAY_MODEL}
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      api_base: os.environ/GATEWAY_API_BASE

litellm_settings:
  callbacks: ["proxy_plugin.handler"]

general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
"""

_KEPT_VARIABLES = ("PATH", "HOME", "USER", "TMPDIR", "TZ", "LANG", "VIRTUAL_ENV")
_KEPT_PREFIXES = ("LC_", "LD_", "DYLD_", "PYTHON")


class ProxyError(Exception):
    """The proxy cannot be used; one line that says what happened."""


class Proxy:
    """Started by construction, in `folder`; `ready` waits for it and `stop` ends it. `provider`: the
    address of the fake provider."""

    def __init__(self, folder: Path, provider: str) -> None:
        port, store_port = _free_ports(2)
        self.key = "sk-demo-" + secrets.token_hex(16)  # LiteLLM refuses to start with a weak one
        self.address = f"http://{LOOPBACK}:{port}"
        self.log = folder / "proxy.log"
        config = folder / "litellm_config.yaml"
        config.write_text(_CONFIG, encoding="utf-8")
        self._http = httpx.Client(
            base_url=self.address, headers={"authorization": f"Bearer {self.key}"}, timeout=10, trust_env=False
        )
        own = {
            "OPENAI_API_KEY": "sk-fake",
            "OPENAI_API_BASE": f"{provider}/v1",
            "GATEWAY_API_BASE": f"{provider}/gateway/v1",
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",  # else LiteLLM looks for a .env in the folders above its package
            "NO_PROXY": "*",
            "PROXY_PLUGIN_STORE__EMBEDDED_PORT": str(store_port),
            "PROXY_PLUGIN_STORE__EMBEDDED_DIR": str(folder / "store"),
        }
        litellm = [sys.executable, "-m", "litellm.proxy.proxy_cli", "--config", str(config)]
        litellm += ["--host", LOOPBACK, "--port", str(port), "--telemetry", "False"]
        # The launcher ends the proxy with this process, however that ends.
        launched = [sys.executable, "-I", "-S", str(launcher.__file__), str(os.getpid()), *litellm]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                launched,
                cwd=folder,
                env={**_basic(os.environ), **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which ends the proxy in order
            )

    def ready(self) -> Iterator[None]:
        """Waits until requests are served and the store answers, with a pause at each step of the
        iteration. Raises ProxyError."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._says("/health/liveliness"):
            if (code := self._process.poll()) is not None:
                raise ProxyError(f"the proxy ended while it started (exit code {code})")
            if time.monotonic() > deadline:
                raise ProxyError(f"the proxy did not start within {_START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
            yield
        deadline = time.monotonic() + _STORE_SECONDS
        while not self._says(f"{PREFIX}/health", '"ok"'):
            if time.monotonic() > deadline:
                raise ProxyError("the proxy runs, but the plugin or its embedded store does not answer")
            time.sleep(_POLL_SECONDS)
            yield

    def get(self, path: str) -> httpx.Response:
        """One of the proxy's own pages, with the key. Raises ProxyError for anything but a 200."""
        try:
            response = self._http.get(path)
        except httpx.HTTPError as error:
            raise ProxyError(f"GET {path}: {type(error).__name__}") from None
        if response.status_code != 200:
            raise ProxyError(f"GET {path}: {response.status_code} {response.text[:200]}")
        return response

    def wait(self) -> int:
        """Blocks until the proxy ends by itself; gives its exit code."""
        return self._process.wait()

    def log_tail(self) -> list[str]:
        """The last lines of the log that say more than that a request went well."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if not line.endswith('" 200 OK')][-_LOG_LINES:]

    def stop(self) -> None:
        """Ends the proxy and with it its store."""
        self._http.close()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session, so its own group
            self._process.wait()

    def _says(self, path: str, word: str = "") -> bool:
        try:
            response = self._http.get(path)
        except httpx.HTTPError:
            return False
        return response.status_code == 200 and word in response.text


def _basic(environ: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k in _KEPT_VARIABLES or k.startswith(_KEPT_PREFIXES)}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:  # all at once, so that they differ
        sockets = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]
