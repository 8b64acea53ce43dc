"""The life of subtasks in the store: begun, ended once, tried again, rolled back; also under races."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from proxy_plugin.events import SnapshotCreated, SnapshotRestored, SubtaskChanged
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.subtasks import Place, Plan, Refusal, Standing
from proxy_plugin.sessions.tree import Subtask
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, ids_of, reply, request, session, tip_of

Play = Callable[[Scenario], None]


async def begin(worker: SessionStore, subtask_id: str, *needs: str, **said: Any) -> Subtask:
    begun = await worker.subtasks.begin(session(), Plan(subtask_id, depends_on=needs, **said))
    assert not isinstance(begun, Refusal), begun
    return begun[0]


async def refused(worker: SessionStore, subtask_id: str, *needs: str) -> str:
    begun = await worker.subtasks.begin(session(), Plan(subtask_id, depends_on=needs))
    assert isinstance(begun, Refusal) and not begun.unknown
    return begun.reason


async def standing(worker: SessionStore, subtask_id: str, path: str, *needs: str, begins: int = 0) -> Standing:
    plan = Plan(subtask_id, depends_on=needs)
    return await worker.subtasks.standing(session(), plan, Place(ids_of(path), begins))


async def state(worker: SessionStore, subtask_id: str) -> str:
    found = await worker.subtasks.find(session(), subtask_id)
    assert found is not None
    return found.state


def test_a_subtask_that_is_begun_by_hand_stands_on_the_end_of_the_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1", size_bytes=200))
        await worker.commit(reply("u1 a1"))
        world.events.clear()
        begun = await begin(worker, "s", description="do it", agent="coder", metadata={"step": [1, "ü"]})
        assert (begun.state, begun.base, begun.first, begun.explicit) == ("in_progress", tip_of("u1 a1"), "", True)
        assert (begun.attempts, begun.description, begun.agent) == (1, "do it", "coder")
        assert begun.metadata == {"step": [1, "ü"]}
        snapshot = await worker.reader.snapshot(session(), begun.snapshot_id)
        assert snapshot is not None and snapshot.auto
        assert (snapshot.node, snapshot.message_count, snapshot.name) == (tip_of("u1 a1"), 2, "s")
        info = await worker.reader.session(session())
        assert info is not None and snapshot.size_bytes == info.size_bytes > 0
        assert world.events == [SnapshotCreated(snapshot.size_bytes), SubtaskChanged("in_progress")]

        again = await worker.subtasks.begin(session(), Plan("s", description="another"))
        assert again == (begun, False)
        await worker.commit(request("u1 a1 u2", subtask_id="s"))
        await worker.commit(reply("u1 a1 u2 a2", subtask_id="s"))
        done = await worker.subtasks.find(session(), "s")
        assert done is not None and (done.state, done.result) == ("completed", tip_of("u1 a1 u2 a2"))
        seconds = (done.ended_ms or 0) - done.started_ms
        assert world.events[2:] == [SnapshotRestored(), SubtaskChanged("completed", seconds / 1000)]

    play(scenario)


def test_one_that_failed_begins_again_and_the_third_failure_is_the_last(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        for attempt in (1, 2, 3):
            assert (await begin(worker, "s")).attempts == attempt
            failed = await worker.subtasks.fail(session(), "s", f"broken {attempt}")
            assert isinstance(failed, Subtask)
            assert (failed.state, failed.attempts, failed.error_message) == ("failed", attempt, f"broken {attempt}")
            assert failed.ended_ms is not None and failed.over == (attempt == 3)
        assert "3 times" in await refused(worker, "s")
        done = await worker.commit(request("u1 a1 u2", subtask_id="s"))
        assert done.refused and not done.snapshot_created
        await worker.commit(reply("u1 a1 u2 a2", subtask_id="s"))
        assert await worker.subtasks.find(session(), "s") == failed
        assert len(await worker.reader.snapshots(session())) == 1

    play(scenario)


def test_a_request_is_the_next_attempt_at_one_that_failed(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2", subtask_id="s"))
        await worker.subtasks.fail(session(), "s", None)
        now = now_ms() + 5
        again = request("u1 a1 u2", subtask_id="s", at_ms=now)
        for _ in range(2):  # a commit may run twice
            await worker.commit(again)
            running = await worker.subtasks.find(session(), "s")
            assert running is not None
            assert (running.state, running.attempts, running.started_ms) == ("in_progress", 2, now)
            assert (running.error_message, running.ended_ms) == (None, None)
        await worker.commit(reply("u1 a1 u2 a2", subtask_id="s"))
        done = await worker.subtasks.find(session(), "s")
        assert done is not None
        assert (done.state, done.attempts, done.started_ms) == ("completed", 2, now)

    play(scenario)


def test_a_late_reply_does_not_complete_what_failed(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1", subtask_id="s"))
        await worker.subtasks.fail(session(), "s", "too slow")
        done = await worker.commit(reply("u1 a1", subtask_id="s"))
        assert (done.new_nodes, done.snapshot_restored, await state(worker, "s")) == (1, False, "failed")

    play(scenario)


def test_each_end_lands_once_whoever_is_first(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(4)]
        await workers[0].commit(request("u1 a1"))
        for turn in range(10):
            name = f"s{turn}"
            begun = await asyncio.gather(*(w.subtasks.begin(session(), Plan(name)) for w in workers))
            assert [isinstance(one, tuple) and one[1] for one in begun].count(True) == 1
            await workers[0].commit(request(f"u1 a1 u{turn}", subtask_id=name))
            world.events.clear()
            await asyncio.gather(
                workers[0].subtasks.complete(session(), name, "by hand"),
                workers[1].subtasks.fail(session(), name, "no"),
                workers[2].subtasks.roll_back(session(), name),
                workers[3].commit(reply(f"u1 a1 u{turn} a{turn}", subtask_id=name)),
            )
            ended = [event.state for event in world.events if isinstance(event, SubtaskChanged)]
            assert ended == [await state(workers[0], name)]

    play(scenario)


def test_what_needs_others_waits_for_them(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        assert "'a'" in await refused(worker, "b", "a")
        await begin(worker, "a")
        assert "'a'" in await refused(worker, "b", "a")
        await worker.subtasks.complete(session(), "a", "the result")
        begun = await begin(worker, "b", "a")
        assert (begun.depends_on, begun.given) == (("a",), ("a",))
        assert "completed" in await refused(worker, "a")

    play(scenario)


def test_a_rollback_makes_the_base_current_and_keeps_what_was_done(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 a1"))
        await worker.commit(request("u1 a1 u2", subtask_id="s"))
        await worker.commit(reply("u1 a1 u2 c2", subtask_id="s"))
        done = await worker.subtasks.roll_back(session(), "s")
        assert isinstance(done, Subtask) and done.state == "rolled_back"
        info = await worker.reader.session(session())
        assert info is not None
        assert (info.branch, info.head, info.message_count) == ("branch-2", tip_of("u1 a1"), 2)
        main = await worker.reader.history(session(), branch="main")
        assert main is not None and main.head == tip_of("u1 a1 u2 c2")
        again = await worker.commit(request("u1 a1 u3", subtask_id="s"))
        assert again.branch == "branch-2"
        retried = await worker.subtasks.find(session(), "s")
        assert retried is not None and (retried.state, retried.attempts) == ("in_progress", 2)
        assert isinstance(await worker.subtasks.roll_back(session(), "unknown"), Refusal)

    play(scenario)


def test_a_rollback_to_the_root_leaves_an_empty_session_that_grows_again(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1", subtask_id="s"))
        await worker.commit(reply("u1 c1", subtask_id="s"))
        await worker.subtasks.roll_back(session(), "s")
        info = await worker.reader.session(session())
        assert info is not None and (info.head, info.message_count) == ("", 0)
        await worker.commit(request("u2"))
        info = await worker.reader.session(session())
        assert info is not None and (info.head, info.message_count) == (tip_of("u2"), 1)

    play(scenario)


def test_an_unnamed_subtask_is_ended_by_its_id(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        name = "auto-" + tip_of("u1")[:12]
        failed = await worker.subtasks.fail(session(), name, "x")
        assert isinstance(failed, Subtask) and (failed.id, failed.explicit) == (name, False)
        await worker.commit(request("u1 c1 t1"))
        running = await worker.subtasks.find(session(), name)
        assert running is not None and (running.state, running.attempts) == ("in_progress", 2)

    play(scenario)


def test_unknown_sessions_and_foreign_ones_have_no_subtasks(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1", subtask_id="s"))
        for address in (session("none"), session(tenant=OTHER_TENANT)):
            for answer in (
                await worker.subtasks.begin(address, Plan("s")),
                await worker.subtasks.complete(address, "s", None),
            ):
                assert isinstance(answer, Refusal) and answer.unknown
        await worker.delete(session())
        gone = await worker.subtasks.begin(session(), Plan("s"))
        assert isinstance(gone, Refusal) and gone.unknown
        assert [key for key in await world.keys() if key.endswith("s:meta")] == []

    play(scenario)


def test_beginning_and_ending_put_the_end_of_the_session_off(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        meta = keys.of_session(session()).meta
        for call in (worker.subtasks.begin(session(), Plan("s")), worker.subtasks.fail(session(), "s", None)):
            await world.redis("PEXPIRE", meta, 1000)
            await call
            assert await world.redis("PTTL", meta) > 10_000

    play(scenario)


def test_what_a_subtask_stands_on_that_sends_only_its_own(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 a1"))
        await worker.commit(request("u1 a1 u2", subtask_id="a"))
        # A result is a record: what follows a finished subtask, or runs beside one, stands on what it stood on.
        assert (await begin(worker, "beside")).base == tip_of("u1 a1")
        await worker.commit(reply("u1 a1 u2 a2", subtask_id="a"))
        found = await standing(worker, "b", "u3", "a")
        assert found.base is not None and found.base.head == tip_of("u1 a1")
        assert (found.given, found.begins) == (("a",), 0)
        assert found.outcomes[0].body == b'{"text":"a2"}'
        # Where the conversation went on behind it, on its end.
        await worker.commit(request("u1 a1 u2 a2 u4"))
        await worker.commit(reply("u1 a1 u2 a2 u4 a4"))
        found = await standing(worker, "b", "u3", "a")
        assert found.base is not None and found.base.head == tip_of("u1 a1 u2 a2 u4 a4")

    play(scenario)


def test_what_is_put_in_front_is_not_what_the_client_sends_itself(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 a1"))
        await begin(worker, "a")
        await worker.subtasks.complete(session(), "a", "r")
        path = "u1 a1 u2"
        found = await standing(worker, "b", path, "a", begins=2)
        assert (found.begins, found.base) == (2, None)
        await worker.commit(request(path, subtask_id="b", subtask_depends_on=("a",), subtask_given=("a",)))
        found = await standing(worker, "b", "u1 a1 u2 c2 t2", "a", begins=5)
        assert (found.begins, found.base) == (2, None)
        elsewhere = await standing(worker, "b", "u1 a1x u2", "a", begins=2)
        assert elsewhere.base is not None
        edited = await standing(worker, "c", "u1 a1 u5 a5 u6", "a", begins=4)
        assert (edited.begins, edited.base) == (2, None)

    play(scenario)


def test_what_was_given_stays_the_same_while_an_attempt_runs(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        for name in ("a", "b"):
            await begin(worker, name)
        await worker.subtasks.complete(session(), "a", "ra")
        first = await standing(worker, "c", "u2", "a", "b")
        assert first.given == ("a",)
        said = {"subtask_id": "c", "subtask_depends_on": ("a", "b"), "subtask_given": first.given}
        await worker.commit(request("u1 a1 u2", **said))
        await worker.subtasks.complete(session(), "b", "rb")
        assert (await standing(world.worker(), "c", "u2", "a", "b")).given == ("a",)
        assert (await standing(world.worker(), "c", "u2")).depends_on == ("a", "b")
        await worker.subtasks.fail(session(), "c", None)
        assert (await standing(worker, "c", "u2", "a", "b")).given == ("a", "b")

    play(scenario)


def test_a_deleted_session_is_remembered_by_no_worker(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, plan = world.worker(), Plan("b", depends_on=("a",))
        await worker.commit(request("u1 a1"))
        await begin(worker, "a")
        await worker.subtasks.complete(session(), "a", "secret")
        assert (await standing(worker, "b", "u2", "a")).base is not None
        assert worker.subtasks.remembered(session(), plan) is not None
        await worker.delete(session())
        assert worker.subtasks.remembered(session(), plan) is None
        assert await standing(worker, "b", "u2", "a") == Standing(("a",))

    play(scenario)


def test_the_result_of_an_unnamed_subtask_is_given_too(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 a1"))
        name = "auto-" + tip_of("u1")[:12]
        assert (await begin(worker, "b", name)).depends_on == (name,)
        assert (await standing(worker, "b", "u2")).given == (name,)

    play(scenario)


def test_texts_that_are_no_utf8_are_stored_all_the_same(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        odd = {"subtask_id": "\ud800", "subtask_depends_on": ("\udfff",), "subtask_given": ("\udfff",)}
        await worker.commit(request("u1", **odd))
        found = await worker.subtasks.find(session(), "\ud800")
        assert found is not None and (found.id, found.depends_on, found.given) == ("?", ("?",), ("?",))

    play(scenario)


def test_one_without_needs_costs_one_round_trip_and_has_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2", subtask_id="a"))
        await world.redis("CONFIG", "RESETSTAT")
        assert await standing(worker, "a", "u1 a1 u2") == Standing()
        stats = (await world.redis("INFO", "commandstats")) or {}
        calls = {name: row["calls"] for name, row in stats.items() if name.startswith("cmdstat_h")}
        assert calls == {"cmdstat_hmget": 1}

    play(scenario)
