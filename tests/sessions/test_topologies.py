"""The same store on one server, on a cluster and behind sentinels; and a failover while it is written to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio.cluster import RedisCluster

from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Settings, Store
from tests.sessions import servers
from tests.sessions.essentials import ESSENTIALS, path_of, run
from tests.sessions.paths import ids_of, reply, request, session

PASSWORD = "secret"
WRITERS = 8
BACK_SECONDS = 20.0


@pytest.fixture(scope="session", params=["single", "cluster", "sentinel"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    match request.param:
        case "sentinel":
            with servers.sentinel(folder, PASSWORD) as (address, _):
                yield address
        case topology:
            with getattr(servers, topology)(folder, PASSWORD) as address:
                yield address


@pytest.mark.parametrize("essential", ESSENTIALS)
def test_the_store_does_the_same_on_any_of_them(url: str, essential: str) -> None:
    run(url, ESSENTIALS[essential])


def test_many_at_once_are_stored_on_a_cluster_without_going_to_wrong_nodes(tmp_path: Path) -> None:
    """redis-py's client sends scripts anywhere until it has met the nodes, and closes all its sockets over the answers:
    a worker that starts under load lost commits so."""

    async def scenario() -> None:
        with servers.cluster(tmp_path, PASSWORD) as url:
            settings = Settings(deadlines=Deadlines(store_ms=10_000), store=Store(url=url))
            connection = Connection.open(settings, {})
            assert connection is not None
            store = SessionStore(connection, settings)
            guarded = GuardedStore(store, settings)
            places = [session(f"s-{number}") for number in range(64)]
            stored = await asyncio.gather(*(guarded.commit(request("u1", place)) for place in places))
            assert all(stored)
            for place in places:
                assert await path_of(store, place) == ids_of("u1")
            refused = await connection.call(
                lambda client: client.info("errorstats", target_nodes=RedisCluster.ALL_NODES)
            )
            assert not any("errorstat_MOVED" in node for node in refused.values())
            await guarded.close(BACK_SECONDS)
            await connection.close()

    asyncio.run(scenario())


def test_a_failover_under_load(tmp_path: Path) -> None:
    """Eight agents go on while the master is killed. What each asks next, and what waited, makes all of them whole."""

    async def scenario() -> None:
        with servers.sentinel(tmp_path, PASSWORD) as (url, master):
            settings = Settings(deadlines=Deadlines(store_ms=500), store=Store(url=url, breaker_reset_ms=100))
            connection = Connection.open(settings, {})
            assert connection is not None
            store = SessionStore(connection, settings)
            guarded = GuardedStore(store, settings)
            stored = [0] * WRITERS  # turns of each that were acknowledged since the master was killed
            killed, back = asyncio.Event(), asyncio.Event()

            async def agent(number: int) -> str:
                place, path = session(f"s-{number}"), ""
                for turn in count():
                    path = f"{path} u{turn}".strip()
                    asked = request(path, place)
                    acknowledged = await guarded.commit(asked)
                    if back.is_set():
                        return path
                    path += f" a{turn}"
                    await guarded.commit_reply(reply(path, place, token=asked.token))
                    if killed.is_set() and acknowledged is not None:
                        stored[number] += 1
                    await asyncio.sleep(0.01)
                raise AssertionError

            agents = [asyncio.create_task(agent(number)) for number in range(WRITERS)]
            await asyncio.sleep(0.5)  # the load
            master.kill()
            killed.set()
            died = monotonic()
            while min(stored) < 3:
                assert monotonic() - died < BACK_SECONDS, "the store is not written to again"
                await asyncio.sleep(0.02)
            back.set()
            paths = await asyncio.gather(*agents)
            await guarded.close(BACK_SECONDS)
            assert guarded.pending == 0
            assert monotonic() - died < BACK_SECONDS
            for number, path in enumerate(paths):
                assert await path_of(store, session(f"s-{number}")) == ids_of(path)
                assert len(await store.reader.branches(session(f"s-{number}"))) == 1
            await connection.close()

    asyncio.run(scenario())
