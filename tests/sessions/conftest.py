"""A real server for the tests of the store, started from the embedded one's own code."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from proxy_plugin.events import Event
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.connection import Connection, Target
from proxy_plugin.sessions.embedded import Embedded, Endpoint
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def target_of(endpoint: Endpoint) -> Target:
    patient = {"socket_connect_timeout": 60, "socket_timeout": 60, "timeout": 60}  # the machine may be busy
    options = {"host": endpoint.host, "port": endpoint.port, "password": endpoint.password, **patient}
    return Target("single", "test", options=options)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    server = Embedded(tmp_path_factory.mktemp("store"), free_port())
    try:
        yield server.ensure()
    finally:
        server.stop()


class World:
    """What a scenario plays in: an empty server, and workers that each have a store of their own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.events: list[Event] = []
        self._connections: list[Connection] = []
        self._workers: list[SessionStore] = []
        self._own: Connection | None = None

    def connection(self, codec: Codec | None = None) -> Connection:
        self._connections.append(Connection(target_of(self.endpoint), codec=codec))
        return self._connections[-1]

    def worker(self, settings: Settings | None = None, codec: Codec | None = None) -> SessionStore:
        self._workers.append(SessionStore(self.connection(codec), settings or Settings(), self.events.append))
        return self._workers[-1]

    async def redis(self, command: str, *args: Any) -> Any:
        """Runs a command past the store."""
        if self._own is None:
            self._own = self.connection()
        return await self._own.command("execute_command", command, *args)

    async def keys(self) -> list[str]:
        return sorted(key.decode() for key in await self.redis("KEYS", "*"))

    async def close(self) -> None:
        for worker in self._workers:
            await worker.close()
        for connection in self._connections:
            await connection.close()


Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture
def play(endpoint: Endpoint) -> Callable[[Scenario], None]:
    """Runs a scenario against an empty server."""

    def run(scenario: Scenario) -> None:
        async def play() -> None:
            world = World(endpoint)
            try:
                await world.redis("FLUSHALL")
                await scenario(world)
            finally:
                await world.close()

        asyncio.run(play())

    return run
