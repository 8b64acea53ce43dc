"""A store with a few sessions, and the command as a shell runs it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import tenant_of
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.settings import Settings, Store
from tests.proxy import free_port
from tests.sessions.paths import session
from tests.sessions.spoken import assistant, calling, result, talk, user

ALICE, BOB = (tenant_of("key", key_hash=name) for name in ("alice", "bob"))
TRIP = [
    {"role": "system", "content": "be brief"},
    user("find the flight to Zürich"),
    calling("call_1", "search", '{"to": "ZRH"}'),
    result("call_1", "LX 15 \x1b[2J"),
    assistant("It is LX 15."),
]

Sessions = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The plugin's own store there, with two sessions; no server runs."""
    port = free_port()
    chosen = Settings(store=Store(embedded_dir=str(tmp_path / "store"), embedded_port=port))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "plugin.yaml").write_text(
        f"store: {{embedded_dir: {tmp_path / 'store'}, embedded_port: {port}}}\n"
    )

    async def fill() -> None:
        connection = Connection.open(chosen, {})
        assert connection is not None
        store = SessionStore(connection, chosen)
        await talk(store, TRIP, session("trip", ALICE), metadata={"agent": "scout"})
        await talk(store, [*TRIP, user("book it"), assistant("Booked.")], session("trip", ALICE))
        await talk(store, [user("hello"), assistant("hi")], session("both", ALICE))
        await talk(store, [user("hello"), assistant("hi")], session("both", BOB))
        await store.close()
        await connection.close()

    asyncio.run(fill())
    yield tmp_path


@pytest.fixture
def sessions(folder: Path) -> Sessions:
    """Runs `proxy-plugin sessions …` beside the config."""

    def run(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PROXY_PLUGIN_", "REDIS_"))}
        command = [sys.executable, "-m", "proxy_plugin.cli", "sessions", *arguments]
        return subprocess.run(command, cwd=folder, env=environ, input=given, capture_output=True, text=True, timeout=60)

    return run
