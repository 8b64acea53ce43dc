"""A proxy of several workers, and connections to the one or the other of them.

    with Fleet(folder, models, server="gunicorn") as fleet:
        one, other = fleet.workers()
        fleet.connection(one).get(...)

A kernel gives a connection to whichever worker takes it first, so connections are opened until one has reached
the worker that is wanted; each is asked again before it is used.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.proxy import Proxy

SERVERS: Mapping[str, tuple[str, ...]] = {
    "uvicorn": ("--timeout_worker_healthcheck", "60"),
    "gunicorn": ("--run_gunicorn",),
    "granian": ("--run_granian",),
}
"""Servers that LiteLLM runs on -> what its command line needs for them, beside the number of workers."""

FIND_SECONDS = 60.0
"""For a worker to start and to take a connection."""

_CALLBACK = "worker_of_test"
_ROUTE = """
import os

from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.proxy_server import app
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def worker(request):
    return PlainTextResponse(str(os.getpid()))


app.router.routes.insert(0, Route("/worker", worker))
handler = CustomLogger()
"""


class Fleet(Proxy):
    """A Proxy of `count` workers; a worker is named by its process id. Further options are the Proxy's."""

    def __init__(
        self, folder: Path, models: Mapping[str, Any], *, server: str = "uvicorn", count: int = 2, **options: Any
    ) -> None:
        (folder / f"{_CALLBACK}.py").write_text(_ROUTE)
        arguments = (*SERVERS[server], "--num_workers", str(count))
        settings = {"callbacks": [f"{_CALLBACK}.handler"]}
        super().__init__(folder, models, arguments=arguments, litellm_settings=settings, **options)
        self.count = count
        self._connections: dict[int, httpx.Client] = {}

    def workers(self) -> list[int]:
        """All that live, once they are as many as they should be."""
        deadline = time.monotonic() + FIND_SECONDS
        for worker in list(self._connections):
            self._reaches(worker)
        while len(self._connections) < self.count:
            assert time.monotonic() < deadline, f"only {len(self._connections)} workers answer:\n{self.log()[-3000:]}"
            self._connect()
        return sorted(self._connections)

    def connection(self, worker: int) -> httpx.Client:
        """Its next request goes to this worker. It takes one request at a time."""
        deadline = time.monotonic() + FIND_SECONDS
        while not self._reaches(worker):
            assert time.monotonic() < deadline, f"{worker} takes no connection"
            self._connect()
        return self._connections[worker]

    def lend(self, worker: int) -> httpx.Client:
        """The same, for a stream beside which other requests are sent to that worker. The caller closes it."""
        connection = self.connection(worker)
        del self._connections[worker]
        return connection

    def stop(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        super().stop()

    def _reaches(self, worker: int) -> bool:
        connection = self._connections.get(worker)
        if connection is None:
            return False
        with suppress(httpx.HTTPError):
            if int(connection.get(self.root + "/worker").text) == worker:
                return True
        self._connections.pop(worker).close()
        return False

    def _connect(self) -> None:
        connection = httpx.Client(limits=httpx.Limits(max_connections=1, max_keepalive_connections=1), timeout=30)
        try:
            worker = int(connection.get(self.root + "/worker").text)
        except (httpx.HTTPError, ValueError):
            connection.close()
            time.sleep(0.05)
            return
        if worker in self._connections:
            connection.close()
        else:
            self._connections[worker] = connection
