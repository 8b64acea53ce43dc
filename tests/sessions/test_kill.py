"""kill -9 of a worker, and of the server, while they write: what was acknowledged is there, requests whole or not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_bytes
from time import monotonic

import pytest
from redis import exceptions as errors

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.embedded import Embedded
from proxy_plugin.sessions.reader import CHUNK_BYTES
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.settings import Settings
from tests.sessions.conftest import free_port, target_of
from tests.sessions.paths import ids_of, request, session
from tests.sessions.servers import client, wait_until

KILLS = 3
DURABLE_SECONDS = 1.0
"""After which the embedded server has written to disk what it acknowledged: appendfsync everysec."""


def turn(number: int) -> str:
    """What a request adds."""
    return f"u{number} c{number} t{number} a{number} u{number}+"


def path_until(number: int) -> str:
    """The path of the request of that number."""
    return " ".join(map(turn, range(number + 1)))


async def commit(store: SessionStore, number: int, name: str = "s-1") -> None:
    path = path_until(number)
    bodies = [b'{"text":"%s"}' % word.encode() for word in path.split()]
    if number % 4 == 3:  # so large that its bodies go ahead in pieces
        bodies[-1] = b'["%s"]' % b64encode(token_bytes(CHUNK_BYTES))
    await store.commit(request(path, session(name), bodies=bodies))


@asynccontextmanager
async def opened(server: Embedded) -> AsyncIterator[SessionStore]:
    connection = Connection(target_of(server.ensure()))
    store = SessionStore(connection, Settings())
    try:
        yield store
    finally:
        await connection.close()


async def requests_in(server: Embedded, name: str = "s-1") -> int:
    """How many requests of the session are stored. Fails where one of them is not whole."""
    async with opened(server) as store:
        tree, damaged = await store.reader.tree(session(name))
        assert not damaged
        history = await store.reader.history(session(name))
        if history is None:
            assert not tree
            return 0
        assert not history.missing and all(node.body is not None for node in history.nodes)
        there = [node.id for node in history.nodes]
        stored, rest = divmod(len(there), len(turn(0).split()))
        assert rest == 0 and there == ids_of(path_until(stored - 1))
        assert {node.id for node in tree} == set(there) and len(tree) == len(there)
        connection = Connection(target_of(server.ensure()))
        log = await connection.command("lrange", keys.of_session(session(name)).log, 0, -1)
        await connection.close()
        assert [node.decode() for node in log] == there
        return stored


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Embedded]:
    server = Embedded(tmp_path, free_port())
    server.ensure()
    yield server
    server.stop()


def work(folder: str, port: str, begin: str) -> None:
    """The worker that is killed: commits one request after the other, and says the number of each that is stored."""

    async def forever() -> None:
        number = int(begin)
        async with opened(Embedded(Path(folder), int(port))) as store:
            while True:
                await commit(store, number)
                print(number, flush=True)
                number += 1

    asyncio.run(forever())


def test_a_worker_that_is_killed(server: Embedded, tmp_path: Path) -> None:
    done = 0
    for _ in range(KILLS):
        command = [
            sys.executable,
            "-m",
            "tests.sessions.test_kill",
            str(tmp_path),
            str(server.ensure().port),
            str(done),
        ]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        try:
            said = [int(worker.stdout.readline()) for _ in range(20)]
        finally:
            worker.kill()
        said += map(int, worker.stdout.read().split())  # what it had said already
        worker.wait()
        stored = asyncio.run(requests_in(server))
        assert stored >= len(said) + done and said[-1] == done + len(said) - 1
        assert stored <= len(said) + done + 1  # the one that nobody was told of
        done = stored


def test_a_server_that_is_killed(server: Embedded) -> None:
    """Eight writers; the server is started again from what is on disk, and the next requests bring back the rest."""
    writers = [f"s-{number}" for number in range(8)]
    acknowledged: dict[str, list[float]] = {name: [] for name in writers}

    async def writes(store: SessionStore, name: str) -> None:
        while True:
            try:
                await commit(store, len(acknowledged[name]), name)
            except (errors.ConnectionError, OSError):
                return
            acknowledged[name].append(monotonic())
            await asyncio.sleep(0.02)

    async def load() -> float:
        async with opened(server) as store:
            begun = monotonic()
            writing = [asyncio.create_task(writes(store, name)) for name in writers]
            while min(map(len, acknowledged.values())) < 8 or monotonic() - begun < 2 * DURABLE_SECONDS:
                await asyncio.sleep(0.02)
            killed = monotonic()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.gather(*writing)
            return killed

    async def look(killed: float) -> None:
        for name in writers:
            stored = await requests_in(server, name)
            assert stored >= sum(at < killed - DURABLE_SECONDS for at in acknowledged[name]) > 0
            assert stored <= len(acknowledged[name]) + 1
        async with opened(server) as store:
            for name in writers:
                await commit(store, len(acknowledged[name]), name)
        for name in writers:
            assert await requests_in(server, name) == len(acknowledged[name]) + 1

    killed = asyncio.run(load())
    wait_until(lambda: server.pid is None)
    again = server.ensure()
    client(again.port, again.password)  # it has read its file
    asyncio.run(look(killed))


if __name__ == "__main__":
    work(*sys.argv[1:])
