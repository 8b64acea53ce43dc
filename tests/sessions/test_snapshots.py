"""Snapshots by hand and by themselves, and going back to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy_plugin.events import SnapshotCreated, SnapshotRestored, SnapshotRestoreFailed
from proxy_plugin.sessions import keys, store
from proxy_plugin.sessions.edits import Refused
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.sessions.snapshots import Restored
from proxy_plugin.sessions.tree import Snapshot
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import lead, meant, reply, request, session, spoken

Play = Callable[[Scenario], None]


async def say(worker: store.SessionStore, path: str, **changes: Any) -> Any:
    """Commits a path whose last message is the client's, or the model's."""
    make = reply if path.split()[-1][0] in "ac" else request
    return await worker.commit(spoken(make(path, **{"at_ms": now_ms(), **changes}), path))


def tip(path: str) -> str:
    return meant(path)[0][-1]


async def names(worker: store.SessionStore, **where: str) -> str:
    history = await worker.reader.history(session(), **where)
    assert history is not None and not history.missing
    known = {body: name for path in SAID for body, name in zip(meant(path)[1], path.split(), strict=True)}
    return " ".join(known[node.body] for node in history.nodes if node.body is not None)


SAID = ("u1 a1 u2 c2 t2 a2 u3 a3", "u-new", "u4")


async def made(worker: store.SessionStore, name: str = "by hand", **options: Any) -> Snapshot:
    snapshot = await worker.snapshots.create(session(), name, **options)
    assert isinstance(snapshot, Snapshot)
    return snapshot


async def restored(worker: store.SessionStore, snapshot: Snapshot, **options: Any) -> Restored:
    answer = await worker.snapshots.restore(session(), snapshot.snapshot_id, **options)
    assert isinstance(answer, Restored)
    return answer


def test_a_snapshot_names_the_head_with_what_was_known_of_the_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, now = world.worker(), now_ms()
        await say(worker, "u1 a1", lead=lead("x"), size_bytes=500)
        await say(worker, "u1 a1 u2", lead=lead("x"), agent="coder", size_bytes=800)
        await worker.profiles.change(session(), Profile(title='a "title"'))
        world.events.clear()
        snapshot = await made(worker)
        assert (snapshot.node, snapshot.message_count) == (tip("u1 a1 u2"), 4)
        assert (snapshot.title, snapshot.agent, snapshot.auto, snapshot.pinned) == ('a "title"', "coder", False, False)
        assert now <= snapshot.created_ms <= now_ms()
        assert snapshot.expires_ms == snapshot.created_ms + 3_600_000
        assert snapshot.size_bytes >= 500
        assert world.events == [SnapshotCreated(snapshot.size_bytes)]
        assert await worker.reader.snapshot(session(), snapshot.snapshot_id) == snapshot
        assert snapshot in await worker.reader.snapshots(session())
        older = await made(worker, node=tip("u1")[:12])
        assert (older.node, older.message_count) == (tip("u1"), 2)
        assert await worker.snapshots.create(session(), "x", node="0" * 12) is Refused.NO_NODE
        assert await worker.snapshots.create(session("unknown"), "x") is Refused.NO_SESSION

    play(scenario)


def test_automatic_snapshots_have_the_same_form(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1")
        await worker.profiles.change(session(), Profile(title="mine"))
        await say(worker, "u1 a1 u2", agent="coder")
        snapshot = (await worker.reader.snapshots(session()))[-1]
        assert (snapshot.auto, snapshot.pinned, snapshot.title, snapshot.agent) == (True, False, "mine", "coder")
        assert (snapshot.node, snapshot.message_count) == (tip("u1 a1"), 2)
        assert await worker.reader.snapshot(session(), snapshot.snapshot_id) == snapshot

    play(scenario)


def test_making_one_costs_the_same_whatever_the_session_holds(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        run, calls = worker._connection.call, []

        async def counted(operation: Any) -> Any:
            calls.append(operation)
            return await run(operation)

        path = ""
        for length in (1, 300):
            path += " ".join(f" u{length}.{turn} a{length}.{turn}" for turn in range(length))
            await worker.commit(spoken(request(f"{path} u", at_ms=now_ms()), f"{path} u"))
            before = await world.redis("HGETALL", keys.of_session(session()).bodies)
            worker._connection.call = counted  # type: ignore[method-assign]
            await made(worker)
            worker._connection.call = run  # type: ignore[method-assign]
            assert len(calls) == 1
            assert await world.redis("HGETALL", keys.of_session(session()).bodies) == before
            calls.clear()

    play(scenario)


def test_a_snapshot_expires_unless_it_is_pinned(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(Settings(store=Store(snapshot_ttl_s=60)))
        await say(worker, "u1 a1")
        short, pinned = await made(worker, ttl_ms=1_000), await made(worker, pin=True)
        assert short.expires_ms == short.created_ms + 1_000
        assert pinned.pinned and pinned.expires_ms is None
        await world.redis("ZADD", keys.of_session(session()).snapshots, now_ms() - 1, short.snapshot_id)
        world.events.clear()
        assert await worker.reader.snapshot(session(), short.snapshot_id) is None
        assert await worker.snapshots.restore(session(), short.snapshot_id) is Refused.NO_SNAPSHOT
        assert world.events == [SnapshotRestoreFailed()]
        assert short not in await worker.reader.snapshots(session())
        assert pinned in await worker.reader.snapshots(session())
        stored = await world.redis("HKEYS", keys.of_session(session()).named)
        assert short.snapshot_id.encode() not in stored and pinned.snapshot_id.encode() in stored

    play(scenario)


def test_a_restore_is_a_new_branch_and_leaves_everything_there(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1", lead=lead("x"))
        snapshot = await made(worker)
        await say(worker, "u1 a1 u2 c2 t2", lead=lead("x"))
        world.events.clear()
        answer = await restored(worker, snapshot, preserve_last_result=False)
        assert (answer.branch, answer.head, answer.message_count) == ("branch-2", tip("u1 a1"), 3)
        assert world.events == [SnapshotRestored()]
        info = await worker.reader.session(session())
        assert info is not None
        assert (info.branch, info.head, info.message_count) == ("branch-2", tip("u1 a1"), 3)
        assert await names(worker) == "u1 a1"
        assert await names(worker, branch="main") == "u1 a1 u2 c2 t2"

        assert (await say(worker, "u1 a1 u-new", lead=lead("x"))).branch == "branch-2"
        assert await names(worker) == "u1 a1 u-new"
        assert (await say(worker, "u1 a1 u2 c2 t2 a2", lead=lead("x"))).branch == "main"
        assert await names(worker) == "u1 a1 u2 c2 t2 a2"

    play(scenario)


def test_the_last_result_of_the_path_that_was_current_comes_back_on_top(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1", lead=lead("x"))
        snapshot = await made(worker)
        await say(worker, "u1 a1 u2 a2", lead=lead("x"))
        await say(worker, "u1 a1 u2 a2 u3 c3 t3", lead=lead("x"))
        answer = await restored(worker, snapshot)
        assert (answer.head, answer.message_count) == (tip("u1 a1 a2"), 4)
        assert await names(worker) == "u1 a1 a2"
        history = await worker.reader.history(session())
        assert history is not None and history.message_count == 4
        assert (await say(worker, "u1 a1 a2 u3", lead=lead("x"))).branch == answer.branch
        again = await restored(worker, snapshot)  # the newest result of that path is the same message
        assert (again.head, again.branch) == (tip("u1 a1 a2"), "branch-3")
        twice = await restored(worker, snapshot)
        assert (twice.head, twice.branch) == (again.head, again.branch)

    play(scenario)


def test_no_result_is_put_where_it_is_already_or_where_there_is_none(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1")
        snapshot = await made(worker)
        await say(worker, "u1 a1 u2 c2 t2")
        await say(worker, "u1 a1 u2 c2 t2 a2", closes=False, incomplete=True)
        assert (await restored(worker, snapshot)).head == tip("u1 a1")

    play(scenario)


def test_the_place_before_the_first_message_is_restored_and_grows(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1")
        (snapshot,) = await worker.reader.snapshots(session())
        assert snapshot.node == ""
        answer = await restored(worker, snapshot, preserve_last_result=False)
        assert (answer.head, answer.message_count) == ("", 0)
        assert await names(worker) == "" == await names(worker, branch=answer.branch)
        assert (await say(worker, "u-new")).branch == answer.branch
        assert await names(worker) == "u-new"
        with_result = await restored(worker, snapshot)
        assert with_result.head == ""  # the path of u-new has no result

    play(scenario)


def test_a_result_alone_stands_at_the_root(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1", lead=lead("x"))
        (snapshot,) = await worker.reader.snapshots(session())
        answer = await restored(worker, snapshot)
        assert (answer.head, answer.message_count) == (tip("a1"), 2)
        assert await names(worker) == "a1"

    play(scenario)


def test_a_snapshot_is_deleted_by_hand_or_with_its_restore(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1")
        one, other = await made(worker, pin=True), await made(worker)
        await say(worker, "u1 a1 u2")
        assert await worker.snapshots.delete(session(), one.snapshot_id) == one
        assert await worker.snapshots.delete(session(), one.snapshot_id) is Refused.NO_SNAPSHOT
        await restored(worker, other, delete=True)
        assert await worker.snapshots.restore(session(), other.snapshot_id) is Refused.NO_SNAPSHOT
        left = await world.redis("HKEYS", keys.of_session(session()).named)
        assert {one.snapshot_id.encode(), other.snapshot_id.encode()}.isdisjoint(left)

    play(scenario)


def test_edits_that_run_twice_are_done_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1")
        run = worker._connection.run

        async def twice(name: str, *args: Any) -> Any:
            await run(name, *args)
            return await run(name, *args)

        worker._connection.run = twice  # type: ignore[method-assign,assignment]
        snapshot = await made(worker)
        worker._connection.run = run  # type: ignore[method-assign]
        await say(worker, "u1 a1 u2 a2")
        worker._connection.run = twice  # type: ignore[method-assign,assignment]
        answer = await restored(worker, snapshot, delete=True)
        assert (answer.branch, answer.head) == ("branch-2", tip("u1 a1 a2"))
        info = await worker.reader.session(session())
        assert info is not None and info.branches == 2

    play(scenario)


def test_a_restore_while_others_write_loses_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(4)]
        await say(workers[0], "u1 a1")
        snapshot = await made(workers[0], pin=True)

        async def write(writer: int) -> str:
            path = f"u1 a1 u{writer}"
            for turn in range(10):
                await say(workers[writer], path)
                path += f" a{writer}.{turn}"
                await say(workers[writer], path)
                path += f" u{writer}.{turn}"
            return path.rpartition(" ")[0]

        async def go_back() -> None:
            for _ in range(5):
                await workers[0].snapshots.restore(session(), snapshot.snapshot_id)

        paths, _ = await asyncio.gather(asyncio.gather(*(write(writer) for writer in range(4))), go_back())
        for path in paths:
            history = await workers[0].reader.history(session(), node=tip(path))
            assert history is not None and [node.id for node in history.nodes] == meant(path)[0]

    play(scenario)


def test_a_snapshot_of_another_session_is_none(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await say(worker, "u1 a1")
        snapshot = await made(worker)
        await worker.commit(request("u1", session("other")))
        assert await worker.snapshots.restore(session("other"), snapshot.snapshot_id) is Refused.NO_SNAPSHOT
        assert await worker.snapshots.restore(session("unknown"), snapshot.snapshot_id) is Refused.NO_SESSION

    play(scenario)


@pytest.mark.parametrize("damage", ["head", "body"])
def test_the_newest_result_that_is_not_damaged_comes_back(play: Play, damage: str) -> None:
    async def scenario(world: World) -> None:
        worker, names_of = world.worker(), keys.of_session(session())
        await say(worker, "u1 a1")
        snapshot = await made(worker)
        await say(worker, "u1 a1 u2 a2")
        await say(worker, "u1 a1 u2 a2 u3 a3")
        place = {"head": names_of.nodes, "body": names_of.bodies}[damage]
        await world.redis("HSET", place, tip("u1 a1 u2 a2 u3 a3"), "?")
        answer = await restored(worker, snapshot)
        assert answer.head == tip("u1 a1 a2")

    play(scenario)
