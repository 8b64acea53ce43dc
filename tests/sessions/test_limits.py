"""How much sessions and tenants may hold: what is refused, what goes, and that nothing named is ever broken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_plugin.events import PassedThrough
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.limits import PIECE, Limits
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import Subtask
from proxy_plugin.settings import Reset, Settings, Store
from tests.sessions.conftest import World
from tests.sessions.paths import TENANT, ids_of, lead, reply, request, session, tip_of
from tests.sessions.test_transfer import a_session, exported, imported

Play = Callable[[Callable[[World], Awaitable[None]]], None]


def limited(**store: Any) -> Settings:
    return Settings(store=Store(**store))


def passed(world: World) -> list[str]:
    return [event.reason for event in world.events if isinstance(event, PassedThrough)]


async def shown(store: SessionStore, **place: Any) -> str:
    history = await store.reader.history(session(), **place)
    assert history is not None and history.missing == ()
    return " ".join((node.body or b"").split(b'"')[3].decode() for node in history.nodes)


async def stored(store: SessionStore) -> set[str]:
    nodes, damaged = await store.reader.tree(session())
    assert damaged == ()
    return {node.id for node in nodes}


async def total(world: World) -> int:
    return int(await world.redis("HGET", keys.of_session(session()).meta, "total") or 0)


async def weighed(world: World) -> int:
    names = keys.of_session(session())
    parts = [await world.redis("HVALS", key) for key in (names.nodes, names.bodies, names.leads)]
    return sum(len(value) for values in parts for value in values)


async def say(store: SessionStore, path: str, **changes: Any) -> Any:
    """A request and its reply; returns what became of the reply."""
    await store.commit(request(path.rpartition(" ")[0], **changes))
    return await store.commit(reply(path, **changes))


# What a session holds


def test_the_total_is_what_is_stored(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=100))
        big = b'{"text":"%s"}' % random.Random(1).randbytes(2_000_000).hex().encode()  # brought in in pieces
        await store.commit(request("u1 a1 u2", lead=lead("be brief"), bodies=[b"{}", big, b"{}"]))
        assert await total(world) == await weighed(world) > 1_900_000
        await store.commit(request("u1 a1 u2", lead=lead("be brief")))
        await world.worker().commit(reply("u1 a1 u2 a2", lead=lead("be long")))
        assert await total(world) == await weighed(world)

    play(scenario)


def test_a_request_beyond_the_limit_passes_unstored_and_is_counted_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=4))
        await say(store, "u1 a1 u2 a2")
        asked = request("u1 a1 u2 a2 u3")
        done = await store.commit(asked)
        assert (done.full, done.new_nodes, done.session_id) == ("session_full", 0, "s-1")
        await store.commit(reply("u1 a1 u2 a2 u3 a3", token=asked.token))
        assert passed(world) == ["session_full"]
        await store.limits.close()
        assert await shown(store) == "u1 a1 u2 a2"  # the current path is not touched
        assert (await store.commit(request("u1 a1 u2"))).full == ""  # nothing new: nothing is too much

    play(scenario)


def test_a_large_request_is_refused_before_it_is_brought_in(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_bytes=1_500_000))
        await say(store, "u1 a1")
        noise = random.Random(2)
        bodies = [b"{}", b"{}", *(b'{"text":"%s"}' % noise.randbytes(800_000).hex().encode() for _ in range(3))]
        done = await store.commit(request("u1 a1 u2 a2 u3", bodies=bodies))
        assert done.full == "session_full"
        assert await total(world) == await weighed(world) < 1_000

    play(scenario)


def test_marks_are_told_where_nothing_is_stored(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=5))
        await say(store, "u1 a1", subtask_id="one")
        known = await say(store, "u1 a1 u2 a2", subtask_id="two")
        done = await store.commit(request("u1 a1 u2 a2 u3 a3 u4", subtask_id="two"))
        assert done.full == "session_full" and done.marks == known.marks == (tip_of("u1 a1"),)

    play(scenario)


def test_the_oldest_branch_goes_first_and_the_request_after_that_is_stored(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=12))
        await say(store, "u1 a1 u2 a2")
        await say(store, "u1 a1 u9 a9")
        await say(store, "u1 a1 u3 a3 u4 a4")
        assert len(await stored(store)) == 10
        path = "u1 a1 u3 a3 u4 a4 u5 a5 u6"
        assert (await store.commit(request(path))).full == "session_full"
        await store.limits.close()
        left = await stored(store)
        assert tip_of("u1 a1 u2 a2") not in left and tip_of("u1 a1 u2") not in left
        assert {branch.name for branch in await store.reader.branches(session())} == {"branch-2", "branch-3"}
        assert await shown(store) == "u1 a1 u3 a3 u4 a4"
        done = await store.commit(request(path))
        assert (done.full, done.round_trips) == ("", 1)  # it does not look damaged either
        assert await shown(store) == path

    play(scenario)


def test_a_branch_that_is_longer_than_a_piece_goes_as_a_whole(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=2 * PIECE + 60))
        long = " ".join(f"u{n} a{n}" for n in range(PIECE + 20))
        await store.commit(reply(long))
        for snapshot in await store.reader.snapshots(session()):
            await store.snapshots.delete(session(), snapshot.snapshot_id)
        await say(store, "u0 a0 u99999 a99999")
        assert (await store.commit(request("u0 a0 " + " ".join(f"u8{n} a8{n}" for n in range(40)) + " u9"))).full
        await store.limits.close()
        assert await stored(store) == {*ids_of("u0 a0 u99999 a99999")}
        assert await total(world) == await weighed(world)

    play(scenario)


@pytest.mark.parametrize("change", ["goes on", "forks", "snapshot", "branch", "switch", "subtask"])
def test_nothing_goes_that_somebody_comes_to_need_meanwhile(play: Play, change: str) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=3))
        free = world.worker(limited(max_session_messages=0))
        await say(free, "u1 a1 u2 a2")
        await say(free, "u1 a1 u3 a3")
        for snapshot in await free.reader.snapshots(session()):
            await free.snapshots.delete(session(), snapshot.snapshot_id)
        find, node = store.limits._oldest, tip_of("u1 a1 u2 a2")

        async def and_meanwhile(*args: Any) -> Any:
            strand = await find(*args)
            assert strand is not None and strand.nodes[0] == node
            match change:
                case "goes on":
                    await free.commit(request("u1 a1 u2 a2 u4"))
                case "forks":
                    await free.commit(request("u1 a1 u2 a9"))
                case "snapshot":
                    await free.snapshots.create(session(), "kept", node=node)
                case "branch":
                    await free.branches.create(session(), "other", node=node)
                case "switch":
                    await free.branches.switch(session(), "main")
                case "subtask":
                    await free.commit(request("u1 a1 u2 a2", subtask_id="late"))
            return strand

        store.limits._oldest = and_meanwhile  # type: ignore[method-assign]
        assert await store.limits.make_room(session()) == 0
        assert await shown(store, node=node) == "u1 a1 u2 a2"

    play(scenario)


def test_what_a_deleted_branch_left_goes_too(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=4))
        free = world.worker(limited(max_session_messages=0))
        await say(free, "u1 a1 u2 a2")
        await say(free, "u1 a1 u3 a3")
        await free.branches.delete(session(), "main")
        assert await store.limits.make_room(session()) == 2
        assert await stored(store) == {*ids_of("u1 a1 u3 a3")}

    play(scenario)


def test_a_session_that_room_was_made_in_is_exported_and_imported_whole(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(max_session_messages=1))
        free = world.worker(limited(max_session_messages=0))
        await a_session(free)
        for snapshot in await store.reader.snapshots(session()):
            await store.snapshots.delete(session(), snapshot.snapshot_id)
        assert await store.limits.make_room(session()) > 0
        before = await store.reader.tree(session())
        text = await exported(store)
        await store.delete(session())
        await imported(store, text)
        assert await store.reader.tree(session()) == before
        assert await total(world) == await weighed(world)

    play(scenario)


# Never anything that is named


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_that_is_named_is_ever_broken(data: st.DataObject, play: Play) -> None:
    """Against a model: of random trees with snapshots, marks and subtasks, what room is made of is exactly the ends
    that nothing names, and every named path reads back whole."""
    paths: list[str] = []
    for number in range(data.draw(st.integers(2, 6))):
        stem = data.draw(st.sampled_from(["", *paths]))
        turns = stem.split()[: 2 * data.draw(st.integers(0, 3))]
        new = [name for n in range(data.draw(st.integers(1, 3))) for name in (f"u{number}{n}", f"a{number}{n}")]
        paths.append(" ".join([*turns, *new]))
    snapshots = data.draw(st.lists(st.sampled_from(paths), max_size=2))
    subtask = data.draw(st.none() | st.sampled_from(paths))
    finished, forgotten = data.draw(st.booleans()), data.draw(st.booleans())

    async def scenario(world: World) -> None:
        free = world.worker(limited(max_session_messages=0))
        store = world.worker(limited(max_session_messages=1, snapshot_ttl_s=3600))
        for path in paths:
            await say(free, path)
        named = set()
        for path in snapshots:
            node = data.draw(st.sampled_from(ids_of(path)))
            await free.snapshots.create(session(), "kept", node=node, pin=True)
            named.add(node)
        if subtask is not None:
            await free.commit(request(subtask + " u7", subtask_id="mine"))
            named |= {tip_of(subtask)}  # the mark
            if finished:
                await free.commit(reply(subtask + " u7 a7", subtask_id="mine"))
                named |= {tip_of(subtask + " u7 a7")}  # others may be given it
            await free.commit(request(data.draw(st.sampled_from(paths)) + " u6"))
        if forgotten:
            for snapshot in await free.reader.snapshots(session()):
                if snapshot.auto:
                    await free.snapshots.delete(session(), snapshot.snapshot_id)
        info = await free.reader.session(session())
        assert info is not None
        named |= {info.head}
        named |= {one.node for one in await free.reader.snapshots(session()) if one.node}
        for record in await free.reader.subtasks(session()):
            if not record.over:
                named |= {record.base, record.first} - {""}
        before, _ = await free.reader.tree(session())
        parents = {node.id: node.parent for node in before}
        expected = set()
        for node in named:
            while node:
                expected.add(node)
                node = parents[node]
        while await store.limits.make_room(session()):
            pass
        assert await stored(store) == expected
        for node in named:
            history = await store.reader.history(session(), node=node)
            assert history is not None and history.missing == ()
        for branch in await store.reader.branches(session()):
            assert not branch.head or branch.head in expected
        tips = await world.redis("ZRANGE", keys.of_session(session()).tips, 0, -1)
        assert {tip.decode() for tip in tips} == {
            f"{branch.head}/{branch.name}" for branch in await store.reader.branches(session()) if branch.head
        }
        assert await total(world) == await weighed(world)
        # What went comes back with the client's next request.
        await free.commit(request(paths[0] + " u8"))
        assert await shown(free, node=tip_of(paths[0] + " u8")) == paths[0] + " u8"

    play(scenario)


# Tenants


def test_a_full_tenant_passes_and_is_stored_again_when_there_is_room(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_plugin.sessions.limits.FULL_TENANT_SECONDS", 0.0)

    async def scenario(world: World) -> None:
        store = world.worker(limited(max_tenant_bytes=4_000))
        for n in range(4):
            await store.commit(request("u1", session(f"s-{n}"), bodies=[b'{"text":"%s"}' % (b"x" * 900)]))
        await store.index.flush()
        await store.limits.close()
        assert await store.limits.sum_up(TENANT) > 4_000
        late = session("s-9")
        assert (await store.commit(request("u1", late))).full == "tenant_full"
        assert passed(world) == ["tenant_full"]
        assert await store.reader.session(late) is None
        for n in range(4):
            await store.delete(session(f"s-{n}"))
        await store.commit(request("u1", late))  # has it summed up again
        await store.limits.close()
        assert (await store.commit(request("u1", late))).full == ""

    play(scenario)


# Finished subtasks


async def names_of(store: SessionStore) -> list[str]:
    return [subtask.id for subtask in await store.reader.subtasks(session())]


def test_the_newest_finished_subtasks_are_kept(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(keep_subtasks=2))
        path = ""
        for n in range(5):
            path = f"{path} u{n} a{n}".strip()
            await say(store, path)
        await store.commit(request(path + " u5"))  # the running one
        await store.limits.close()
        assert await names_of(store) == [f"auto-{ids_of(path + ' u5')[at][:12]}" for at in (6, 8, 10)]
        kept = [subtask.snapshot_id for subtask in await store.reader.subtasks(session())]
        assert {one.snapshot_id for one in await store.reader.snapshots(session())} == {*kept}
        assert await shown(store) == path + " u5"

    play(scenario)


def test_what_is_not_over_or_still_needed_stays(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(limited(keep_subtasks=0))
        for name in ("needed", "done", "failing"):
            await store.commit(request("u1", subtask_id=name))
            ended = store.subtasks.fail(session(), name, None) if name == "failing" else None
            await (ended or store.subtasks.complete(session(), name, "ok"))
        waiting = request("u1 a1 u2", subtask_id="waiting", subtask_depends_on=("needed",))
        await store.commit(waiting)
        keeper = Limits(world.connection(), store.reader, Store(keep_subtasks=1))
        assert await keeper.forget_subtasks(session()) == 0
        await store.commit(request("u1", subtask_id="newer"))
        await store.subtasks.complete(session(), "newer", "ok")
        assert await keeper.forget_subtasks(session()) == 1
        left = {subtask.id: subtask for subtask in await store.reader.subtasks(session())}
        assert {"needed", "failing", "waiting", "newer"} <= left.keys() and "done" not in left
        assert isinstance(left["needed"], Subtask)

    play(scenario)


# Resets for age


def test_a_reset_for_age_is_decided_once_when_a_subtask_begins(play: Play) -> None:
    async def scenario(world: World) -> None:
        store = world.worker(Settings(reset=Reset(max_age_s=60)))
        at = 1_900_000_000_000
        await store.commit(request("u1", at_ms=at))
        await store.commit(reply("u1 a1", at_ms=at + 1_000))
        young = await store.commit(request("u1 a1 u2", at_ms=at + 60_000))
        assert young.resets == ()
        await store.commit(reply("u1 a1 u2 a2", at_ms=at + 61_000))
        # The second subtask is never looked at again, however old.
        assert (await store.commit(request("u1 a1 u2", at_ms=at + 90_000))).resets == ()
        old = await store.commit(request("u1 a1 u2 a2 u3", at_ms=at + 61_001))
        assert old.resets == (tip_of("u1 a1 u2 a2 u3"),)
        again = await world.worker(Settings(reset=Reset(max_age_s=60))).commit(
            request("u1 a1 u2 a2 u3 c3 t3", at_ms=at + 500_000)
        )
        assert again.resets == old.resets
        # Since then it is young again.
        await store.commit(reply("u1 a1 u2 a2 u3 c3 t3 a3", at_ms=at + 62_000))
        later = await store.commit(request("u1 a1 u2 a2 u3 c3 t3 a3 u4", at_ms=at + 100_000))
        assert later.resets == old.resets
        last = await store.commit(request("u1 a1 u2 a2 u3 c3 t3 a3 u5", at_ms=at + 130_000))
        assert last.resets == (*old.resets, tip_of("u1 a1 u2 a2 u3 c3 t3 a3 u5"))
        assert (await world.worker().commit(request("u1 a1"))).resets == last.resets

    play(scenario)


def test_two_workers_decide_alike(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = (world.worker(Settings(reset=Reset(max_age_s=60))) for _ in range(2))
        at = 1_900_000_000_000
        await first.commit(request("u1", at_ms=at))
        asked = request("u1 a1 u2", at_ms=at + 61_000)
        answers = await asyncio.gather(first.commit(asked), second.commit(asked))
        assert {answer.resets for answer in answers} == {(tip_of("u1 a1 u2"),)}

    play(scenario)
