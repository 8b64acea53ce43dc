"""Encryption at rest through a real proxy and its embedded store, whose files lie on this machine's disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.admin.calls import call, messages, told
from tests.agent import Agent
from tests.binaries import require_package
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy, eventually

require_package("cryptography")

NEEDLE = "heliotrope"
OLD, NEW = (b64encode(os.urandom(32)).decode() for _ in range(2))
VARIABLE = "PROXY_PLUGIN_ENCRYPTION_KEYS"
TASK = f'call find {{"what": "{NEEDLE}"}}'
SYSTEM = {"role": "system", "content": f"you know {NEEDLE}s"}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("sealed")
    with Proxy(folder, {"gpt": provider.base_url}, custom_auth=True, environ={VARIABLE: OLD}) as running:
        yield running


def on_disk(folder: Path, text: str) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def shell(proxy: Proxy, *arguments: str, keys: str) -> str:
    """`proxy-plugin sessions …` beside the running proxy."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy_plugin.cli", "sessions", *arguments, "--config", str(proxy.config_file)],
        cwd=proxy.folder, env={**proxy.environ, VARIABLE: keys}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_store_on_disk_holds_no_text_and_a_lost_key_costs_no_request(sealed: Proxy, provider: FakeProvider) -> None:
    client = openai.OpenAI(base_url=sealed.base_url, api_key="sk-alice", max_retries=0)
    agent = told(sealed, client, "s-1", TASK, TASK, messages=[SYSTEM])
    call(sealed, "PATCH", "/sessions/s-1", {"title": f"my {NEEDLE}", "description": f"{NEEDLE}s"})
    call(sealed, "POST", "/sessions/s-1/snapshots", {"name": f"before the {NEEDLE}"})
    call(sealed, "POST", "/sessions/s-1/subtasks", {"id": "plan", "description": f"a {NEEDLE}"})
    call(sealed, "POST", "/sessions/s-1/subtasks/plan/fail", {"error": f"no {NEEDLE}"})
    whole = messages(sealed, "s-1")
    assert whole == agent.messages and str(whole).count(NEEDLE) > 6
    found = call(sealed, "GET", "/sessions/s-1/search", q=NEEDLE).json()
    assert found["results"] and call(sealed, "GET", "/sessions/s-1").json()["title"] == f"my {NEEDLE}"
    exported = call(sealed, "GET", "/sessions/s-1/export").text
    assert exported.count(NEEDLE) > 12 and OLD not in exported and "pp-sealed" not in exported

    # The server writes its file every second.
    eventually(lambda: on_disk(sealed.folder / "store", "pp-sealed-1:"), seconds=10)
    assert on_disk(sealed.folder / "store", NEEDLE) == []
    assert on_disk(sealed.folder, OLD) == []

    # The old key is dropped too early: requests go on, what is not readable is named and counted, nothing is lost.
    sealed.stop()
    sealed.environ[VARIABLE] = NEW
    sealed.start()
    agent.client = openai.OpenAI(base_url=sealed.base_url, api_key="sk-alice", max_retries=0)
    provider.requests.clear()
    agent.run(TASK)
    assert provider.refused() == [] and len(provider.requests) == 2
    count = len(agent.messages) - 1  # the leading text is no node, and cannot be read either
    answer = eventually(
        lambda: (seen := call(sealed, "GET", "/sessions/s-1/history").json())["message_count"] == count and seen
    )
    assert len(answer["missing_nodes"]) == len(whole) - 1
    assert answer["messages"][-4:] == agent.messages[-4:]
    assert sealed.metric("proxy_plugin_store_errors_total", operation="decrypt") >= len(whole)
    lines = [line for line in sealed.log().splitlines() if VARIABLE in line]
    assert len(lines) == 1 and "put that key behind the first one" in lines[0]
    assert OLD not in sealed.log() and NEW not in sealed.log()

    # With both keys, as after a rotation, everything is there, in a shell too.
    shown = json.loads(shell(sealed, "show", "s-1", "--json", keys=f"{NEW},{OLD}"))
    assert shown["missing_nodes"] == [] and shown["messages"] == agent.messages
    assert " came under the key " in shell(sealed, "reseal", keys=f"{NEW},{OLD}")
    assert call(sealed, "GET", "/sessions/s-1/history").json()["missing_nodes"] == []  # the proxy has the new key only
    assert messages(sealed, "s-1") == agent.messages
    assert on_disk(sealed.folder / "store", NEEDLE) == []
    wrong = shell(sealed, "show", "s-1", keys=f"{NEW},s3cret").splitlines()
    assert len(wrong) == 1 and f"{VARIABLE}: key 2 " in wrong[0] and "s3cret" not in wrong[0]


def test_a_streamed_reply_is_kept_encrypted_too(sealed: Proxy) -> None:
    client = openai.OpenAI(base_url=sealed.base_url, api_key="sk-alice", max_retries=0)
    agent = Agent(client, extra_headers={"x-litellm-session-id": "streamed"}, stream=True)
    agent.run(TASK)
    assert eventually(lambda: (held := messages(sealed, "streamed")) == agent.messages and held)
    assert on_disk(sealed.folder / "store", NEEDLE) == []
