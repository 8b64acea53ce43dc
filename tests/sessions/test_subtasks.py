"""Subtasks, their snapshots, and the marks of those that a client names."""

from __future__ import annotations

from collections.abc import Callable

from proxy_plugin.sessions import keys, store
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import START_MS, ids_of, lead, reply, request, session, tip_of

Play = Callable[[Scenario], None]


async def states(worker: store.SessionStore) -> dict[str, str]:
    return {subtask.id: subtask.state for subtask in await worker.reader.subtasks(session())}


def auto(path: str) -> str:
    return "auto-" + tip_of(path)[:12]


def test_a_subtask_begins_with_a_snapshot_and_ends_with_its_final_reply(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, now = world.worker(), now_ms()
        await worker.commit(request("u1 a1"))
        begun = await worker.commit(request("u1 a1 u2", agent="coder", lead=lead("x"), size_bytes=777, at_ms=now))
        assert (begun.snapshot_created, begun.snapshot_restored) == (True, False)
        called = await worker.commit(reply("u1 a1 u2 c2"))
        again = await worker.commit(request("u1 a1 u2 c2 t2"))
        for committed in (called, again):
            assert (committed.snapshot_created, committed.snapshot_restored) == (False, False)
        ended = await worker.commit(reply("u1 a1 u2 c2 t2 a2", at_ms=now + 5))
        assert (ended.snapshot_created, ended.snapshot_restored) == (False, True)
        assert (await worker.commit(reply("u1 a1 u2 c2 t2 a2"))).snapshot_restored is False

        (subtask,) = await worker.reader.subtasks(session())
        assert (subtask.id, subtask.state, subtask.explicit) == (auto("u1 a1 u2"), "completed", False)
        assert (subtask.base, subtask.first) == (tip_of("u1 a1"), tip_of("u1 a1 u2"))
        assert subtask.result == tip_of("u1 a1 u2 c2 t2 a2")
        assert (subtask.started_ms, subtask.ended_ms, subtask.agent) == (now, now + 5, "coder")
        (snapshot,) = await worker.reader.snapshots(session())
        assert (snapshot.snapshot_id, snapshot.node) == (subtask.snapshot_id, tip_of("u1 a1"))
        assert (snapshot.created_ms, snapshot.expires_ms) == (now, now + 3_600_000)
        assert (snapshot.size_bytes, snapshot.message_count, snapshot.agent) == (777, 3, "coder")
        assert snapshot.auto
        info = await worker.reader.session(session())
        assert info is not None and (info.subtasks, info.snapshots, info.branches) == (1, 1, 1)

    play(scenario)


def test_the_first_subtask_of_a_session_has_the_root_as_its_base(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        assert (await worker.commit(request("u1"))).snapshot_created
        (subtask,) = await worker.reader.subtasks(session())
        assert (subtask.base, subtask.first, subtask.state) == ("", tip_of("u1"), "in_progress")

    play(scenario)


def test_a_history_that_ends_with_a_result_begins_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        assert not (await worker.commit(request("u1 a1"))).snapshot_created
        assert await worker.reader.subtasks(session()) == ()

    play(scenario)


def test_an_interrupted_reply_ends_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 a1", closes=False, incomplete=True))
        assert await states(worker) == {auto("u1"): "in_progress"}

    play(scenario)


def test_a_lost_final_reply_is_made_good_by_the_next_request(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 c1"))
        # the worker that had a1 died before it was stored
        done = await world.worker().commit(request("u1 c1 t1 a1 u2"))
        assert (done.snapshot_created, done.snapshot_restored) == (True, True)
        assert await states(worker) == {auto("u1"): "completed", auto("u1 c1 t1 a1 u2"): "in_progress"}
        assert (await worker.reader.subtasks(session()))[0].result == tip_of("u1 c1 t1 a1")

    play(scenario)


def test_a_request_that_was_never_stored_is_made_good_by_its_reply(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        done = await worker.commit(reply("u1 c1 t1 a1"))
        assert (done.new_nodes, done.snapshot_created, done.snapshot_restored) == (4, True, True)

    play(scenario)


def test_an_expired_automatic_snapshot_is_gone_and_its_record_stays(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(Settings(store=Store(snapshot_ttl_s=60)))
        long_ago = now_ms() - 61_000
        await worker.commit(request("u1", at_ms=long_ago))
        info = await worker.reader.session(session())
        assert info is not None and info.snapshots == 0
        assert await worker.reader.snapshots(session()) == ()
        assert await world.redis("ZCARD", keys.of_session(session()).snapshots) == 0
        await worker.commit(request("u1 a1 u2", at_ms=long_ago))
        await worker.commit(request("u1 a1 u2 a2 u3"))
        assert await world.redis("ZCARD", keys.of_session(session()).snapshots) == 1
        assert len(await worker.reader.subtasks(session())) == 3

    play(scenario)


def test_an_explicit_subtask_is_marked_where_it_begins(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        assert (await worker.commit(request("u1", subtask_id="plan"))).marks == ()  # nothing before it
        await worker.commit(reply("u1 a1", subtask_id="plan"))
        asked = request("u1 a1 u2", subtask_id="build", subtask_description="do it", subtask_agent="coder")
        begun = await worker.commit(asked)
        assert begun.marks == (tip_of("u1 a1"),)
        assert (await world.worker().commit(asked)).marks == begun.marks
        assert (await worker.commit(reply("u1 a1 u2 c2", subtask_id="build"))).marks == begun.marks
        # One subtask may take several user turns: an answer in between is no new beginning.
        await worker.commit(request("u1 a1 u2 c2 t2", subtask_id="build", explicit_base=5))
        assert (await worker.commit(request("u1 a1 u2 c2 t2 a2 u3", subtask_id="build"))).marks == begun.marks
        last = await worker.commit(request("u1 a1 u2 c2 t2 a2 u3 a3 u4", subtask_id="test"))
        assert last.marks == (tip_of("u1 a1 u2 c2 t2 a2 u3 a3"), tip_of("u1 a1"))
        assert (await worker.commit(request("u1 a1 u2 c2 t2 a2 u3 a3 u4 a4 u5"))).marks == last.marks

        plan, build, test, _ = await worker.reader.subtasks(session())
        assert [plan.id, build.id, test.id] == ["plan", "build", "test"]
        assert (build.base, build.first, build.explicit) == (tip_of("u1 a1"), tip_of("u1 a1 u2"), True)
        assert (build.description, build.agent) == ("do it", "coder")

    play(scenario)


def test_a_lost_reply_belongs_to_the_subtask_that_it_ended(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u0 a0"))
        await worker.commit(request("u0 a0 u1", subtask_id="build"))
        done = await worker.commit(request("u0 a0 u1 a1 u2", subtask_id="test"))
        assert set(done.marks) == {tip_of("u0 a0"), tip_of("u0 a0 u1 a1")}
        assert await states(worker) == {"build": "completed", "test": "in_progress"}

    play(scenario)


def test_a_whole_history_that_comes_under_one_id_is_still_running(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        done = await worker.commit(request("u1 a1 u2", subtask_id="build"))
        assert done.marks == ()  # nothing tells where in it the subtask began
        assert await states(worker) == {"build": "in_progress"}

    play(scenario)


def test_nodes_carry_the_explicit_subtask_and_what_follows_inherits_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 a1"))
        await worker.commit(request("u1 a1 u2", subtask_id="build"))
        await worker.commit(reply("u1 a1 u2 a2"))
        history = await worker.reader.history(session())
        assert history is not None
        field = keys.subtask_field("build")
        assert [node.subtask for node in history.nodes] == [auto("u1"), auto("u1"), field, field]

    play(scenario)


def test_parallel_subtasks_from_one_base_are_branches_with_one_mark(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await worker.commit(reply("u1 a1"))
        for name in ("left", "right"):
            done = await worker.commit(request(f"u1 a1 u-{name}", subtask_id=name))
            assert done.marks == (tip_of("u1 a1"),)
            assert (await worker.commit(reply(f"u1 a1 u-{name} a-{name}", subtask_id=name))).snapshot_restored
        assert await states(worker) == {auto("u1"): "completed", "left": "completed", "right": "completed"}
        results = [subtask.result for subtask in await worker.reader.subtasks(session())]
        assert results == [tip_of("u1 a1"), tip_of("u1 a1 u-left a-left"), tip_of("u1 a1 u-right a-right")]

    play(scenario)


def test_beginning_a_completed_subtask_again_changes_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1", subtask_id="s"))
        await worker.commit(reply("u1 a1", subtask_id="s"))
        before = await worker.reader.subtasks(session())
        again = await worker.commit(request("u1 a1 u2", subtask_id="s"))
        await worker.commit(reply("u1 a1 u2 a2", subtask_id="s"))
        assert not again.snapshot_created
        assert await worker.reader.subtasks(session()) == before

    play(scenario)


def test_marks_are_bounded(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        path = "u0 a0"
        await worker.commit(request(path))
        for turn in range(600):
            path += f" u{turn} a{turn}"
        nodes = ids_of(path)
        for turn in range(600):
            await world.redis("ZADD", keys.of_session(session()).marks, START_MS + turn, nodes[turn] + "old")
        done = await worker.commit(request("u0 a0 u1", subtask_id="new", at_ms=START_MS + 10_000))
        assert len(done.marks) == 512
        assert done.marks[:2] == (tip_of("u0 a0"), nodes[599])

    play(scenario)
