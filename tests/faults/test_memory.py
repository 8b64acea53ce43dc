"""What a worker holds while the store is away: bounded by `store.backlog_bytes`, in real memory, whatever the
histories look like."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis import exceptions as errors

from proxy_plugin.gateway.commits import request_commit
from proxy_plugin.history.rewrite import read
from proxy_plugin.sessions import identity
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import Commit, Committed
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Settings, Store

LIMIT_BYTES = 500_000
SENT_BYTES = 4 * LIMIT_BYTES
MOST_BYTES = 3 * LIMIT_BYTES
"""Late commits and kept ones have the limit each; the rest is room for what an allocator wastes."""

Wire = list[dict[str, Any]]


def long_texts(name: str) -> Wire:
    return [{"role": "user", "content": f"{name} " + "x" * 20_000}]


def short_turns(name: str) -> Wire:
    turn = ({"role": "user", "content": "And?"}, {"role": "assistant", "content": "Yes."})
    return [{"role": "user", "content": name}, *(dict(message) for _ in range(20) for message in turn)]


def tool_rounds(name: str) -> Wire:
    wire: Wire = [{"role": "user", "content": name}]
    for n in range(20):
        call = {"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        wire.append({"role": "assistant", "content": None, "tool_calls": [call]})
        wire.append({"role": "tool", "tool_call_id": f"call_{n}", "content": "done"})
    return wire


async def dead(commit: Commit) -> Committed:
    raise errors.ConnectionError("refused")


async def frozen(commit: Commit) -> Committed:
    await asyncio.Event().wait()
    raise AssertionError("never")


@pytest.mark.parametrize("away", [dead, frozen], ids=["dead", "frozen"])
@pytest.mark.parametrize("shape", [long_texts, short_turns, tool_rounds], ids=lambda shape: shape.__name__)
def test_memory_is_bounded_while_the_store_is_away(
    shape: Callable[[str], Wire],
    away: Callable[[Commit], Awaitable[Committed]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Store(url="redis://127.0.0.1:1", backlog_bytes=LIMIT_BYTES)
    settings = Settings(deadlines=Deadlines(store_ms=1), store=place)

    async def held_bytes() -> int:
        connection = Connection.open(settings, {})
        assert connection is not None
        store = SessionStore(connection, settings)
        monkeypatch.setattr(store, "commit", away)
        guarded = GuardedStore(store, settings)
        sent = number = 0
        before, _ = tracemalloc.get_traced_memory()
        while sent < SENT_BYTES:
            number += 1
            path = read(shape(f"conversation {number}"), "chat")
            assert path is not None
            commit = request_commit(path, identity.address("tenant", f"s-{number}"), {}, {})
            sent += commit.size_bytes
            assert await guarded.commit(commit) is None
            guarded.landed(commit)
        del path, commit
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        assert guarded.pending > 5  # bounded, and yet something is kept
        await guarded.close(0.01)
        return after - before

    tracemalloc.start()
    try:
        held = asyncio.run(held_bytes())
    finally:
        tracemalloc.stop()
    assert held < MOST_BYTES
