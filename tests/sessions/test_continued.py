"""Requests that go on from a stored path without sending it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy_plugin.admin.histories import wire_history
from proxy_plugin.events import Event, PassedThrough, ignore
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.history.rewrite import read
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import Base
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import (
    OTHER_TENANT,
    TENANT,
    behind,
    ids_of,
    keep,
    kept_under,
    lead,
    opened,
    reply,
    request,
    session,
    tip_of,
)
from tests.sessions.test_store import texts

Play = Callable[[Scenario], None]


async def end(worker: SessionStore, response: str, tenant: str = TENANT) -> Base:
    base = await worker.kept.find(tenant, kept_under(response, tenant))
    assert base is not None
    return base


def test_what_goes_on_is_stored_behind_the_earlier_path_in_one_round_trip(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, other = world.worker(), world.worker()
        await one.commit(request("u1", lead=lead("x")))
        await one.commit(keep(reply("u1 c1", lead=lead("x")), "r1"))
        await one.close()
        base = replace(await end(other, "r1"), lead_count=1)
        assert (base.node, base.depth, base.address, base.concluded) == (tip_of("u1 c1"), 2, session(), False)
        asked = behind(base, "u1 c1", "t1")
        for worker in (other, one):
            done = await worker.commit(asked)
            assert (done.round_trips, done.branch, done.alone) == (1, "main", False)
        answered = await other.commit(keep(behind(base, "u1 c1", "t1 a1", kind="reply"), "r2"))
        assert (answered.new_nodes, answered.round_trips, answered.snapshot_restored) == (1, 1, True)
        await other.close()
        history = await one.reader.history(session())
        assert history is not None
        assert texts(history) == "u1 c1 t1 a1"
        assert [node.depth for node in history.nodes] == [1, 2, 3, 4]
        assert [node.parent for node in history.nodes] == ["", *ids_of("u1 c1 t1")]
        assert (history.message_count, history.session.message_count) == (5, 5)
        assert history.lead == lead("x").body  # what leads the path still does
        assert len({node.subtask for node in history.nodes}) == 1
        following = await other.commit(behind(await end(other, "r2"), "u1 c1 t1 a1", "u2"))
        assert following.snapshot_created
        resent = await one.commit(request("u1 c1 t1 a1 u2 a2 u3", lead=lead("x")))  # by a client that sends it all
        assert (resent.new_nodes, resent.branch) == (2, "main")
        assert [(s.base, s.result) for s in await one.reader.subtasks(session())] == [
            ("", tip_of("u1 c1 t1 a1")),
            (tip_of("u1 c1 t1 a1"), tip_of("u1 c1 t1 a1 u2 a2")),
            (tip_of("u1 c1 t1 a1 u2 a2"), None),
        ]

    play(scenario)


def test_a_session_that_was_found_by_its_opening_goes_on(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        for _ in range(2):
            asked = await worker.commit(request("u1", opened()))
        place = replace(opened(), session_id=asked.session_id)
        await worker.commit(keep(reply("u1 a1", place), "r1"))
        await worker.close()
        for other in (worker, world.worker()):
            done = await other.commit(behind(await end(other, "r1"), "u1 a1", "u2"))
            assert (done.session_id, done.round_trips) == (f"{opened().family}.2", 1)
        assert (await worker.commit(request("u1 a1 u2 a2 u3", opened()))).session_id == asked.session_id

    play(scenario)


def test_a_session_whose_number_is_not_known_yet_is_found_by_the_token(play: Play) -> None:
    async def scenario(world: World) -> None:
        first = keep(reply("u1 a1", opened()), "r1")
        ((_, base),) = first.kept
        asked = behind(base, "u1 a1", "u2")
        opened_by = await world.worker().commit(first)
        done = await world.worker().commit(asked)
        assert (done.session_id, done.alone) == (opened_by.session_id, False)

    play(scenario)


def test_without_its_base_it_is_a_path_of_its_own(play: Play) -> None:
    async def scenario(world: World) -> None:
        gone = keep(reply("u1 a1"), "r1").kept[0][1]
        unopened = keep(reply("u1 a1", opened()), "r1").kept[0][1]
        for worker in (world.worker(), world.worker()):
            done = await worker.commit(behind(gone, "u1 a1", "u2", session()))
            assert (done.session_id, done.alone) == (session().session_id, True)
            answered = await worker.commit(keep(behind(gone, "u1 a1", "u2 a2", session(), kind="reply"), "r2"))
            assert answered.alone
            assert texts(await worker.reader.history(session())) == "u2 a2"
            await worker.close()
        base = await end(world.worker(), "r2")
        assert (base.node, base.depth) == (tip_of("u2 a2"), 2)
        on = await world.worker().commit(behind(base, "u2 a2", "u3"))
        assert (on.new_nodes, on.alone) == (1, False)
        done = await world.worker().commit(replace(behind(unopened, "u1 a1", "u2"), alone=request("u2", opened("u2"))))
        assert (done.session_id, done.alone) == (f"{opened('u2').family}.1", True)

    play(scenario)


def test_large_messages_go_on_too(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.worker().commit(keep(reply("u1 a1"), "r1"))
        worker = world.worker()
        large = {"bodies": [b"x" * 700_000] * 4}
        base = keep(reply("u1 a1"), "r1").kept[0][1]
        done = await worker.commit(behind(base, "u1 a1", "u2 u3", **large))
        assert (done.new_nodes, done.alone) == (2, False)
        gone = replace(base, node=tip_of("u1 a-other"))
        assert (await worker.commit(behind(gone, "u1 a-other", "u4 u5", **large))).alone

    play(scenario)


def test_no_tenant_finds_what_another_one_keeps(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(keep(reply("u1 a1"), "r1"))
        await worker.close()
        assert await worker.kept.find(OTHER_TENANT, kept_under("r1", OTHER_TENANT)) is None
        assert worker.kept.known(kept_under("r1", OTHER_TENANT)) is None
        # Whatever a record says, the session it names is looked for among the tenant's own.
        stolen = await worker.kept.find(OTHER_TENANT, kept_under("r1"))
        assert stolen is not None and stolen.address == session(tenant=OTHER_TENANT)
        done = await world.worker().commit(behind(stolen, "u1 a1", "u2", session(tenant=OTHER_TENANT)))
        assert done.alone

    play(scenario)


def test_what_is_kept_goes_with_its_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(Settings(store=Store(session_ttl_s=100)))
        await worker.commit(keep(reply("u1 a1"), "r1", "r2"))
        await worker.close()
        key = keys.kept(kept_under("r1"))
        assert 90_000 < await world.redis("PTTL", key) <= 100_000
        await world.redis("PEXPIRE", key, 5_000)
        await end(worker, "r1")
        assert await world.redis("PTTL", key) > 90_000  # as the session's own, which the request puts off
        assert await worker.delete(session())
        assert not [key for key in await world.keys() if key.endswith(":kept")]
        assert worker.kept.known(kept_under("r1")) is None
        assert await world.worker().kept.find(TENANT, kept_under("r2")) is None

    play(scenario)


def test_two_that_go_on_from_one_response_are_two_branches(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(keep(reply("u1 a1"), "r1"))
        base = keep(reply("u1 a1"), "r1").kept[0][1]
        done = await asyncio.gather(*(worker.commit(behind(base, "u1 a1", f"u2-{n}")) for n in range(8)))
        assert {committed.new_nodes for committed in done} == {1}
        assert len({committed.branch for committed in done}) == 8

    play(scenario)


def test_a_subtask_that_the_client_names_begins_behind_the_base(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        first = keep(reply("u1 a1", subtask_id="one"), "r1")
        await worker.commit(first)
        asked = behind(first.kept[0][1], "u1 a1", "u2", subtask_id="two")
        done = await worker.commit(asked)
        assert done.marks == (tip_of("u1 a1"),)
        history = await worker.reader.history(session())
        assert history is not None
        assert [node.subtask for node in history.nodes] == [keys.subtask_field("one")] * 2 + [keys.subtask_field("two")]

    play(scenario)


TURNS: list[tuple[list[Any], list[Any]]] = [
    (
        [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "find it"}],
        [
            {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}", "name": "find", "arguments": "{}"}
            for n in (1, 2)
        ],
    ),
    (
        [{"type": "function_call_output", "call_id": f"call_{n}", "output": f"row {n}"} for n in (1, 2)],
        [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "found"}]}],
    ),
    (
        [{"role": "developer", "content": "be quick now"}, {"role": "user", "content": "and the other"}],
        [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "none"}]}],
    ),
    (
        [{"role": "user", "content": "thanks"}],
        [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "welcome"}]}],
    ),
]


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_each_worker_goes_on_from_what_the_other_one_answered(play: Play, named: bool) -> None:
    async def scenario(world: World) -> None:
        workers = [GuardedStore(world.worker(), Settings()) for _ in range(2)]
        pipelines = [Pipeline(Settings(), worker, ignore) for worker in workers]
        headers = {"x-litellm-session-id": "s"} if named else {}
        earlier, shown, everything = "", set(), []
        for number, (new, answer) in enumerate(TURNS):
            worker, pipeline = workers[number % 2], pipelines[number % 2]
            dialect = dialect_of("openai", "responses")
            turn = await pipeline.before(
                Incoming(
                    "responses", new, headers, {}, TENANT, dialect, "enforce", continued=bool(earlier), earlier=earlier
                )
            )
            assert turn is not None and turn.messages is new
            await pipeline.after(turn, answer, complete=True, response_id=f"resp_{number}")
            await worker.close(5)  # what goes on behind the caller's back is done
            earlier = kept_under(f"resp_{number}")
            shown.add(turn.headers["x-proxy-plugin-session"])
            everything += [*new, *answer]
        place = session(shown.pop())
        assert not shown
        history = await workers[0].store.reader.history(place)
        assert history is not None and wire_history(history).messages == everything
        assert history.message_count == history.session.message_count == 11
        whole = read(everything, "responses")
        assert whole is not None
        assert [node.id for node in history.nodes] == list(whole.node_ids)[1:]
        starts = [subtask.first for subtask in await workers[1].store.reader.subtasks(place)]
        assert starts == [whole.node_ids[index] for index in (1, 6, 9)]
        assert [s.state for s in await workers[1].store.reader.subtasks(place)] == ["completed"] * 3

    play(scenario)


def test_only_what_is_really_sent_is_put_behind_a_stored_path(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = GuardedStore(world.worker(), Settings())
        events: list[Event] = []
        pipeline = Pipeline(Settings(), worker, events.append)
        headers = {"x-litellm-session-id": "s"}
        asked = [{"role": "user", "content": "hello"}]
        first = Incoming("chat", asked, headers, {}, TENANT, dialect_of("openai"), "enforce")
        turn = await pipeline.before(first)
        assert turn is not None and "x-proxy-plugin-resumed" not in turn.headers
        await pipeline.after(turn, [{"role": "assistant", "content": "hi"}], complete=True)
        new = [{"role": "user", "content": "go on"}]
        lost = replace(first, wire=new, headers={**headers, "x-proxy-plugin-resume": "head"})
        for sent in (replace(lost, mode="audit"), replace(lost, api="responses", continued=True)):
            turn = await pipeline.before(sent)
            assert turn is not None and turn.messages is new
            assert turn.headers["x-proxy-plugin-resumed"] == "0"
        assert [event.reason for event in events if isinstance(event, PassedThrough)] == ["resume_unavailable"] * 2
        await worker.close(5)

    play(scenario)
