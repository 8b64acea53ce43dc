"""The promises P6, P8 and P9 as properties: what the pipeline stores in a real server can be had back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_plugin.admin.histories import wire_history
from proxy_plugin.events import ignore
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import address, tenant_of
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Settings, Store
from tests.proxy import free_port
from tests.strategies import broken_chats, prefixes, valid_chats

ALICE, BOB = (tenant_of("key", key_hash=name) for name in ("alice", "bob"))
relaxed = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Worker:
    """A pipeline over the embedded server of a folder."""

    def __init__(self, chosen: Settings) -> None:
        connection = Connection.open(chosen, {})
        assert connection is not None
        self.connection = connection
        self.store = GuardedStore(SessionStore(connection, chosen), chosen)
        self.pipeline = Pipeline(chosen, self.store, ignore)

    async def send(self, wire: list[Any], reply: Any = None, *, session: Any = "s", tenant: str = ALICE) -> str:
        body = {"metadata": {"session_id": session}}
        turn = await self.pipeline.before(Incoming("chat", wire, {}, body, tenant, dialect_of("openai"), "enforce"))
        assert turn is not None
        await self.pipeline.after(turn, reply, complete=True)
        return turn.headers["x-proxy-plugin-session"]

    async def messages(self, session: str, tenant: str = ALICE) -> list[Any] | None:
        history = await self.store.store.reader.history(address(tenant, session))
        return wire_history(history).messages if history is not None else None

    async def close(self) -> None:
        await self.store.close(5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    path: Path = tmp_path_factory.mktemp("stored")
    chosen = Settings(store=Store(embedded_dir=str(path), embedded_port=free_port()))
    keeper = Connection.open(chosen, {})  # holds the server for the length of the module
    assert keeper is not None
    loop = asyncio.new_event_loop()
    loop.run_until_complete(keeper.command("ping"))
    yield chosen
    loop.run_until_complete(keeper.close())
    loop.close()


@pytest.fixture
def play(folder: Settings) -> Callable[[Callable[[Worker], Awaitable[None]]], None]:
    def run(scenario: Callable[[Worker], Awaitable[None]]) -> None:
        async def play() -> None:
            worker = Worker(folder)
            await worker.connection.command("flushall")
            try:
                await scenario(worker)
            finally:
                await worker.close()

        asyncio.run(play())

    return run


@relaxed
@given(wire=st.one_of(valid_chats(), broken_chats()))
def test_p6_the_originals_can_be_read_back_byte_for_byte(wire: list[Any], play: Any) -> None:
    if b"<object>" in _dump(wire):
        return

    async def scenario(worker: Worker) -> None:
        for request in prefixes(wire):
            await worker.send(request)
        if prefixes(wire):
            assert _dump(await worker.messages("s")) == _dump(prefixes(wire)[-1])

    play(scenario)


@relaxed
@given(ids=st.lists(st.text(max_size=30), min_size=2, max_size=4, unique=True))
def test_p8_no_id_reaches_another_tenants_or_sessions_data(ids: list[str], play: Any) -> None:
    async def scenario(worker: Worker) -> None:
        shown: dict[tuple[str, str], str] = {}
        for tenant in (ALICE, BOB):
            for session in ids:
                text = f"{tenant} {session!r}"
                shown[tenant, session] = await worker.send(
                    [{"role": "user", "content": text}], session=session, tenant=tenant
                )
        named = [session for session in ids if session.strip()]
        assert len({shown[ALICE, session] for session in named}) == len(named)
        for (tenant, session), name in shown.items():
            assert await worker.messages(name, tenant) == [{"role": "user", "content": f"{tenant} {session!r}"}]

    play(scenario)


@relaxed
@given(wire=valid_chats(min_rounds=1), cut=st.integers(0, 100))
def test_p9_what_was_acknowledged_is_there_for_another_worker(
    wire: list[Any], cut: int, play: Any, folder: Settings
) -> None:
    """The worker that stored it is gone without a word; each request is there whole or not at all."""

    async def scenario(worker: Worker) -> None:
        requests = prefixes(wire)
        sent = requests[: 1 + cut % len(requests)]
        for request in sent:
            await worker.send(request)
        other = Worker(folder)
        assert _dump(await other.messages("s")) == _dump(sent[-1])
        await other.send(sent[-1])  # sent again by a client that saw no answer: nothing is added
        assert _dump(await other.messages("s")) == _dump(sent[-1])
        await other.close()

    play(scenario)


def _dump(wire: Any) -> bytes:
    return orjson.dumps(wire, default=lambda other: "<object>")


def test_a_request_with_store_false_is_not_stored_if_that_counts(play: Any, folder: Settings) -> None:
    async def scenario(worker: Worker) -> None:
        careful = Worker(replace(folder, store=replace(folder.store, honour_store_false=True)))
        body = {"metadata": {"session_id": "private"}, "store": False}
        wire = [{"role": "user", "content": "between us"}]
        for one, stored in ((careful, False), (worker, True)):
            turn = await one.pipeline.before(
                Incoming("responses", wire, {}, body, ALICE, dialect_of("openai"), "enforce")
            )
            assert turn is not None
            reply = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
            await one.pipeline.after(turn, [reply], complete=True)
            assert (await worker.messages("private") is not None) is stored
        await careful.close()

    play(scenario)
