"""The plugin in one process with a real store: LiteLLM's hooks, the HTTP API, and a way past both into Redis."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request

from proxy_plugin.admin.api import routes
from proxy_plugin.admin.http import Caller, Context
from proxy_plugin.events import Event, PassedThrough
from proxy_plugin.gateway.hooks import SessionPlugin, caller_of
from proxy_plugin.gateway.pipeline import Pipeline
from proxy_plugin.metrics import Metrics
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.embedded import Embedded, Endpoint
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Settings, Store
from tests.proxy import free_port
from tests.sessions.conftest import target_of

PREFIX = "/api/v1"
SETTINGS = Settings(deadlines=Deadlines(store_ms=5_000, total_ms=20_000), store=Store(breaker_failures=10**6))
"""No clock decides anything here: what a test sees is what the store said."""
KEY = SimpleNamespace(token="alice", api_key="alice", user_id=None, team_id=None, org_id=None, key_alias=None)
_calls = itertools.count()
_DEEP = 12  # levels of a reply of which objects are made


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Endpoint]:
    embedded = Embedded(folder, free_port())
    try:
        yield embedded.ensure()
    finally:
        embedded.stop()


class Worker:
    """One worker: its hooks, its routes, its events."""

    def __init__(self, endpoint: Endpoint, settings: Settings = SETTINGS) -> None:
        self.events: list[Event] = []
        self.connection = Connection(target_of(endpoint))
        self.sessions = SessionStore(self.connection, settings, self.events.append)
        self.guarded = GuardedStore(self.sessions, settings, self.events.append)
        self.plugin = SessionPlugin(settings, Pipeline(settings, self.guarded, self.events.append), self.events.append)
        self.caller = caller_of(settings, KEY)

        async def authenticate(request: Request) -> Caller:
            return Caller(self.caller.tenant, admin="admin" in request.headers)

        app = Starlette(routes=[*routes(PREFIX, Context(self.guarded, Metrics(), authenticate))])
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        self.http = httpx.AsyncClient(transport=transport, base_url=f"http://plugin{PREFIX}", timeout=60)

    async def pre(self, data: Any, call_type: str = "acompletion") -> dict[str, str] | None:
        """What the hook in front of the call does to `data`; the response headers, None where it passed as it came."""
        data.setdefault("litellm_call_id", f"call-{next(_calls)}")
        data.setdefault("litellm_logging_obj", _Logging())
        await self.plugin.async_pre_call_hook(KEY, None, data, call_type)
        return await self.plugin.async_post_call_response_headers_hook(data, KEY, None)

    async def post(self, data: Any, response: Any) -> None:
        await self.plugin.async_post_call_success_hook(data, KEY, response)

    async def settled(self, of: Address) -> None:
        """Until nothing is held back of a session."""
        await self.guarded.settle(of)
        await self.sessions.requests.settled()

    @property
    def faults(self) -> int:
        """Exceptions that the boundary caught: each is a defect."""
        return sum(isinstance(event, PassedThrough) and event.reason == "internal_error" for event in self.events)

    async def close(self) -> None:
        await self.http.aclose()
        await self.guarded.close(5)
        await self.connection.close()


class _Logging:
    """LiteLLM's logging object, of which the hooks use only that it is the same for one call."""


class Thing(BaseModel):
    """An object as LiteLLM's replies are: attributes, unknown ones too, and a dump."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def of(cls, value: Any, depth: int = 0) -> Any:
        """With objects for all dicts."""
        if isinstance(value, list):
            return [cls.of(inner, depth + 1) for inner in value] if depth < _DEEP else value
        if not isinstance(value, dict) or depth >= _DEEP or not all(map(_is_name, value)):
            return value
        return cls(**{key: cls.of(inner, depth + 1) for key, inner in value.items()})


def _is_name(key: Any) -> bool:
    """Whether pydantic takes it for an attribute."""
    return isinstance(key, str) and key.isprintable()


@contextlib.asynccontextmanager
async def worker(endpoint: Endpoint, settings: Settings = SETTINGS) -> AsyncIterator[Worker]:
    one = Worker(endpoint, settings)
    try:
        yield one
    finally:
        await one.close()
