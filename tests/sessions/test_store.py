from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy_plugin.events import SnapshotCreated, SnapshotRestored, SubtaskChanged
from proxy_plugin.sessions import keys, store
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.sessions.requests import Request
from proxy_plugin.sessions.tree import History
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import (
    OTHER_TENANT,
    START_MS,
    TENANT,
    ids_of,
    keep,
    lead,
    opened,
    reply,
    request,
    session,
    tip_of,
)

Play = Callable[[Scenario], None]


def texts(history: History | None) -> str:
    """The path that a history holds, as in `paths`."""
    assert history is not None
    return " ".join(node.body.decode()[9:-2] if node.body is not None else "?" for node in history.nodes)


async def branches(worker: store.SessionStore) -> dict[str, str]:
    return {branch.name: branch.head for branch in await worker.reader.branches(session())}


def test_a_conversation_is_read_back_as_it_was_committed(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1", lead=lead("be brief")))
        await worker.commit(reply("u1 c1", lead=lead("be brief")))
        await worker.commit(request("u1 c1 t1", lead=lead("be brief")))
        await worker.commit(reply("u1 c1 t1 a1", lead=lead("be brief"), incomplete=True))
        history = await worker.reader.history(session())
        assert history is not None
        assert texts(history) == "u1 c1 t1 a1"
        assert [node.role for node in history.nodes] == ["user", "assistant", "tool", "assistant"]
        assert [node.incomplete for node in history.nodes] == [False, False, False, True]
        assert [node.parent for node in history.nodes] == ["", *ids_of("u1 c1 t1")]
        assert [node.depth for node in history.nodes] == [1, 2, 3, 4]
        assert history.lead == lead("be brief").body
        assert history.message_count == 5
        assert history.session.message_count == 5
        assert history.head == history.session.head == tip_of("u1 c1 t1 a1")
        assert history.missing == ()

    play(scenario)


def test_a_commit_writes_only_what_is_new_in_one_round_trip(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, path = world.worker(), "u0"
        first = await worker.commit(request(path))
        assert (first.new_nodes, first.round_trips) == (1, 1)
        for turn in range(20):
            answered = await worker.commit(reply(f"{path} a{turn}"))
            path += f" a{turn} u{turn + 1}"
            asked = await worker.commit(request(path))
            assert (answered.new_nodes, answered.round_trips, asked.new_nodes, asked.round_trips) == (
                1,
                1,
                1,
                1,
            )
        sent = await bytes_received(world)
        await worker.commit(reply(f"{path} a"))
        usual = await bytes_received(world) - sent
        assert usual < 3_000  # the path has 42 messages: their ids alone would be 1.3 kB

    play(scenario)


async def bytes_received(world: World) -> int:
    stats = await world.redis("INFO", "stats")
    stats = stats.decode() if isinstance(stats, bytes) else stats
    if isinstance(stats, dict):
        return int(stats["total_net_input_bytes"])
    return int(next(line for line in stats.splitlines() if line.startswith("total_net_input_bytes")).split(":")[1])


def test_another_worker_continues_in_one_round_trip(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, other = world.worker(), world.worker()
        await one.commit(request("u1", lead=lead("x")))
        await one.commit(reply("u1 a1", lead=lead("x")))
        asked = await other.commit(request("u1 a1 u2", lead=lead("x")))
        assert (asked.new_nodes, asked.round_trips) == (1, 1)

    play(scenario)


def test_what_a_worker_wrongly_takes_as_stored_is_found_missing_and_written(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2", lead=lead("x")))
        await world.redis("FLUSHALL")
        done = await worker.commit(request("u1 a1 u2 a2 u3", lead=lead("x")))
        assert done.new_nodes == 5
        assert texts(await worker.reader.history(session())) == "u1 a1 u2 a2 u3"
        again = await world.worker().commit(request("u1 a1 u2 a2 u3", lead=lead("x")))
        assert (again.new_nodes, again.round_trips) == (0, 1)

    play(scenario)


def test_a_commit_whose_base_is_missing_writes_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        attempt = store._Attempt(request("u1 a1 u2"), number=0, base=2, lead_stored=True)
        answer = await worker._run(attempt, check=False, bodies={2: b"10x"})
        assert answer == [b"missing", b"1", b"0"]
        assert await world.keys() == []

    play(scenario)


def test_a_missing_lead_is_sent_again(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2", lead=lead("monday")))
        await worker.commit(reply("u1 a1 u2 a2", lead=lead("monday")))
        other = await world.worker().commit(request("u1 a1 u2 a2 u3", lead=lead("tuesday")))
        assert (other.new_nodes, other.round_trips) == (1, 2)
        history = await worker.reader.history(session())
        assert history is not None and history.lead == lead("tuesday").body
        before = await worker.reader.history(session(), node=tip_of("u1 a1 u2"))
        assert before is not None and before.lead == lead("monday").body

    play(scenario)


def test_resending_a_prefix_moves_no_head(play: Play) -> None:
    async def scenario(world: World) -> None:
        for worker in (world.worker(), world.worker()):
            await worker.commit(request("u1 a1 u2 a2 u3"))
            for prefix in ("u1", "u1 a1 u2", "u1 a1 u2 a2 u3"):
                assert (await worker.commit(request(prefix))).new_nodes == 0
            assert await branches(worker) == {"main": tip_of("u1 a1 u2 a2 u3")}

    play(scenario)


def test_an_edited_and_a_regenerated_message_are_branches(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2"))
        await worker.commit(reply("u1 a1 u2 a2"))
        edited = await worker.commit(request("u1 a1 u2-edited"))
        assert edited.branch == "branch-2"
        regenerated = await worker.commit(reply("u1 a1 u2 a2-other"))
        assert regenerated.branch == "branch-3"
        assert await branches(worker) == {
            "main": tip_of("u1 a1 u2 a2"),
            "branch-2": tip_of("u1 a1 u2-edited"),
            "branch-3": tip_of("u1 a1 u2 a2-other"),
        }
        assert texts(await worker.reader.history(session())) == "u1 a1 u2 a2-other"
        assert texts(await worker.reader.history(session(), branch="main")) == "u1 a1 u2 a2"
        assert texts(await worker.reader.history(session(), node=tip_of("u1 a1 u2-edited")[:12])) == "u1 a1 u2-edited"
        assert (await worker.commit(request("u1 a1 u2 a2 u3"))).branch == "main"
        assert texts(await worker.reader.history(session())) == "u1 a1 u2 a2 u3"

    play(scenario)


def test_a_title_request_disturbs_nothing_until_it_is_continued(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2"))
        assert (await worker.commit(request("u-title"))).branch == "branch-2"
        await worker.commit(reply("u-title a-title"))
        await worker.commit(reply("u-title a-title-again"))
        info = await worker.reader.session(session())
        assert info is not None and (info.branch, info.head) == ("main", tip_of("u1 a1 u2"))
        await worker.commit(reply("u1 a1 u2 a2"))
        assert texts(await worker.reader.history(session())) == "u1 a1 u2 a2"
        await worker.commit(request("u-title a-title u-more"))
        assert texts(await worker.reader.history(session())) == "u-title a-title u-more"

    play(scenario)


def test_a_new_root_that_continues_a_conversation_is_current(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2 a2 u3"))
        await worker.commit(request("u2 a2 u3 a3 u4"))  # a client that forgets its oldest messages
        assert texts(await worker.reader.history(session())) == "u2 a2 u3 a3 u4"

    play(scenario)


def test_unknown_sessions_branches_and_nodes_are_none(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        assert await worker.reader.session(session()) is None
        assert await worker.reader.history(session()) is None
        await worker.commit(request("u1"))
        assert await worker.reader.history(session(), branch="none") is None
        assert await worker.reader.history(session(), branch="\ud800") is None
        for ref in ("", "0" * 12, "0" * 32, "*" * 12, ids_of("u1")[0][:11], ids_of("u1")[0].upper(), "x"):
            assert await worker.reader.node(session(), ref) is None
            assert await worker.reader.history(session(), node=ref) is None

    play(scenario)


def test_a_node_is_found_by_the_beginning_of_its_id_unless_two_begin_so(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        node = await worker.reader.node(session(), tip_of("u1")[:12])
        assert node is not None and (node.id, node.body) == (tip_of("u1"), b'{"text":"u1"}')
        twin = tip_of("u1")[:20] + "0" * 12
        await worker.commit(request("u9", ids=[twin]))
        assert await worker.reader.node(session(), tip_of("u1")[:20]) is None
        exact = await worker.reader.node(session(), twin)
        assert exact is not None and exact.id == twin

    play(scenario)


def test_a_session_belongs_to_its_tenant(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        assert await worker.reader.session(session(tenant=OTHER_TENANT)) is None
        assert await worker.reader.node(session(tenant=OTHER_TENANT), tip_of("u1")) is None
        assert await worker.delete(session(tenant=OTHER_TENANT)) is False
        done = await worker.commit(request("u1", session(tenant=OTHER_TENANT)))
        assert done.new_nodes == 1
        mine, theirs = await worker.index.sessions(TENANT), await worker.index.sessions(OTHER_TENANT)
        assert [info.message_count for info in mine.sessions] == [2]
        assert [info.message_count for info in theirs.sessions] == [1]
        everybody = await worker.index.sessions(None)
        assert {info.tenant for info in everybody.sessions} == {TENANT, OTHER_TENANT}
        assert everybody.total == 2

    play(scenario)


@pytest.mark.parametrize("hostile", ["{x}", "a\r\nDEL *", "x" * 10_000, "\ud800", "ключ", "*", "[a-z]"])
def test_hostile_ids_texts_and_names_are_kept_and_harmless(play: Play, hostile: str) -> None:
    async def scenario(world: World) -> None:
        worker, place = world.worker(), session(hostile)
        commit = request("u1 a1 u2", place, agent=hostile, agent_reason=hostile, subtask_id=hostile,
                         subtask_description=hostile, subtask_agent=hostile)  # fmt: skip
        await worker.commit(commit)
        await worker.commit(reply("u1 a1 u2 a2", place, subtask_id=hostile))
        assert texts(await worker.reader.history(place)) == "u1 a1 u2 a2"
        info = await worker.reader.session(place)
        assert info is not None and info.current_agent == hostile.encode("utf-8", "replace").decode()
        assert [subtask.state for subtask in await worker.reader.subtasks(place)] == ["completed"]
        listed = await worker.index.sessions(TENANT)
        assert [found.session_id for found in listed.sessions] == [place.session_id]
        for key in await world.keys():
            assert hostile not in key
            assert key.isascii() and len(key) < 100

    play(scenario)


def test_every_key_of_a_session_expires_and_each_commit_puts_that_off(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(Settings(store=Store(session_ttl_s=100)))
        token = request("u1").token
        done = await worker.commit(request("u1", opened(), token=token, lead=lead("x")))
        place = session(done.session_id)
        rest = {"token": token, "lead": lead("x"), "agent": "a", "agent_reason": "r"}
        await worker.commit(keep(reply("u1 a1", place, **rest), "resp_1"))
        worker.flights.renamed("0" * 16)  # calls are noted under it
        asked = request("u1 a1 u2", place, subtask_id="s", **rest | {"token": "call"})
        worker.flights.took_off(asked)
        await worker.commit(asked)
        await worker.profiles.change(place, Profile("t", "d", {"k": 1}, ["user:alice"]))
        await worker.requests.write(Request(place, "0" * 16, "", (), b"", lambda _: (), 0, b"{}", {}))
        await worker.index.sessions(TENANT)
        await worker.close()  # what goes on behind the caller's back is done
        found = await world.keys()
        assert set(keys.of_session(place).data) < set(found)
        for key in found:
            assert 90_000 < await world.redis("PTTL", key) <= 100_000, key
            await world.redis("PEXPIRE", key, 5_000)
        await worker.commit(reply("u1 a1 u2 a2", place, subtask_id="s", **rest))
        for key in keys.of_session(place).data:
            assert await world.redis("PTTL", key) > 90_000, key

    play(scenario)


def test_a_deleted_session_is_gone_and_no_late_commit_brings_it_back(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2", lead=lead("x"), agent="a"))
        assert await worker.delete(session()) is True
        assert await world.keys() == [keys.of_session(session()).tomb]
        late = await worker.commit(reply("u1 a1 u2 a2"))
        assert late.deleted and late.new_nodes == 0
        large = await worker.commit(request("u1", bodies=[b"x" * 3_000_000]))
        assert large.deleted
        assert await worker.reader.session(session()) is None
        assert (await worker.index.sessions(TENANT)).total == 0
        assert 0 < await world.redis("PTTL", keys.of_session(session()).tomb) <= 60_000
        assert await worker.delete(session()) is False
        await world.redis("DEL", keys.of_session(session()).tomb)
        assert (await worker.commit(request("u1 a1 u2"))).new_nodes == 3

    play(scenario)


def test_a_large_import_becomes_visible_as_a_whole(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_BYTES", 5_000)

    async def scenario(world: World) -> None:
        worker, path = world.worker(), " ".join(f"u{i} a{i}" for i in range(100))
        bodies = [b'{"text":"%s"}' % (name.encode() * 50) for name in path.split()]
        run, seen = worker._connection.run, []

        async def watched(name: str, key_list: Any, args: Any) -> Any:
            seen.append((name, await worker.reader.session(session())))
            return await run(name, key_list, args)

        monkeypatch.setattr(worker._connection, "run", watched)
        done = await worker.commit(request(path, bodies=bodies))
        assert [name for name, _ in seen].count("stage") > 2
        assert all(info is None for _, info in seen)
        assert done.new_nodes == 200
        history = await worker.reader.history(session())
        assert history is not None
        assert [node.body for node in history.nodes] == bodies

    play(scenario)


def test_a_large_conversation_found_by_its_opening(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_BYTES", 100)

    async def scenario(world: World) -> None:
        path = " ".join(f"u{i} a{i}" for i in range(50))
        done = await world.worker().commit(request(path, opened()))
        again = await world.worker().commit(request(path + " u-more", opened()))
        assert (again.session_id, again.new_nodes) == (done.session_id, 1)
        assert texts(await world.worker().reader.history(session(done.session_id))) == path + " u-more"
        assert sum(key.endswith(":meta") for key in await world.keys()) == 1

    play(scenario)


def test_long_paths_are_written_and_read_in_pieces(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_ITEMS", 7)

    async def scenario(world: World) -> None:
        path = " ".join(f"u{i} a{i}" for i in range(30))
        worker = world.worker()
        await worker.commit(request(path))
        for cut in range(0, 60, 4):
            await worker.commit(request(" ".join(path.split()[:cut]) + f" u-{cut}"))
        assert texts(await worker.reader.history(session(), branch="main")) == path
        assert len(await worker.reader.branches(session())) == 16
        await world.redis("DEL", *[key for key in await world.keys() if key.endswith((":nodes", ":bodies"))])
        await worker.commit(request(path))
        assert texts(await worker.reader.history(session(), branch="main")) == path

    play(scenario)


def test_ten_thousand_messages(play: Play) -> None:
    async def scenario(world: World) -> None:
        path = " ".join(f"u{i} a{i}" for i in range(5_000))
        worker = world.worker()
        assert (await worker.commit(request(path))).new_nodes == 10_000
        assert texts(await worker.reader.history(session())) == path
        more = await worker.commit(request(path + " u"))
        assert (more.new_nodes, more.round_trips) == (1, 1)

    play(scenario)


def test_damage_costs_the_damaged_node_alone(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker, names = world.worker(), keys.of_session(session())
        await worker.commit(request("u1 a1 u2 a2"))
        await world.redis("HDEL", names.bodies, tip_of("u1"))
        await world.redis("HSET", names.bodies, tip_of("u1 a1"), b"\xff?")
        history = await worker.reader.history(session())
        assert texts(history) == "? ? u2 a2"
        assert history is not None and set(history.missing) == set(ids_of("u1 a1"))
        await world.redis("HSET", names.nodes, tip_of("u1 a1"), b"nonsense")
        history = await worker.reader.history(session())
        assert texts(history) == "? u2 a2"
        assert history is not None and set(history.missing) == set(ids_of("u1 a1"))
        assert await worker.reader.node(session(), tip_of("u1 a1")) is None

    play(scenario)


def test_listing_pages_newest_first_without_gap_or_repeat(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        now = now_ms()
        places = [session(f"s-{i:02d}", tenant) for i in range(12) for tenant in (TENANT, OTHER_TENANT)]
        for i, place in enumerate(places):
            await worker.commit(request("u1", place, at_ms=now + i // 5))  # some share a millisecond
        for tenant, wanted in ((TENANT, 12), (None, 24)):
            seen, cursor = [], None
            while True:
                page = await worker.index.sessions(tenant, limit=5, cursor=cursor)
                assert page.total == wanted
                seen += [(info.last_activity_ms, info.tenant, info.session_id) for info in page.sessions]
                cursor = page.cursor
                if cursor is None:
                    break
            assert len(set(seen)) == wanted
            assert seen == sorted(seen, reverse=True)
            offset = await worker.index.sessions(tenant, limit=3, offset=4)
            assert [info.session_id for info in offset.sessions] == [entry[2] for entry in seen[4:7]]
        assert (await worker.index.sessions(TENANT, cursor="nonsense")).total == 12

    play(scenario)


def test_listing_sweeps_what_has_expired(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        now = now_ms()
        for i in range(4):
            await worker.commit(request("u1", session(f"s-{i}"), at_ms=now + i))
        await worker.commit(request("u1", session("old"), at_ms=START_MS - 10**11))
        await worker.index.sessions(TENANT)
        await world.redis("DEL", keys.of_session(session("s-1")).meta)
        page = await worker.index.sessions(TENANT, limit=2)
        assert [info.session_id for info in page.sessions] == ["s-3", "s-2"]
        rest = await worker.index.sessions(TENANT, limit=2, cursor=page.cursor)
        assert ([info.session_id for info in rest.sessions], rest.total, rest.cursor) == (["s-0"], 3, None)
        assert await world.redis("ZCARD", keys.index(TENANT)) == 3

    play(scenario)


def test_agents_switch_once_each(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u0"))
        info = await worker.reader.session(session())
        assert info is not None and (info.current_agent, info.agent_history, info.switch_count) == (
            None,
            (),
            0,
        )
        await worker.commit(request("u0 a0 u1", agent="planner", agent_reason="start", at_ms=START_MS))
        await worker.commit(reply("u0 a0 u1 a1", agent="planner"))
        await worker.commit(request("u0 a0 u1 a1 u2", agent='coder "x"', at_ms=START_MS + 1_500))
        await worker.commit(request("u0 a0 u1 a1 u2 a2 u3"))
        info = await worker.reader.session(session())
        assert info is not None
        assert info.current_agent == 'coder "x"'
        assert info.agent_history == (
            {"from": None, "to": "planner", "reason": "start", "timestamp": "2027-01-15T08:00:00.000Z"},
            {"from": "planner", "to": 'coder "x"', "reason": None, "timestamp": "2027-01-15T08:00:01.500Z"},
        )
        assert (info.switch_count, info.last_switch_ms) == (2, START_MS + 1_500)

    play(scenario)


def test_the_history_of_agents_is_bounded(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        for turn in range(1_010):
            await worker.commit(request("u1", agent=f"agent-{turn}"))
        info = await worker.reader.session(session())
        assert info is not None and info.switch_count == len(info.agent_history) == 1_000
        assert (info.agent_history[-1]["from"], info.current_agent) == ("agent-1008", "agent-1009")

    play(scenario)


def test_many_writers_on_one_session_lose_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(8)]
        await workers[0].commit(request("u0 a0 u1"))

        async def write(writer: int) -> list[str]:
            worker, path = workers[writer % 8], f"u0 a0 u1 a{writer}"
            await worker.commit(reply(path))
            for turn in range(5):
                path += f" u{writer}.{turn}"
                await worker.commit(request(path))
                path += f" a{writer}.{turn}"
                await worker.commit(reply(path))
            return ids_of(path)

        written = await asyncio.gather(*(write(writer) for writer in range(32)))
        for ids in written:
            history = await workers[1].reader.history(session(), node=ids[-1])
            assert history is not None and [node.id for node in history.nodes] == ids
            assert history.missing == ()
        assert await world.redis("HLEN", keys.of_session(session()).nodes) == 3 + 32 * 11
        assert {branch.head for branch in await workers[0].reader.branches(session())} == {ids[-1] for ids in written}

    play(scenario)


def test_a_commit_that_runs_twice_changes_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        async def state() -> list[Any]:
            found = []
            for key in await world.keys():
                kind: bytes = await world.redis("TYPE", key)
                reads: dict[bytes, list[Any]] = {
                    b"hash": ["HGETALL", key],
                    b"zset": ["ZRANGE", key, 0, -1],
                    b"list": ["LRANGE", key, 0, -1],
                    b"set": ["SMEMBERS", key],
                    b"string": ["GET", key],
                }
                found.append((key, await world.redis(*reads[kind])))
            return [entry for entry in found if not entry[0].endswith((":meta", "tenants", "sessions"))]

        commits = [request("u1 a1 u2", subtask_id="s", agent="x"), reply("u1 a1 u2 a2", subtask_id="s")]
        commits += [request("u1 a1 u-edit"), request("u1", opened()), reply("u1 a1", opened())]
        for commit in commits:
            await world.worker().commit(commit)
            once = await state()
            again = await world.worker().commit(commit)
            assert (again.new_nodes, again.snapshot_created, again.snapshot_restored) == (0, False, False)
            assert await state() == once

    play(scenario)


def test_events_tell_of_snapshots_and_subtasks(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        asked = request("u1", size_bytes=4321)
        await worker.commit(asked)
        await worker.commit(replace(reply("u1 a1"), at_ms=asked.at_ms + 2500))
        assert world.events == [
            *(SnapshotCreated(4321), SubtaskChanged("in_progress")),
            *(SnapshotRestored(), SubtaskChanged("completed", 2.5)),
        ]

    play(scenario)
