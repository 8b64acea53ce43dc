"""Locks with fences, and the sweep of the indexes that is done under one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from proxy_plugin.sessions import keys, sweep
from proxy_plugin.sessions.locks import StaleFence
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, TENANT, request, session

Play = Callable[[Scenario], None]
DAY_MS = 24 * 3600 * 1000


def test_a_lock_has_one_holder_and_a_fence_that_grows(play: Play) -> None:
    async def scenario(world: World) -> None:
        locks = [world.worker().locks for _ in range(8)]
        taken = await asyncio.gather(*(each.acquire("work", 10) for each in locks))
        (lock,) = [lock for lock in taken if lock is not None]
        await locks[0].release(lock)
        again = await locks[0].acquire("work", 10)
        assert again is not None and again.fence > lock.fence
        await locks[1].release(lock)  # by one who no longer holds it: nothing
        assert await locks[1].acquire("work", 10) is None
        assert await locks[1].acquire("other work", 10) is not None

    play(scenario)


def test_a_lock_that_is_not_renewed_runs_out_and_one_that_is_does_not(play: Play) -> None:
    async def scenario(world: World) -> None:
        locks = world.worker().locks
        lock = await locks.acquire("work", 10)
        assert lock is not None
        await world.redis("PEXPIRE", keys.lock("work"), 500)
        await locks.renew(lock, 10)
        assert await world.redis("PTTL", keys.lock("work")) > 5_000
        await world.redis("DEL", keys.lock("work"))  # it ran out
        assert await world.worker().locks.acquire("work", 10) is not None
        with pytest.raises(StaleFence):
            await locks.renew(lock, 10)

    play(scenario)


def test_while_it_is_held_a_lock_is_renewed_and_given_back_at_the_end(play: Play) -> None:
    async def scenario(world: World) -> None:
        locks = world.worker().locks
        async with locks.held("work", 0.3) as lock:
            assert lock is not None
            await world.redis("PEXPIRE", keys.lock("work"), 150)
            async with asyncio.timeout(5):
                while await world.redis("PTTL", keys.lock("work")) <= 150:
                    await asyncio.sleep(0.01)
            async with locks.held("work", 0.3) as second:
                assert second is None
        assert await world.redis("EXISTS", keys.lock("work")) == 0

    play(scenario)


def test_a_stale_fence_is_refused_by_the_script_and_changes_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, other = world.worker(), world.worker()
        await worker.commit(request("u1"))
        await worker.index.flush()
        late = await worker.locks.acquire("sweep", 10)
        await world.redis("DEL", keys.lock("sweep"))  # it ran out while its holder was busy
        newer = await other.locks.acquire("sweep", 10)
        assert late is not None and newer is not None
        assert await other.sweep.remove(newer, TENANT, [("unknown", 1)]) == 0
        far = 10 * now_ms()
        with pytest.raises(StaleFence):
            await worker.sweep.remove(late, TENANT, [("s-1", far)])
        assert (await worker.index.sessions(TENANT)).total == 1
        assert await other.sweep.remove(newer, TENANT, [("s-1", far)]) == 1

    play(scenario)


def test_the_sweep_removes_what_expired_and_what_was_idle_too_long_and_nothing_else(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, now = world.worker(Settings(store=Store(session_ttl_s=86_400))), now_ms()
        for tenant in (TENANT, OTHER_TENANT):
            for name, age in (("new", 0), ("idle", DAY_MS + 60_000), ("gone", DAY_MS + 60_000), ("late", 0)):
                await worker.commit(request("u1", session(name, tenant), at_ms=now - age))
            await worker.delete(session("gone", tenant))
            await worker.index.flush()
            for name in ("gone", "late"):  # the index missed the deletion, and the last activity
                await world.redis("ZADD", keys.index(tenant), now - 2 * DAY_MS, name)
        assert await worker.sweep.run() == 4
        for tenant in (TENANT, OTHER_TENANT):
            listed = await world.redis("ZRANGE", keys.index(tenant), 0, -1)
            assert set(listed) == {b"new", b"late"}
            assert await worker.reader.session(session("idle", tenant)) is None
            assert await worker.reader.session(session("late", tenant)) is not None
        assert await worker.sweep.run() == 0
        assert await world.redis("EXISTS", keys.lock(sweep.LOCK)) == 0

    play(scenario)


def test_large_indexes_are_swept_in_pieces_by_one_worker_at_a_time(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(4)]
        await world.redis("ZADD", keys.TENANTS, now_ms(), TENANT)
        entries = [part for n in range(1_700) for part in (1_000 + n, f"s-{n}")]
        await world.redis("ZADD", keys.index(TENANT), *entries)
        removed = await asyncio.gather(*(worker.sweep.run() for worker in workers))
        assert sum(removed) == 1_700
        assert await world.redis("ZCARD", keys.index(TENANT)) == 0

    play(scenario)
