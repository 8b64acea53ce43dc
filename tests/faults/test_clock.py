"""A worker's clock that jumps: histories, order and expiry do not hang on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection, Target
from proxy_plugin.sessions.embedded import Embedded, Endpoint
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.settings import Settings
from tests.proxy import free_port
from tests.sessions.paths import START_MS, TENANT, ids_of, reply, request, session

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
YEAR_MS = 365 * DAY_MS


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    server = Embedded(tmp_path, free_port())
    try:
        yield server.ensure()
    finally:
        server.stop()


@pytest.mark.parametrize(
    "jumps",
    [(0, -HOUR_MS, -DAY_MS, -YEAR_MS), (0, YEAR_MS, 0, -YEAR_MS), (0, -START_MS, 1, 2)],
    ids=["back", "ahead and back", "to the epoch and back"],
)
def test_a_clock_that_jumps_costs_nothing(endpoint: Endpoint, jumps: tuple[int, ...]) -> None:
    async def scenario() -> None:
        target = Target(
            "single", "test", options={"host": endpoint.host, "port": endpoint.port, "password": endpoint.password}
        )
        connection, settings = Connection(target), Settings()
        path, latest = "", 0
        for turn, jump in enumerate(jumps):
            store = SessionStore(connection, settings)  # as another worker would, that knows nothing
            now = START_MS + jump
            path = f"{path} u{turn}".strip()
            await store.commit(request(path, at_ms=now))
            path += f" a{turn}"
            stored = await store.commit(reply(path, at_ms=now))
            assert (stored.branch, stored.snapshot_restored) == ("main", True)  # no branch, and its subtask ended
            latest = max(latest, now)
            await store.close()

            history = await store.reader.history(session())
            assert history is not None and [node.id for node in history.nodes] == ids_of(path)
            assert history.session.last_activity_ms == latest
            names = keys.of_session(session())
            for key in (names.meta, names.nodes, names.bodies):
                left = await connection.command("pttl", key)
                assert 0 < left <= settings.store.session_ttl_s * 1000
        page = await SessionStore(connection, settings).index.sessions(TENANT)
        assert [info.session_id for info in page.sessions] == [session().session_id]
        assert page.sessions[0].subtasks == len(jumps)
        await connection.close()

    asyncio.run(scenario())
