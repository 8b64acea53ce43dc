from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions as errors

from proxy_plugin.events import Event, PassedThrough, SnapshotCreated, StoreCalled, SubtaskChanged
from proxy_plugin.sessions.backlog import Backlog
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.embedded import Embedded
from proxy_plugin.sessions.flights import Flights
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import Commit, Committed
from proxy_plugin.sessions.writer import GuardedStore, StoreUnavailable
from proxy_plugin.settings import Deadlines, Settings, Store
from tests.sessions.conftest import free_port, target_of
from tests.sessions.paths import TENANT, behind, ids_of, keep, kept_under, opened, reply, request, session, tip_of

# The deadline is far above what a loaded machine needs, and still far below what a dead server takes.
SETTINGS = Settings(deadlines=Deadlines(store_ms=500), store=Store(breaker_failures=2, breaker_reset_ms=50))


class Guarded:
    """A guarded store over a server of its own, which the test may freeze and kill."""

    def __init__(self, server: Embedded, settings: Settings = SETTINGS) -> None:
        self.server = server
        self.events: list[Event] = []
        self.connection = Connection(target_of(server.ensure()), server)
        self.store = SessionStore(self.connection, settings, self.events.append)
        self.guarded = GuardedStore(self.store, settings, self.events.append)

    def signal(self, number: int) -> None:
        assert self.server.pid is not None
        os.kill(self.server.pid, number)

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, PassedThrough)]

    async def path(self, address: Any = None) -> list[str]:
        history = await self.guarded.ask(self.guarded.store.reader.history(address or session()))
        return [node.id for node in history.nodes] if history else []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Embedded]:
    server = Embedded(tmp_path, free_port())
    yield server
    if server.pid is not None:
        os.kill(server.pid, signal.SIGCONT)
    server.stop()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


def test_a_commit_goes_through(server: Embedded) -> None:
    async def scenario() -> None:
        world = Guarded(server)
        committed = await world.guarded.commit(request("u1"))
        assert committed is not None and committed.new_nodes == 1
        await world.guarded.commit(reply("u1 a1"))
        assert [type(event) for event in world.events[:3]] == [SnapshotCreated, SubtaskChanged, StoreCalled]
        called = [event for event in world.events if isinstance(event, StoreCalled)]
        assert [(event.operation, event.error) for event in called] == [
            ("commit_request", None),
            ("commit_reply", None),
        ]
        assert world.reasons == [] and world.guarded.answering
        await world.guarded.close(5)

    run(scenario)


def test_a_frozen_server_holds_nobody_and_gets_everything_when_it_wakes(server: Embedded) -> None:
    async def scenario() -> None:
        world = Guarded(server)
        await world.guarded.commit(request("u0"))
        world.signal(signal.SIGSTOP)
        path = "u0"
        for turn in range(8):
            assert await world.guarded.commit(reply(f"{path} a{turn}")) is None
            path += f" a{turn} u{turn}"
            assert await world.guarded.commit(request(path)) is None
        assert await world.guarded.commit(request("u1", session("other"))) is None
        assert set(world.reasons) == {"store_timeout", "store_down"}
        assert world.reasons.index("store_down") >= 2  # the breaker opened, and from there on nobody waited
        assert not world.guarded.answering
        world.signal(signal.SIGCONT)
        await world.guarded.close(30)
        assert world.guarded.pending == 0 and world.guarded.answering
        assert (await world.path())[-1] == tip_of(path)
        assert len(await world.path()) == 17
        assert await world.path(session("other")) == [tip_of("u1")]

    run(scenario)


def test_a_killed_server_comes_back_with_what_was_sent_meanwhile(server: Embedded) -> None:
    async def scenario() -> None:
        world = Guarded(server)
        await world.guarded.commit(request("u0"))
        world.signal(signal.SIGKILL)
        path = "u0"
        for turn in range(5):
            path += f" a{turn} u{turn}"
            await world.guarded.commit(request(path))
        await world.guarded.close(30)
        assert (await world.path())[-1] == tip_of(path)
        assert len(await world.path()) == 11

    run(scenario)


def test_a_conversation_without_an_id_stays_one_session_over_an_outage(server: Embedded) -> None:
    async def scenario() -> None:
        world = Guarded(server)
        world.signal(signal.SIGSTOP)
        asked = request("u1", opened())
        assert await world.guarded.commit(asked) is None
        assert await world.guarded.commit(replace(reply("u1 a1", opened()), token=asked.token)) is None
        assert await world.guarded.commit(request("u1 a1 u2", opened())) is None
        world.signal(signal.SIGCONT)
        await world.guarded.close(30)
        page = await world.guarded.ask(world.guarded.store.index.sessions(session().tenant))
        assert [info.session_id for info in page.sessions] == [f"{opened().family}.1"]
        assert len(await world.path(session(f"{opened().family}.1"))) == 3

    run(scenario)


