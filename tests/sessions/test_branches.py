"""Branches that a user makes, switches to, renames and deletes; how commits go on from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy_plugin.sessions import keys, store
from proxy_plugin.sessions.branches import Switched
from proxy_plugin.sessions.edits import Refused
from proxy_plugin.sessions.tree import Branch
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, lead, reply, request, session, tip_of
from tests.sessions.test_store import texts

Play = Callable[[Scenario], None]


async def heads(worker: store.SessionStore) -> dict[str, str]:
    return {branch.name: branch.head for branch in await worker.reader.branches(session())}


async def current(worker: store.SessionStore) -> str:
    info = await worker.reader.session(session())
    assert info is not None
    return info.branch


def test_a_branch_is_made_at_the_head_or_at_a_node(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2 a2"))
        made = await worker.branches.create(session(), "here")
        older = await worker.branches.create(session(), "older", tip_of("u1 a1")[:12])
        assert isinstance(made, Branch) and isinstance(older, Branch)
        assert (made.head, older.head) == (tip_of("u1 a1 u2 a2"), tip_of("u1 a1"))
        assert await worker.branches.create(session(), "older") is Refused.NAME_TAKEN
        assert await worker.branches.create(session(), "main", tip_of("u1")) is Refused.NAME_TAKEN
        assert await worker.branches.create(session(), "none", "0" * 12) is Refused.NO_NODE
        assert await worker.branches.create(session("unknown"), "x") is Refused.NO_SESSION
        assert await current(worker) == "main"
        assert texts(await worker.reader.history(session(), branch="older")) == "u1 a1"

    play(scenario)


def test_the_branch_that_is_switched_to_is_read_and_grows(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2 a2", lead=lead("x")))
        await worker.branches.create(session(), "older", tip_of("u1 a1"))
        switched = await worker.branches.switch(session(), "older")
        assert isinstance(switched, Switched) and switched.message_count == 3
        assert texts(await worker.reader.history(session())) == "u1 a1"
        info = await worker.reader.session(session())
        assert info is not None and (info.message_count, info.head) == (3, tip_of("u1 a1"))
        assert (await worker.commit(request("u1 a1 u-other", lead=lead("x")))).branch == "older"
        assert await heads(worker) == {"main": tip_of("u1 a1 u2 a2"), "older": tip_of("u1 a1 u-other")}
        assert await worker.branches.switch(session(), "none") is Refused.NO_BRANCH

    play(scenario)


def test_of_two_branches_with_one_head_the_current_one_grows_and_the_other_one_later(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        await worker.branches.create(session(), "spare")
        assert (await worker.commit(request("u1 a1 u2"))).branch == "main"
        assert (await worker.commit(request("u1 a1 u-other"))).branch == "spare"
        assert await heads(worker) == {"main": tip_of("u1 a1 u2"), "spare": tip_of("u1 a1 u-other")}

    play(scenario)


def test_what_is_said_again_goes_forward_on_the_branch_that_was_set_back(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2 a2 u3 a3"))
        await worker.branches.create(session(), "again", tip_of("u1 a1"))
        await worker.branches.switch(session(), "again")
        for path, made in (("u1", 0), ("u1 a1 u2", 0), ("u1 a1 u2 a-other", 1)):
            done = await worker.commit((reply if path.endswith("other") else request)(path))
            assert (done.new_nodes, done.branch) == (made, "again")
        assert await heads(worker) == {"main": tip_of("u1 a1 u2 a2 u3 a3"), "again": tip_of("u1 a1 u2 a-other")}
        assert texts(await worker.reader.history(session())) == "u1 a1 u2 a-other"
        await worker.commit(request("u1 a1 u2"))  # nothing was set back any more
        assert await current(worker) == "again"

    play(scenario)


def test_a_client_that_sends_the_old_path_and_more_makes_its_branch_current(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2 a2"))
        await worker.branches.create(session(), "older", tip_of("u1 a1"))
        await worker.branches.switch(session(), "older")
        assert (await worker.commit(request("u1 a1 u2 a2 u3"))).branch == "main"
        assert await current(worker) == "main"
        assert await heads(worker) == {"main": tip_of("u1 a1 u2 a2 u3"), "older": tip_of("u1 a1")}

    play(scenario)


def test_a_renamed_branch_keeps_its_place_and_a_deleted_one_its_messages(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2 a2"))
        await worker.commit(request("u1 a1 u-edit"))
        renamed = await worker.branches.rename(session(), "branch-2", "edited")
        assert isinstance(renamed, Branch) and renamed.head == tip_of("u1 a1 u-edit")
        assert await current(worker) == "edited"
        assert (await worker.commit(reply("u1 a1 u-edit a"))).branch == "edited"
        assert await worker.branches.rename(session(), "branch-2", "x") is Refused.NO_BRANCH
        assert await worker.branches.rename(session(), "main", "edited") is Refused.NAME_TAKEN
        assert isinstance(await worker.branches.rename(session(), "main", "main"), Branch)

        assert await worker.branches.delete(session(), "edited") is Refused.BRANCH_CURRENT
        assert isinstance(await worker.branches.delete(session(), "main"), Branch)
        assert await worker.branches.delete(session(), "main") is Refused.NO_BRANCH
        assert await heads(worker) == {"edited": tip_of("u1 a1 u-edit a")}
        assert texts(await worker.reader.history(session(), node=tip_of("u1 a1 u2 a2"))) == "u1 a1 u2 a2"
        assert (await worker.commit(request("u1 a1 u2 a2 u3"))).branch == "branch-3"

    play(scenario)


def test_an_edit_that_runs_twice_is_done_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2"))
        run = worker._connection.run

        async def twice(name: str, *args: object) -> object:
            await run(name, *args)  # type: ignore[arg-type]
            return await run(name, *args)  # type: ignore[arg-type]

        worker._connection.run = twice  # type: ignore[method-assign,assignment]
        assert isinstance(await worker.branches.create(session(), "b", tip_of("u1")), Branch)
        assert isinstance(await worker.branches.rename(session(), "b", "c"), Branch)
        assert isinstance(await worker.branches.switch(session(), "c"), Switched)
        assert isinstance(await worker.branches.delete(session(), "main"), Branch)
        assert await heads(worker) == {"c": tip_of("u1")}
        assert await world.redis("ZCARD", keys.of_session(session()).tips) == 1

    play(scenario)


def test_one_of_many_that_make_the_same_branch_at_once_gets_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(8)]
        await workers[0].commit(request("u1 a1 u2 a2"))
        nodes = [tip_of(path) for path in ("u1", "u1 a1", "u1 a1 u2", "u1 a1 u2 a2")]
        made = await asyncio.gather(
            *(worker.branches.create(session(), "mine", nodes[i % 4]) for i, worker in enumerate(workers))
        )
        won = {branch.head for branch in made if isinstance(branch, Branch)}
        assert len(won) == 1 and {(await heads(workers[0]))["mine"]} == won

    play(scenario)


def test_edits_put_off_expiry_and_stop_at_a_deleted_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(Settings(store=Store(session_ttl_s=100)))
        await worker.commit(request("u1 a1"))
        for key in keys.of_session(session()).data:
            await world.redis("PEXPIRE", key, 5_000)
        await worker.branches.create(session(), "b")
        assert await world.redis("PTTL", keys.of_session(session()).bodies) > 90_000
        await worker.delete(session())
        assert await worker.branches.create(session(), "b") is Refused.NO_SESSION
        assert await worker.branches.create(session(tenant=OTHER_TENANT), "b") is Refused.NO_SESSION
        assert await world.redis("EXISTS", *keys.of_session(session()).data) == 0

    play(scenario)


def test_what_a_worker_holds_back_is_stored_before_an_edit(play: Play) -> None:
    async def scenario(world: World) -> None:
        guarded = GuardedStore(world.worker(), Settings())
        await guarded.commit(request("u1"))
        await guarded.commit_reply(reply("u1 c1"))
        assert guarded.pending == 1
        await guarded.settle(session())
        made = await guarded.store.branches.create(session(), "b")
        assert isinstance(made, Branch) and made.head == tip_of("u1 c1")
        await guarded.close(5)

    play(scenario)
