"""What the store does, in scenarios that run on any deployment: one server, a cluster, sentinels, TLS, an ACL user."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_bytes
from typing import Any

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.edits import Refused
from proxy_plugin.sessions.feed import Quiet
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.sessions.snapshots import Restored
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.subtasks import Place, Plan, Refusal
from proxy_plugin.sessions.transfer import SessionExists
from proxy_plugin.sessions.tree import Branch, SessionInfo, Snapshot, StoredNode, Subtask
from proxy_plugin.settings import Settings, Store
from tests.sessions.paths import (
    OTHER_TENANT,
    TENANT,
    behind,
    ids_of,
    keep,
    kept_under,
    lead,
    meant,
    opened,
    reply,
    request,
    session,
    spoken,
    tip_of,
)

PLACES = [session(f"s-{number}", TENANT if number % 2 else OTHER_TENANT) for number in range(12)]
"""Enough to meet all three masters of a cluster."""


class Workers:
    """Workers that share a store, each with a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connections: list[Connection] = []
        self._stores: list[SessionStore] = []

    def connection(self) -> Connection:
        connection = Connection.open(Settings(store=Store(url=self._url)), {})
        assert connection is not None
        self._connections.append(connection)
        return connection

    def worker(self, settings: Settings | None = None) -> SessionStore:
        self._stores.append(SessionStore(self.connection(), settings or Settings()))
        return self._stores[-1]

    async def close(self) -> None:
        for store in self._stores:
            await store.close()
        for connection in self._connections:
            await connection.close()


Essential = Callable[[Workers], Awaitable[None]]


def run(url: str, essential: Essential, *, empty_by: str | None = None) -> None:
    """Plays it on an empty store. `empty_by`: address of a user who may empty it, where `url`'s may not."""

    async def play() -> None:
        owner, workers = Workers(empty_by or url), Workers(url)
        try:
            await owner.connection().command("flushall")
            await essential(workers)
        finally:
            await workers.close()
            await owner.close()

    asyncio.run(play())


async def say(worker: SessionStore, path: str, place: Address | None = None, **said: Any) -> None:
    make = reply if path.split()[-1][0] in "ac" else request
    await worker.commit(spoken(make(path, place, at_ms=now_ms(), **said), path))


async def path_of(worker: SessionStore, place: Address | None = None, **where: Any) -> list[str]:
    history = await worker.reader.history(place or session(), **where)
    assert history is not None and not history.missing
    return [node.id for node in history.nodes]


def nodes(path: str) -> list[str]:
    return meant(path)[0]


async def a_conversation_is_stored_once(workers: Workers) -> None:
    one, other = workers.worker(), workers.worker()
    for place in PLACES:
        await one.commit(request("u1", place, lead=lead("x"), agent="a"))
        done = await one.commit(reply("u1 a1", place, lead=lead("x"), agent="a"))
        assert (done.new_nodes, done.round_trips) == (1, 1)
        again = await other.commit(request("u1 a1 u2", place, subtask_id="s"))
        assert (again.new_nodes, again.marks) == (1, (tip_of("u1 a1"),))
        assert (await other.commit(request("u1 a1 u2", place, subtask_id="s"))).new_nodes == 0
        history = await other.reader.history(place)
        assert history is not None and history.message_count == 4 - 1
        assert [node.id for node in history.nodes] == ids_of("u1 a1 u2")
        assert await one.reader.node(place, tip_of("u1")[:12]) is not None


async def a_first_request_that_is_large_is_stored_whole(workers: Workers) -> None:
    worker = workers.worker()
    for place in PLACES[:4]:
        large = [b'["%s"]' % b64encode(token_bytes(700_000)) for _ in range(5)]  # barely compresses
        assert (await worker.commit(request("u1 a1 u2 a2 u3", place, bodies=large))).new_nodes == 5
        history = await worker.reader.history(place)
        assert history is not None and [node.body for node in history.nodes] == large


