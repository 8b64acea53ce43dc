"""The same store on a cluster and behind sentinels."""

from __future__ import annotations

import asyncio
from pathlib import Path

from proxy_plugin.sessions import identity
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Settings, Store
from tests.sessions import servers
from tests.sessions.paths import (
    OTHER_TENANT,
    TENANT,
    behind,
    keep,
    kept_under,
    lead,
    opened,
    reply,
    request,
    session,
    tip_of,
)


def test_a_cluster(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        connection = Connection.open(Settings(store=Store(url=url)), {})
        assert connection is not None
        store = SessionStore(connection, Settings())
        for number in range(12):  # enough to meet all three masters
            place = session(f"s-{number}", TENANT if number % 2 else OTHER_TENANT)
            await store.commit(request("u1", place, lead=lead("x"), agent="a"))
            done = await store.commit(reply("u1 a1", place, lead=lead("x"), agent="a"))
            assert (done.new_nodes, done.round_trips) == (1, 1)
            again = await SessionStore(connection, Settings()).commit(request("u1 a1 u2", place, subtask_id="s"))
            assert again.marks == (tip_of("u1 a1"),)
            history = await store.reader.history(place)
            assert history is not None and history.message_count == 4 - 1
            assert (await store.reader.node(place, tip_of("u1")[:12])) is not None
            large = await store.commit(request("u1 a1 u2 a2 u3", place, bodies=[b"x" * 700_000] * 5))
            assert large.new_nodes == 2
        for number in range(12):  # what leads to a session stands in another slot
            place = session(f"k-{number}")
            await store.commit(keep(reply("u1 a1", place), f"r-{number}"))
        await store.close()
        other = SessionStore(connection, Settings())
        for number in range(12):
            base = await other.kept.find(TENANT, kept_under(f"r-{number}"))
            assert base is not None and base.address == session(f"k-{number}")
            on = await other.commit(behind(base, "u1 a1", "u2"))
            assert (on.new_nodes, on.round_trips, on.alone) == (1, 1, False)
            assert await other.delete(base.address)
            assert await other.kept.find(TENANT, kept_under(f"r-{number}")) is None
        first = await store.commit(request("u1", opened()))
        await store.commit(reply("u1 a1", identity.address(TENANT, first.session_id)))
        joined = await SessionStore(connection, Settings()).commit(request("u1 a1 u2", opened()))
        assert joined.session_id == first.session_id
        assert (await store.index.sessions(TENANT)).total == 7
        everybody = await store.index.sessions(None, limit=5)
        assert (len(everybody.sessions), everybody.total) == (5, 13)
        assert await store.delete(session("s-1"))
        assert (await store.index.sessions(None)).total == 12
        await store.close()
        await connection.close()

    with servers.cluster(tmp_path, "secret") as url:
        asyncio.run(scenario(url))


def test_a_failover(tmp_path: Path) -> None:
    async def scenario() -> None:
        with servers.sentinel(tmp_path, "secret") as (url, master):
            settings = Settings(deadlines=Deadlines(store_ms=500), store=Store(url=url, breaker_reset_ms=100))
            connection = Connection.open(settings, {})
            assert connection is not None
            store = SessionStore(connection, settings)
            guarded = GuardedStore(store, settings)
            assert await guarded.commit(request("u0")) is not None
            master.kill()
            path = "u0"
            for turn in range(5):
                path += f" a{turn} u{turn}"
                await guarded.commit(request(path))
            await guarded.close(30)
            history = await store.reader.history(session())
            assert history is not None and history.head == tip_of(path)
            assert history.message_count == 11
            await connection.close()

    asyncio.run(scenario())