def test_a_read_that_is_not_answered_is_an_error(server: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy_plugin.sessions.writer.READ_SECONDS", 0.2)

    async def scenario() -> None:
        world = Guarded(server)
        world.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await world.guarded.ask(world.guarded.store.reader.session(session()))
        called = [event for event in world.events if isinstance(event, StoreCalled)]
        assert [(event.operation, event.error) for event in called] == [("read", "timeout")]
        world.signal(signal.SIGCONT)

    run(scenario)


class Scripted:
    """A store whose answers the test gives."""

    def __init__(self, answer: Callable[[Commit], Awaitable[Committed]]) -> None:
        nowhere: Any = None  # it holds no lease, so that nothing is noted
        self.commit = answer
        self.flights = Flights(nowhere, 1_000)
        self.closed = False

    async def close(self) -> None:
        self.closed = True


DONE = Committed("s-1", 1, False, False, (), "main", 1)


def scripted(
    answer: Callable[[Commit], Awaitable[Committed]], settings: Settings = SETTINGS
) -> tuple[GuardedStore, list[Event]]:
    events: list[Event] = []
    store: Any = Scripted(answer)
    return GuardedStore(store, settings, events.append), events


def test_what_cannot_succeed_is_not_tried_again() -> None:
    async def scenario() -> None:
        tried = []

        async def answer(commit: Commit) -> Committed:
            tried.append(commit)
            raise errors.ResponseError("WRONGTYPE")

        guarded, events = scripted(answer)
        for _ in range(5):
            assert await guarded.commit(request("u1")) is None
        assert guarded.pending == 0 and guarded.answering
        assert len(tried) == 5
        assert [event.error for event in events if isinstance(event, StoreCalled)] == ["response"] * 5
        await guarded.close(5)

    run(scenario)


def test_late_commits_are_bounded_and_the_rest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy_plugin.sessions.writer.MAX_LATE", 3)

    async def scenario() -> None:
        awake, running, stored = asyncio.Event(), 0, set()

        async def answer(commit: Commit) -> Committed:
            nonlocal running
            running += 1
            try:
                await awake.wait()
            finally:
                running -= 1
            stored.add(commit.tip)
            return DONE

        settings = Settings(deadlines=Deadlines(store_ms=1), store=Store(breaker_failures=1_000))
        guarded, _ = scripted(answer, settings)
        for turn in range(10):
            assert await guarded.commit(request(f"u{turn}")) is None
        await asyncio.sleep(0)
        assert running <= 3 + 1  # and one from the backlog
        assert guarded.pending == 10
        awake.set()
        await guarded.close(30)
        assert stored == {tip_of(f"u{turn}") for turn in range(10)}

    run(scenario)


def test_closing_gives_up_after_its_time() -> None:
    async def scenario() -> None:
        async def answer(commit: Commit) -> Committed:
            await asyncio.Event().wait()
            return DONE

        guarded, _ = scripted(answer, Settings(deadlines=Deadlines(store_ms=1)))
        assert await guarded.commit(request("u1")) is None
        await guarded.close(0.05)
        assert guarded.pending <= 1

    run(scenario)


def test_a_caller_that_leaves_does_not_take_its_commit_along() -> None:
    async def scenario() -> None:
        asked, go, stored = asyncio.Event(), asyncio.Event(), []

        async def answer(commit: Commit) -> Committed:
            asked.set()
            await go.wait()
            stored.append(commit)
            return DONE

        guarded, _ = scripted(answer)
        caller = asyncio.create_task(guarded.commit(request("u1")))
        await asked.wait()
        caller.cancel()
        go.set()
        await guarded.close(5)
        assert len(stored) == 1

    run(scenario)


def test_the_backlog_keeps_the_newest_of_a_path() -> None:
    backlog = Backlog(1_000_000, 100)
    backlog.add(request("u1"))
    backlog.add(reply("u1 a1"))
    backlog.add(request("u1 a1 u2"))
    backlog.add(request("u1 a1 u-edit"))
    backlog.add(request("u1 a1"))
    backlog.add(request("u1", session("other")))
    kept = []
    while commit := backlog.oldest():
        kept.append((commit.address.session_id, commit.tip))
        backlog.remove(commit)
    assert kept == [("s-1", tip_of("u1 a1 u2")), ("s-1", tip_of("u1 a1 u-edit")), ("other", tip_of("u1"))]
    assert len(backlog) == 0


def test_a_reply_that_stands_for_its_request_counts_as_the_request() -> None:
    backlog = Backlog(1_000_000, 100)
    backlog.add(request("u1", agent="x"))
    backlog.add(reply("u1 a1", agent="x"))
    kept = backlog.oldest()
    assert kept is not None and (kept.kind, kept.closes, kept.tip) == ("request", True, tip_of("u1 a1"))


def test_two_conversations_that_begin_alike_stay_two() -> None:
    backlog = Backlog(1_000_000, 100)
    first, second = request("u1", opened()), request("u1", opened())
    backlog.add(first)
    backlog.add(second)
    assert len(backlog) == 2
    backlog.add(replace(reply("u1 a1", opened()), token=first.token))
    assert len(backlog) == 2


def test_the_backlog_is_bounded_in_bytes_and_number() -> None:
    backlog = Backlog(20_000, 100)
    for turn in range(20):
        backlog.add(request(f"u{turn}", size_bytes=1_000))
    assert len(backlog) == 5
    oldest = backlog.oldest()
    assert oldest is not None and oldest.tip == tip_of("u15")
    backlog.add(request("u-big", size_bytes=100_000))
    assert len(backlog) == 5  # larger than all of it: the session's next request brings it
    few = Backlog(10**9, 3)
    for turn in range(5):
        few.add(request(f"u{turn}"))
    assert len(few) == 3


def test_a_chain_of_responses_that_the_store_missed_is_whole_when_it_is_back(server: Embedded) -> None:
    async def scenario() -> None:
        world = Guarded(server)
        await world.guarded.commit(request("u0"))
        world.signal(signal.SIGSTOP)
        path, found = "u1", None
        asked = request("u1", opened())
        await world.guarded.commit(asked)
        await world.guarded.commit_reply(keep(replace(reply("u1 a1", opened()), token=asked.token), "r1"))
        path = "u1 a1"
        for turn in range(2, 5):
            found = await world.guarded.base(TENANT, kept_under(f"r{turn - 1}"))
            assert found is not None and found.node == tip_of(path)
            await world.guarded.commit(behind(found, path, f"u{turn}"))
            answer = behind(found, path, f"u{turn} a{turn}", kind="reply")
            await world.guarded.commit_reply(keep(answer, f"r{turn}"))
            path += f" u{turn} a{turn}"
        assert await world.guarded.base(TENANT, kept_under("unknown")) is None
        world.signal(signal.SIGCONT)
        await world.guarded.close(30)
        assert await world.path(session(f"{opened().family}.1")) == ids_of(path)
        late = await SessionStore(world.connection, SETTINGS).kept.find(TENANT, kept_under("r3"))
        assert late is not None and late.depth == 6

    run(scenario)


def test_what_a_kept_commit_is_found_by_outlives_its_merging() -> None:
    backlog = Backlog(1_000_000, 100)
    backlog.add(request("u1"))
    backlog.add(keep(reply("u1 a1"), "r1"))
    backlog.add(request("u1 a1 u2"))
    assert len(backlog) == 1
    held = backlog.oldest()
    assert held is not None and held.kind == "request"
    assert [(under, base.node) for under, base in held.kept] == [(kept_under("r1"), tip_of("u1 a1"))]


def test_a_path_is_read_by_the_head_or_by_a_snapshot_at_once(server: Embedded) -> None:
    async def scenario() -> None:
        world = Guarded(server)
        await world.guarded.commit(request("u1 a1 u2"))
        await world.guarded.commit_reply(reply("u1 a1 u2 c2"))  # waits for the next request
        await world.guarded.commit(request("u3 a3 u4", session("other")))
        head = await world.guarded.path(session(), "head")
        assert head is not None and head.head == tip_of("u1 a1 u2 c2")
        (snapshot,) = await world.guarded.ask(world.guarded.store.reader.snapshots(session()))
        named = await world.guarded.path(session(), snapshot.snapshot_id)
        assert named is not None and [node.id for node in named.nodes] == ids_of("u1 a1")
        await world.guarded.commit(request("u1", session("opened")))
        (snapshot,) = await world.guarded.ask(world.guarded.store.reader.snapshots(session("opened")))
        named = await world.guarded.path(session("opened"), snapshot.snapshot_id)
        assert named is not None and named.nodes == ()
        assert await world.guarded.path(session(), snapshot.snapshot_id) is None
        assert await world.guarded.path(session("unknown"), "head") is None
        world.signal(signal.SIGSTOP)
        assert await world.guarded.path(session(), "head") is None
        world.signal(signal.SIGCONT)
        await world.guarded.close(10)

    run(scenario)
