"""Listening to a session: each message once, in the order it was committed, on any worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from proxy_plugin.sessions import feed
from proxy_plugin.sessions.feed import Deleted, News, Quiet, TooManyListeners
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import StoredNode
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import ids_of, reply, request, session, tip_of

Play = Callable[[Scenario], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.02)


async def listen(worker: SessionStore, after: str | None = None) -> AsyncGenerator[News]:
    news = await worker.feed.listen(session(), after)
    assert news is not None
    return news


async def take(news: AsyncIterator[News], count: int) -> list[str]:
    """The next messages, by their ids."""
    taken: list[str] = []
    async with asyncio.timeout(10):
        while len(taken) < count:
            item = await anext(news)
            assert not isinstance(item, Deleted)
            if isinstance(item, StoredNode):
                assert item.body is not None
                taken.append(item.id)
    return taken


async def is_quiet(news: AsyncIterator[News]) -> bool:
    async with asyncio.timeout(10):
        return isinstance(await anext(news), Quiet)


def test_what_other_workers_commit_comes_once_and_in_order(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, other = world.worker(), world.worker()
        await one.commit(request("u1"))
        news = await listen(other)
        assert await is_quiet(news)  # what was there before is the history's business
        await one.commit(reply("u1 c1"))
        await other.commit(request("u1 c1 t1"))
        await other.commit(request("u1 c1 t1"))  # sent again: nothing new
        assert await take(news, 2) == ids_of("u1 c1 t1")[1:]
        await one.commit(request("u1 c2 t2"))  # another branch is part of the session
        assert await take(news, 2) == ids_of("u1 c2 t2")[1:]
        assert await is_quiet(news)

    play(scenario)


def test_a_listener_goes_on_behind_the_last_message_it_was_given(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, other = world.worker(), world.worker()
        await one.commit(request("u1"))
        await one.commit(reply("u1 a1"))
        await one.commit(request("u1 a1 u2"))
        assert await take(await listen(other, after=tip_of("u1")), 2) == ids_of("u1 a1 u2")[1:]
        assert await is_quiet(await listen(other, after=tip_of("u1 a1 u2")))
        assert await take(await listen(other, after="f" * 32), 3) == ids_of("u1 a1 u2")

    play(scenario)


def test_a_feed_ends_where_the_session_does(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        assert await worker.feed.listen(session()) is None
        await worker.commit(request("u1"))
        news = await listen(worker)
        assert await is_quiet(news)
        await worker.delete(session())
        async with asyncio.timeout(10):
            assert [item async for item in news] == [Deleted()]

    play(scenario)


def test_listeners_are_bounded_and_leave(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        monkeypatch.setattr(feed, "MAX_LISTENERS", 1)
        worker = world.worker()
        await worker.commit(request("u1"))
        news = await listen(worker)
        assert await is_quiet(news)
        with pytest.raises(TooManyListeners):
            await worker.feed.listen(session())
        await news.aclose()
        assert await is_quiet(await listen(worker))

    play(scenario)