async def branches(workers: Workers) -> None:
    worker = workers.worker()
    await say(worker, "u1")
    await say(worker, "u1 a1")
    await say(worker, "u1 a2")
    assert {b.name: b.head for b in await worker.reader.branches(session())} == {
        "main": nodes("u1 a1")[-1],
        "branch-2": nodes("u1 a2")[-1],
    }
    made = await worker.branches.create(session(), "mine", nodes("u1")[0][:12])
    assert isinstance(made, Branch) and made.head == nodes("u1")[0]
    assert await worker.branches.create(session(), "mine") is Refused.NAME_TAKEN
    assert not isinstance(await worker.branches.switch(session(), "mine"), Refused)
    assert await path_of(worker) == nodes("u1")
    assert not isinstance(await worker.branches.rename(session(), "mine", "ours"), Refused)
    assert await worker.branches.delete(session(), "ours") is Refused.BRANCH_CURRENT
    assert isinstance(await worker.branches.delete(session(), "main"), Branch)
    assert isinstance(await worker.reader.node(session(), nodes("u1 a1")[-1]), StoredNode)
    tree, damaged = await worker.reader.tree(session())
    assert {node.id for node in tree} == {*nodes("u1 a1"), *nodes("u1 a2")} and not damaged


async def snapshots_and_restore(workers: Workers) -> None:
    worker = workers.worker()
    await say(worker, "u1")
    await say(worker, "u1 a1")
    snapshot = await worker.snapshots.create(session(), "before", pin=True)
    assert isinstance(snapshot, Snapshot)
    await say(worker, "u1 a1 u2")
    await say(worker, "u1 a1 u2 a2")
    restored = await workers.worker().snapshots.restore(session(), snapshot.snapshot_id, delete=True)
    assert isinstance(restored, Restored) and restored.message_count == 3
    assert await path_of(worker) == [*nodes("u1 a1"), restored.head]
    assert await path_of(worker, branch="main") == nodes("u1 a1 u2 a2")
    assert await worker.snapshots.restore(session(), snapshot.snapshot_id) is Refused.NO_SNAPSHOT
    other = await worker.snapshots.create(session(), "one more", node=nodes("u1")[0])
    assert isinstance(other, Snapshot)
    assert isinstance(await worker.snapshots.delete(session(), other.snapshot_id), Snapshot)
    assert all(one.auto for one in await worker.reader.snapshots(session()))


async def subtasks(workers: Workers) -> None:
    worker, other = workers.worker(), workers.worker()
    await say(worker, "u1")
    await say(worker, "u1 a1")

    async def begun(store: SessionStore, name: str, *needs: str) -> Subtask:
        begun = await store.subtasks.begin(session(), Plan(name, f"do {name}", "coder", needs))
        assert not isinstance(begun, Refusal) and begun[1]
        return begun[0]

    first = await begun(worker, "first")
    assert (first.state, first.base) == ("in_progress", nodes("u1 a1")[-1])
    early = await other.subtasks.begin(session(), Plan("second", depends_on=("first",)))
    assert isinstance(early, Refusal) and not early.unknown
    done = await other.subtasks.complete(session(), "first", "all good")
    assert isinstance(done, Subtask) and (done.state, done.result_text) == ("completed", "all good")
    await begun(worker, "second", "first")
    standing = await other.subtasks.standing(session(), Plan("second", depends_on=("first",)), Place((), 0))
    assert standing.given == ("first",)
    for attempt in (1, 2, 3):
        assert (await begun(worker, "third")).attempts == attempt
        failed = await other.subtasks.fail(session(), "third", "broken")
        assert isinstance(failed, Subtask) and failed.error_message == "broken"
    assert isinstance(await worker.subtasks.begin(session(), Plan("third")), Refusal)
    back = await worker.subtasks.roll_back(session(), "second")
    assert isinstance(back, Subtask) and back.state == "rolled_back"
    states = {subtask.id: subtask.state for subtask in await other.reader.subtasks(session()) if subtask.explicit}
    assert states == {"first": "completed", "second": "rolled_back", "third": "failed"}


