"""Workers that are lost while calls to the model are under way, and workers that stop in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy_plugin.events import SubtaskRecovered
from proxy_plugin.sessions import flights, keys
from proxy_plugin.sessions.recovery import SessionState
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import Commit, Subtask
from proxy_plugin.settings import Recovery, Settings
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, TENANT, reply, request, session

Play = Callable[[Scenario], None]
QUICK = Settings(recovery=Recovery(lease_s=1))


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (value := await check()):
            await asyncio.sleep(0.02)
    return value


async def at_work(world: World) -> SessionStore:
    """A worker that holds a lease; it looks after it when it is told to."""
    worker = world.worker(QUICK)
    await worker.recovery.look()
    return worker


async def ask(worker: SessionStore, path: str, name: str = "s-1", **said: Any) -> Commit:
    """A request whose call is under way from now on."""
    commit = request(path, said.pop("address", session(name)), **said)
    worker.flights.took_off(commit)
    await worker.commit(commit)
    return commit


async def answer(worker: SessionStore, asked: Commit, path: str, **said: Any) -> None:
    worker.flights.landed(asked)
    await worker.commit(reply(path, asked.address, token=asked.token, **said))


async def lose(world: World, worker: SessionStore) -> None:
    """The worker is gone without a word, and its lease ran out."""
    await eventually(lambda: world.redis("EXISTS", keys.calls_of(worker.flights.worker)))
    await worker.index.flush()
    await run_out(world, worker.flights.worker)


async def run_out(world: World, worker: str) -> None:
    await world.redis("ZADD", keys.WORKERS, "XX", 1, worker)


async def look(worker: SessionStore) -> None:
    await worker.recovery.look()
    await worker.recovery.settled()


async def subtask(worker: SessionStore, name: str = "s-1") -> Subtask:
    (found,) = await worker.reader.subtasks(session(name))
    return found


async def marks(world: World, name: str = "s-1") -> int:
    return int(await world.redis("HLEN", keys.of_session(session(name)).flights))


async def stops(worker: SessionStore) -> int:
    return (await worker.recovery.report(TENANT, limit=1)).starts_and_stops.get("unclean_stops", 0)


async def states(worker: SessionStore, tenant: str | None = TENANT) -> dict[str, SessionState]:
    return {s.info.session_id: s for s in (await worker.recovery.report(tenant, limit=100)).sessions}


def test_a_call_is_noted_by_its_request_and_taken_off_by_its_reply_in_the_same_round_trips(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await at_work(world)
        asked = await ask(worker, "u1")
        assert await marks(world) == 1
        worker.flights.landed(asked)
        done = await worker.commit(reply("u1 c1", token=asked.token))
        assert (await marks(world), done.round_trips) == (0, 1)

    play(scenario)


def test_a_call_whose_reply_the_next_request_brings_is_taken_off_by_that(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await at_work(world)
        asked = await ask(worker, "u1")
        worker.flights.landed(asked)  # its reply waits for the next request
        await ask(worker, "u1 c1 t1")
        assert await marks(world) == 1

    play(scenario)


def test_a_call_that_failed_is_taken_off_behind_the_callers_back(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "LAND_SECONDS", 0.0)

    async def scenario(world: World) -> None:
        worker = await at_work(world)
        worker.flights.landed(await ask(worker, "u1"))
        await eventually(lambda: none_noted(world))

    async def none_noted(world: World) -> bool:
        return await marks(world) == 0

    play(scenario)


def test_a_call_that_is_over_before_its_request_is_stored_leaves_no_mark(play: Play) -> None:
    """The store was slow: the request arrives there after its reply."""

    async def scenario(world: World) -> None:
        worker = await at_work(world)
        asked = request("u1")
        worker.flights.took_off(asked)
        worker.flights.landed(asked)
        await worker.commit(reply("u1 a1", token=asked.token))
        await worker.commit(asked)
        assert await marks(world) == 0

    play(scenario)


def test_without_a_lease_nothing_is_noted(play: Play) -> None:
    async def scenario(world: World) -> None:
        await ask(world.worker(), "u1")
        assert await marks(world) == 0

    play(scenario)


def test_a_lost_worker_leaves_its_subtask_pending_and_the_next_request_takes_it_up_again(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, other = await at_work(world), await at_work(world)
        await ask(lost, "u1")
        await lose(world, lost)
        await look(other)
        found = await subtask(other)
        assert (found.state, found.attempts) == ("pending", 1)
        assert found.error_message
        assert await marks(world) == 0
        assert world.events.count(SubtaskRecovered()) == 1

        again = await ask(other, "u1")
        found = await subtask(other)
        assert (found.state, found.attempts) == ("in_progress", 2)
        await answer(other, again, "u1 a1")
        found = await subtask(other)
        assert (found.state, found.attempts) == ("completed", 2)

    play(scenario)


def test_an_unclean_stop_is_found_once_by_however_many_look(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, *others = [await at_work(world) for _ in range(6)]
        for number in range(40):
            await ask(lost, "u1", f"s-{number}")
        await lose(world, lost)
        await asyncio.gather(*map(look, others))
        assert world.events.count(SubtaskRecovered()) == 40
        assert await stops(others[0]) == 1
        assert {(await subtask(others[0], f"s-{number}")).state for number in range(40)} == {"pending"}
        assert await world.redis("EXISTS", keys.calls_of(lost.flights.worker)) == 0
        assert await world.redis("ZCARD", keys.WORKERS) == 5

    play(scenario)


def test_a_worker_that_is_lost_while_it_recovers_another_one_is_followed_by_a_third(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, second, third = [await at_work(world) for _ in range(3)]
        await ask(lost, "u1")
        await lose(world, lost)
        await second._connection.run(  # claims the lease, and is gone before it does anything about it
            "lease", [keys.WORKERS, keys.RECOVERY], [second.flights.worker, "held", 1_000, 1, 10_000]
        )
        await look(third)
        assert (await subtask(third)).state == "in_progress"
        await run_out(world, lost.flights.worker + " lost")
        await look(third)
        assert (await subtask(third)).state == "pending"
        assert await stops(third) == 1

    play(scenario)


def test_the_third_lost_attempt_is_the_last(play: Play) -> None:
    async def scenario(world: World) -> None:
        for attempt in (1, 2, 3):
            lost = await at_work(world)
            await ask(lost, "u1", subtask_id="mine")
            await lose(world, lost)
            await look(await at_work(world))
            found = await subtask(lost)
            assert (found.state, found.attempts) == ("failed" if attempt == 3 else "pending", attempt)
        assert world.events.count(SubtaskRecovered()) == 2
        await ask(await at_work(world), "u1", subtask_id="mine")  # passes; the ledger stays
        assert (await subtask(lost)).state == "failed"

    play(scenario)


def test_a_subtask_that_went_on_before_its_worker_was_found_lost_stays_in_progress(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, other = await at_work(world), await at_work(world)
        await ask(lost, "u1")
        again = await ask(other, "u1")
        await lose(world, lost)
        await look(other)
        found = await subtask(other)
        assert (found.state, found.attempts) == ("in_progress", 2)
        await answer(other, again, "u1 a1")
        assert (await subtask(other)).state == "completed"

    play(scenario)


def test_a_subtask_that_was_completed_meanwhile_stays_so(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, other = await at_work(world), await at_work(world)
        await ask(lost, "u1")
        await answer(other, await ask(other, "u1"), "u1 a1")
        await lose(world, lost)
        await look(other)
        assert (await subtask(other)).state == "completed"
        assert world.events.count(SubtaskRecovered()) == 0

    play(scenario)


def test_only_subtasks_with_a_call_under_way_are_interrupted(play: Play) -> None:
    """One session, three subtasks: one waits for its tools, one for the model, one is on another worker."""

    async def scenario(world: World) -> None:
        lost, other = await at_work(world), await at_work(world)
        await answer(lost, await ask(lost, "u1", subtask_id="tools"), "u1 c1", subtask_id="tools")
        await ask(lost, "u2", subtask_id="model")
        await ask(other, "u3", subtask_id="elsewhere")
        await lose(world, lost)
        await look(other)
        found = {s.id: (s.state, s.attempts) for s in await other.reader.subtasks(session())}
        assert found == {"tools": ("in_progress", 1), "model": ("pending", 1), "elsewhere": ("in_progress", 1)}

    play(scenario)


def test_a_clean_stop_gives_the_lease_back_and_is_none_of_the_unclean_ones(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, other = await at_work(world), await at_work(world)
        await answer(first, await ask(first, "u1"), "u1 a1")
        await ask(first, "u2", "s-2")  # cut off by the stop
        await eventually(lambda: world.redis("EXISTS", keys.calls_of(first.flights.worker)))
        await first.close()
        assert await world.redis("ZCARD", keys.WORKERS) == 1
        report = await other.recovery.report(TENANT, limit=10)
        assert report.starts_and_stops["last_clean_stop"] >= report.starts_and_stops["last_start"]
        assert report.starts_and_stops.get("unclean_stops", 0) == 0
        assert (await subtask(other, "s-2")).state == "pending"
        assert (await subtask(other, "s-1")).state == "completed"

    play(scenario)


def test_a_worker_that_was_taken_for_lost_goes_on_under_another_id(play: Play) -> None:
    async def scenario(world: World) -> None:
        slow, other = await at_work(world), await at_work(world)
        before = slow.flights.worker
        await run_out(world, before)
        await look(other)
        await look(slow)
        assert slow.flights.worker not in ("", before)
        await ask(slow, "u1")
        await lose(world, slow)
        await look(other)
        assert (await subtask(other)).state == "pending"

    play(scenario)


def test_who_was_away_itself_judges_nobody(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store was down for all of them: no lease was renewed, and no worker is lost."""

    async def scenario(world: World) -> None:
        one, other = await at_work(world), await at_work(world)
        monkeypatch.setattr(one.recovery._workers, "_renewed", -10.0)
        await run_out(world, other.flights.worker)
        await look(one)
        await look(other)
        assert await stops(one) == 0

    play(scenario)


