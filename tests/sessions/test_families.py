"""Conversations that are found by how they open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from proxy_plugin.sessions import keys
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, TENANT, opened, reply, request, session, tip_of

Play = Callable[[Scenario], None]


def test_each_opening_is_a_session_and_what_follows_joins_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, family = world.worker(), opened().family
        first = await worker.commit(request("u1", opened()))
        second = await worker.commit(request("u1", opened()))
        assert [first.session_id, second.session_id] == [f"{family}.1", f"{family}.2"]
        assert (first.round_trips, second.round_trips) == (1, 1)
        answered = await worker.commit(reply("u1 a-first", replace(opened(), session_id=first.session_id)))
        other = await worker.commit(reply("u1 a-second", replace(opened(), session_id=second.session_id)))
        assert (answered.round_trips, other.round_trips) == (1, 1)
        for place in (worker, world.worker()):
            joined = await place.commit(request("u1 a-first u2", opened()))
            assert joined.session_id == first.session_id
            joined = await place.commit(request("u1 a-second u2", opened()))
            assert joined.session_id == second.session_id
        assert (await worker.index.sessions(TENANT)).total == 2

    play(scenario)


def test_a_first_reply_that_nobody_knows_opens_a_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, other = world.worker(), world.worker()
        opened_by = await one.commit(request("u1 a1 u2", opened()))
        joined = await other.commit(request("u1 a1 u2 a2 u3", opened()))
        assert joined.session_id == opened_by.session_id
        assert (opened_by.new_nodes, joined.new_nodes) == (3, 2)

    play(scenario)


def test_two_that_also_get_the_same_first_reply_go_on_in_the_newer_one(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, places = world.worker(), []
        for _ in range(2):
            asked = await worker.commit(request("u1", opened()))
            places.append(asked.session_id)
            await worker.commit(reply("u1 a1", replace(opened(), session_id=asked.session_id)))
        joined = await world.worker().commit(request("u1 a1 u2", opened()))
        other = await world.worker().commit(request("u1 a1 u2-other", opened()))
        assert joined.session_id == other.session_id == places[1]
        assert (joined.branch, other.branch) == ("main", "branch-2")

    play(scenario)


def test_a_reply_finds_the_session_of_its_request_by_the_token(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        asked, unrelated = request("u1", opened()), request("u1", opened())
        answer = replace(reply("u1 a1", opened()), token=asked.token)
        first = await worker.commit(asked)
        await worker.commit(unrelated)
        # The caller did not wait for the request's commit, so it does not know the number.
        late = await world.worker().commit(answer)
        assert (late.session_id, late.new_nodes) == (first.session_id, 1)

    play(scenario)


def test_a_request_that_comes_after_its_reply_adds_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        asked = request("u1", opened())
        answer = replace(reply("u1 a1", opened()), token=asked.token)
        first = await world.worker().commit(answer)
        after = await world.worker().commit(asked)
        assert (after.session_id, after.new_nodes) == (first.session_id, 0)
        assert sum(key.endswith(":meta") for key in await world.keys()) == 1

    play(scenario)


def test_the_shown_id_addresses_the_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        shown = (await worker.commit(request("u1 a1 u2", opened()))).session_id
        named = await worker.commit(request("u1 a1 u2 a2 u3", session(shown)))
        assert named.new_nodes == 2
        assert (await worker.commit(request("u1 a1 u2 a2 u3 a3 u4", opened()))).new_nodes == 2
        assert await worker.reader.session(session(shown, OTHER_TENANT)) is None

    play(scenario)


def test_a_number_that_a_client_took_is_not_given_out(play: Play) -> None:
    async def scenario(world: World) -> None:
        taken = session(f"{opened().family}.1")
        await world.worker().commit(request("u-other", taken))
        done = await world.worker().commit(request("u1", opened()))
        assert done.session_id == f"{opened().family}.2"
        history = await world.worker().reader.history(taken)
        assert history is not None and history.head == tip_of("u-other")

    play(scenario)


def test_openings_at_the_same_time_are_sessions_of_their_own(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(4)]
        done = await asyncio.gather(*(workers[i % 4].commit(request("u1", opened())) for i in range(32)))
        assert len({committed.session_id for committed in done}) == 32
        assert max(committed.round_trips for committed in done) <= 3

    play(scenario)


def test_a_deleted_session_is_not_opened_again_by_its_own_reply(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, asked = world.worker(), request("u1", opened())
        place = session((await worker.commit(asked)).session_id)
        assert await worker.delete(place)
        answer = replace(reply("u1 a1", opened()), token=asked.token)
        assert (await world.worker().commit(answer)).deleted
        assert await worker.reader.session(place) is None
        assert (await worker.commit(request("u1", opened()))).session_id != place.session_id
        for key in await world.keys():
            if keys.token(place, asked.token) == key:
                assert 0 < await world.redis("PTTL", key) <= 60_000

    play(scenario)


def test_families_of_two_tenants_do_not_meet(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        mine = await worker.commit(request("u1 a1 u2", opened()))
        theirs = await worker.commit(request("u1 a1 u2", opened(tenant=OTHER_TENANT)))
        assert theirs.new_nodes == 3
        assert mine.session_id == theirs.session_id  # the same text, the same number, behind two walls
        await worker.delete(session(mine.session_id))
        assert await worker.reader.session(session(theirs.session_id, OTHER_TENANT)) is not None

    play(scenario)
