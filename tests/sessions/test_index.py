"""Which sessions there are: filters, pages, tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy_plugin.sessions import index, keys
from proxy_plugin.sessions.reader import now_ms
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, TENANT, request, session

Play = Callable[[Scenario], None]


def test_filters_by_agent_time_and_tenant(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, now = world.worker(), now_ms()
        for number in range(6):
            agent = "even" if number % 2 == 0 else "odd"
            await worker.commit(request("u1", session(f"s-{number}"), agent=agent, at_ms=now + number))
        await worker.commit(request("u1", session("theirs", OTHER_TENANT), agent="even", at_ms=now + 9))

        async def listed(tenant: str | None = TENANT, **filters: object) -> tuple[list[str], int | None]:
            page = await worker.index.sessions(tenant, **filters)  # type: ignore[arg-type]
            return [info.session_id for info in page.sessions], page.total

        assert await listed(agent="even") == (["s-4", "s-2", "s-0"], 3)
        assert await listed(agent="none") == ([], 0)
        assert await listed(active_since_ms=now + 4) == (["s-5", "s-4"], 2)
        assert await listed(active_since_ms=now + 2, agent="odd") == (["s-5", "s-3"], 2)
        assert await listed(None, agent="even") == (["theirs", "s-4", "s-2", "s-0"], 4)
        assert await listed(OTHER_TENANT) == (["theirs"], 1)
        await worker.commit(request("u1 a1 u2", session("s-0"), agent="odd", at_ms=now + 20))
        assert await listed(agent="even") == (["s-4", "s-2"], 2)
        assert [await worker.index.active(now + since) for since in (0, 5, 9, 30)] == [7, 3, 2, 0]

    play(scenario)


@pytest.mark.parametrize("agent", [None, "even"])
def test_pages_hold_every_session_once(play: Play, monkeypatch: pytest.MonkeyPatch, agent: str | None) -> None:
    monkeypatch.setattr(index, "MAX_SCANNED", 5)
    monkeypatch.setattr(index, "MAX_PAGE", 4)

    async def scenario(world: World) -> None:
        worker, now = world.worker(), now_ms()
        for number in range(23):
            name, who = f"s-{number}", "even" if number % 2 == 0 else "odd"
            await worker.commit(request("u1", session(name), agent=who, at_ms=now + number // 3))
        found, cursor = [], None
        for _ in range(40):
            page = await worker.index.sessions(TENANT, limit=2, cursor=cursor, agent=agent)
            found += [info.session_id for info in page.sessions]
            assert page.total == (23 if agent is None else None)
            cursor = page.cursor
            if cursor is None:
                break
        assert cursor is None
        wanted = [f"s-{number}" for number in range(23) if agent is None or number % 2 == 0]
        assert sorted(found) == sorted(wanted)

    play(scenario)


def test_a_tenant_is_forgotten(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        assert await worker.index.tenants() == [TENANT]
        await worker.index.forget(TENANT)
        assert await worker.index.tenants() == []
        assert await world.redis("EXISTS", keys.index(TENANT), keys.aliases(TENANT), keys.TENANTS) == 0

    play(scenario)


def test_a_worker_that_ends_while_it_writes_the_indexes_leaves_none_out(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "INDEX_SECONDS", 0)

    async def scenario(world: World) -> None:
        worker = world.worker()
        write, under_way = worker.index._write_touched, asyncio.Event()

        async def held_up(touched: Any) -> None:
            under_way.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(worker.index, "_write_touched", held_up)
        await worker.commit(request("u1", session("s-1")))
        await under_way.wait()
        monkeypatch.setattr(worker.index, "_write_touched", write)
        await worker.close()
        assert [info.session_id for info in (await world.worker().index.sessions(TENANT)).sessions] == ["s-1"]

    play(scenario)