def test_the_watch_renews_the_lease_and_finds_lost_workers_by_itself(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, other = await at_work(world), world.worker(QUICK)
        await ask(lost, "u1")
        other.recovery.start()

        async def pending() -> bool:
            return (await subtask(other)).state == "pending"

        await eventually(pending)  # a second later: nobody renews the lost one's lease
        assert await world.redis("ZSCORE", keys.WORKERS, other.flights.worker)

    play(scenario)


def test_the_report_names_what_was_interrupted_and_what_is_not_done_to_its_tenant(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, other = await at_work(world), await at_work(world)
        await ask(lost, "u1", "cut", subtask_id="mine")
        await answer(lost, await ask(lost, "u1", "tools"), "u1 c1")
        await answer(lost, await ask(lost, "u1", "done"), "u1 a1")
        await ask(lost, "u1", address=session("foreign", OTHER_TENANT))
        await lose(world, lost)
        await look(other)

        found = await states(other)
        assert set(found) == {"cut", "tools"}
        cut, tools = found["cut"], found["tools"]
        assert cut.interruption is not None and (cut.interruption.calls, cut.interruption.subtask) == (1, "mine")
        assert cut.foremost is not None and (cut.foremost.id, cut.foremost.state) == ("mine", "pending")
        assert (cut.info.requests, tools.interruption, tools.counts["in_progress"]) == (1, None, 1)
        assert set(await states(other, OTHER_TENANT)) == {"foreign"}
        assert set(await states(other, None)) == {"cut", "tools", "foreign"}
        report = await other.recovery.report(TENANT, limit=10)
        assert dict(report.totals) == {"pending": 1, "in_progress": 1, "completed": 1}

    play(scenario)


def test_a_deleted_session_is_not_brought_back_by_recovery(play: Play) -> None:
    async def scenario(world: World) -> None:
        lost, other = await at_work(world), await at_work(world)
        await ask(lost, "u1")
        await other.delete(session())
        await lose(world, lost)
        await look(other)
        assert await other.reader.session(session()) is None
        assert await states(other) == {}
        assert [key for key in await world.keys() if key.startswith(keys.of_session(session()).meta[:30])] == [
            keys.of_session(session()).tomb
        ]

    play(scenario)