async def responses_that_a_request_goes_on_from(workers: Workers) -> None:
    """What leads to a session stands in another slot than the session."""
    worker = workers.worker()
    for number, place in enumerate(PLACES):
        await worker.commit(request("u1", place))
        await worker.commit(keep(reply("u1 a1", place), f"r-{number}"))
    await worker.kept.close()
    other = workers.worker()
    for number, place in enumerate(PLACES):
        base = await other.kept.find(TENANT, kept_under(f"r-{number}"))
        if place.tenant != TENANT:
            assert base is None
            continue
        assert base is not None and base.address == place
        on = await other.commit(behind(base, "u1 a1", "u2"))
        assert (on.new_nodes, on.round_trips, on.alone) == (1, 1, False)
        assert await other.delete(base.address)
        assert await other.kept.find(TENANT, kept_under(f"r-{number}")) is None


async def a_conversation_without_an_id_is_found_by_its_opening(workers: Workers) -> None:
    worker, other = workers.worker(), workers.worker()
    first = await worker.commit(request("u1", opened()))
    await worker.commit(reply("u1 a1", identity.address(TENANT, first.session_id)))
    second = await other.commit(request("u1", opened()))
    assert second.session_id != first.session_id
    joined = await other.commit(request("u1 a1 u2", opened()))
    assert joined.session_id == first.session_id


async def metadata_and_aliases(workers: Workers) -> None:
    worker, other = workers.worker(), workers.worker()
    for place in PLACES:
        await worker.commit(request("u1", place))
    for number, place in enumerate(PLACES):
        changed = await worker.profiles.change(place, Profile("title", metadata={"n": number}, aliases=[f"a:{number}"]))
        assert isinstance(changed, SessionInfo) and changed.metadata == {"n": number}
    for number, place in enumerate(PLACES):
        found = await other.profiles.find(place.tenant, f"a:{number}")
        assert found is not None and (found.session_id, found.title) == (place.session_id, "title")
    assert await other.profiles.change(PLACES[1], Profile(aliases=["a:3"])) is Refused.ALIAS_TAKEN
    await worker.delete(PLACES[3])
    assert isinstance(await other.profiles.change(PLACES[1], Profile(aliases=["a:3"])), SessionInfo)


async def lists_and_deletion(workers: Workers) -> None:
    worker, other = workers.worker(), workers.worker()
    for place in PLACES:
        await worker.commit(request("u1", place, at_ms=now_ms()))
    await worker.index.flush()
    assert (await other.index.sessions(TENANT)).total == 6
    everybody = await other.index.sessions(None, limit=5)
    assert (len(everybody.sessions), everybody.total) == (5, 12)
    rest = await other.index.sessions(None, limit=50, cursor=everybody.cursor)
    assert {(s.tenant, s.session_id) for s in (*everybody.sessions, *rest.sessions)} == {
        (place.tenant, place.session_id) for place in PLACES
    }
    assert {info.tenant for info in await other.index.owners("s-1")} == {TENANT}
    assert await other.delete(PLACES[1])
    late = await worker.commit(reply("u1 a1", PLACES[1]))
    assert late.deleted and await worker.reader.history(PLACES[1]) is None
    assert (await worker.index.sessions(None)).total == 11


async def export_delete_import(workers: Workers) -> None:
    worker, other = workers.worker(), workers.worker()
    for place in PLACES[:4]:
        await say(worker, "u1", place, agent="scout")
        await say(worker, "u1 a1", place)
        await say(worker, "u1 a2", place)
        assert isinstance(await worker.snapshots.create(place, "kept", pin=True), Snapshot)
        await worker.profiles.change(place, Profile("title", aliases=[f"alias:{place.session_id}"]))

        async def exported(place: Address = place) -> bytes:
            stream = await worker.transfer.export(place)
            assert stream is not None
            return b"".join([piece async for piece in stream])

        text = await exported()

        async def body(text: bytes = text) -> AsyncIterator[bytes]:
            yield text

        try:
            await other.transfer.read_in(place.tenant, body())
            raise AssertionError("it took the place of a session that is there")
        except SessionExists:
            pass
        assert await worker.delete(place)
        brought = await other.transfer.read_in(place.tenant, body())
        assert (brought.address, brought.nodes) == (place, 3)
        assert await exported() == text
        found = await other.profiles.find(place.tenant, f"alias:{place.session_id}")
        assert found is not None and found.session_id == place.session_id


