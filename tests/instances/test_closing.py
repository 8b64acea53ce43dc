"""What a worker does with the commits that wait, when it is told to stop."""

from __future__ import annotations

import asyncio

import pytest
from redis import exceptions as errors
from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from proxy_plugin.sessions import writer
from proxy_plugin.sessions.tree import Commit, Committed
from proxy_plugin.settings import Settings, Store
from tests.sessions.test_writer import DONE, request, run, scripted, tip_of


def test_a_store_that_is_back_after_long_gets_what_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long outage the next try comes when there is no time left: one is made at once."""
    far_between = AsyncRetrying(retry=retry_if_exception_type(writer._StillDown), wait=wait_fixed(3_600))
    monkeypatch.setattr(writer, "_FLUSH", far_between)

    async def scenario() -> None:
        tried, stored = asyncio.Queue[str](), set[str]()
        away = True

        async def answer(commit: Commit) -> Committed:
            tried.put_nowait(commit.tip)
            if away:
                raise errors.ConnectionError("away")
            stored.add(commit.tip)
            return DONE

        guarded, _ = scripted(answer, Settings(store=Store(breaker_failures=1_000)))
        assert await guarded.commit(request("u0")) is None
        for _ in range(2):  # by the request, and from what waits: the next try is an hour away
            await tried.get()
        assert await guarded.commit(request("u1")) is None
        away = False
        await guarded.close(10)
        assert stored == {tip_of("u0"), tip_of("u1")}
        assert guarded.pending == 0

    run(scenario)