async def search_and_feed(workers: Workers) -> None:
    worker, other = workers.worker(), workers.worker()
    for place in PLACES[:4]:
        await say(worker, "u1", place)
        news = await other.feed.listen(place, nodes("u1")[0])
        assert news is not None
        await say(worker, "u1 a1", place)
        async with asyncio.timeout(10):
            while isinstance(heard := await anext(news), Quiet):
                pass
        await news.aclose()
        assert getattr(heard, "id", None) == nodes("u1 a1")[-1]
        found = await other.searches.search(place, "A1")
        assert [(hit.node, hit.branch) for hit in found.hits] == [(nodes("u1 a1")[-1], "main")]


async def a_lost_worker(workers: Workers) -> None:
    """Its sessions stand in other slots than its lease, and each other."""
    lost, other = workers.worker(), workers.worker()
    await lost.recovery.look()
    for place in PLACES:
        asked = request("u1", place)
        lost.flights.took_off(asked)
        await lost.commit(asked)
    worker, own = lost.flights.worker, workers.connection()
    async with asyncio.timeout(10):
        while await own.command("scard", keys.calls_of(worker)) < len(PLACES):
            await asyncio.sleep(0.01)
    await own.command("zadd", keys.WORKERS, {worker: 1})
    await other.recovery.look()
    await other.recovery.settled()
    report = await other.recovery.report(None, limit=50)
    assert sum(state.interruption is not None for state in report.sessions) == len(PLACES)
    assert {state.foremost.state for state in report.sessions if state.foremost} == {"pending"}
    assert report.starts_and_stops["unclean_stops"] == 1


async def the_sweep_and_its_lock(workers: Workers) -> None:
    worker, other, own = workers.worker(), workers.worker(), workers.connection()
    for place in PLACES:
        await worker.commit(request("u1", place, at_ms=now_ms()))
    await worker.index.flush()
    for tenant in (TENANT, OTHER_TENANT):
        await own.command("zadd", keys.index(tenant), {"gone": 1})
    async with other.locks.held("sweep", 30) as lock:
        assert lock is not None and await worker.sweep.run() == 0
    assert await worker.sweep.run() == 2
    assert (await other.index.sessions(None)).total == len(PLACES)


async def limits_and_damage(workers: Workers) -> None:
    worker, own = workers.worker(Settings(store=Store(max_session_messages=6))), workers.connection()
    await say(worker, "u1")
    for turn in range(1, 10):  # an answer again and again, each a branch
        commit = spoken(reply(f"u1 a{turn}", at_ms=now_ms()), f"u1 a{turn}")
        async with asyncio.timeout(10):
            while (await worker.commit(commit)).full:  # makes room behind the caller's back
                await asyncio.sleep(0.01)
    assert await path_of(worker) == nodes("u1 a9")
    assert len((await worker.reader.tree(session()))[0]) <= 6
    await own.command("hset", keys.of_session(session()).bodies, nodes("u1 a9")[-1], b"\x09damaged")
    history = await worker.reader.history(session())
    assert history is not None and history.missing == (nodes("u1 a9")[-1],)


ESSENTIALS: dict[str, Essential] = {
    essential.__name__: essential
    for essential in (
        a_conversation_is_stored_once,
        a_first_request_that_is_large_is_stored_whole,
        branches,
        snapshots_and_restore,
        subtasks,
        responses_that_a_request_goes_on_from,
        a_conversation_without_an_id_is_found_by_its_opening,
        metadata_and_aliases,
        lists_and_deletion,
        export_delete_import,
        search_and_feed,
        a_lost_worker,
        the_sweep_and_its_lock,
        limits_and_damage,
    )
}
