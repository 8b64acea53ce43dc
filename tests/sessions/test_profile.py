"""Title, description, metadata and aliases of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from proxy_plugin.sessions import keys, store
from proxy_plugin.sessions.edits import Refused
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.tree import SessionInfo
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, TENANT, reply, request, session

Play = Callable[[Scenario], None]


async def changed(worker: store.SessionStore, profile: Profile, name: str = "s-1") -> SessionInfo:
    info = await worker.profiles.change(session(name), profile)
    assert isinstance(info, SessionInfo)
    return info


async def found(worker: store.SessionStore, alias: str, tenant: str = TENANT) -> str | None:
    info = await worker.profiles.find(tenant, alias)
    return info.session_id if info else None


def test_what_is_not_named_stays_and_what_is_empty_goes(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        metadata = {"user": {"id": 7}, "tags": ["x"]}
        await changed(worker, Profile("title", "longer", metadata, ["user:alice"]))
        info = await changed(worker, Profile(title="другой"))
        assert (info.title, info.description, info.aliases) == ("другой", "longer", ("user:alice",))
        assert info.metadata == metadata
        assert await worker.reader.session(session()) == info
        listed = (await worker.index.sessions(TENANT)).sessions[0]
        assert listed.title == "другой" and listed.metadata == {}
        gone = await changed(worker, Profile("", "", {}, []))
        assert (gone.title, gone.description, gone.metadata, gone.aliases) == (None, None, {}, ())
        assert await worker.profiles.change(session("unknown"), Profile("x")) is Refused.NO_SESSION

    play(scenario)


def test_an_alias_leads_to_one_session_of_its_tenant(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        for place in (session(), session("s-2"), session(tenant=OTHER_TENANT)):
            await worker.commit(request("u1", place))
        await changed(worker, Profile(aliases=["user:alice", "a"]))
        assert await found(worker, "user:alice") == "s-1"
        assert await found(worker, "user:alice", OTHER_TENANT) is None
        taken = await worker.profiles.change(session("s-2"), Profile("title", aliases=["free", "user:alice"]))
        assert taken is Refused.ALIAS_TAKEN
        other = await worker.reader.session(session("s-2"))
        assert other is not None and (other.title, other.aliases) == (None, ())
        assert await found(worker, "free") is None
        theirs = await worker.profiles.change(session(tenant=OTHER_TENANT), Profile(aliases=["user:alice"]))
        assert isinstance(theirs, SessionInfo)
        await changed(worker, Profile(aliases=["a"]))
        assert (await found(worker, "user:alice"), await found(worker, "a")) == (None, "s-1")
        await changed(worker, Profile(aliases=["user:alice"]), "s-2")
        assert await found(worker, "user:alice") == "s-2"

    play(scenario)


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_an_alias_of_a_session_that_is_gone_is_free(play: Play, how: str) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        for name in ("s-1", "s-2"):
            await worker.commit(request("u1", session(name)))
        await changed(worker, Profile(aliases=["user:alice"]))
        if how == "deleted":
            await worker.delete(session())
            assert await world.redis("HLEN", keys.aliases(TENANT)) == 0
        else:
            await world.redis("DEL", *keys.of_session(session()).data)
        assert await found(worker, "user:alice") is None
        await changed(worker, Profile(aliases=["user:alice"]), "s-2")
        assert await found(worker, "user:alice") == "s-2"

    play(scenario)


def test_one_of_many_that_claim_an_alias_at_once_gets_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(6)]
        for number in range(6):
            await workers[0].commit(request("u1", session(f"s-{number}")))
        answers = await asyncio.gather(
            *(worker.profiles.change(session(f"s-{i}"), Profile(aliases=["mine"])) for i, worker in enumerate(workers))
        )
        won = [answer.session_id for answer in answers if isinstance(answer, SessionInfo)]
        owners = [await workers[0].reader.session(session(f"s-{number}")) for number in range(6)]
        holding = [info.session_id for info in owners if info is not None and info.aliases]
        assert len(won) <= 1 and holding == won
        assert won == [] or await found(workers[0], "mine") == won[0]

    play(scenario)


def test_the_size_of_the_current_path_is_known_after_every_step(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()

        async def size() -> int:
            info = await worker.reader.session(session())
            assert info is not None and info.token_estimate == -(-info.size_bytes // 4)
            return info.size_bytes

        body = len(b'{"text":"u1"}')
        await worker.commit(request("u1", size_bytes=400))
        await worker.commit(reply("u1 a1", size_bytes=450))
        assert await size() == 400 + body
        await worker.commit(request("u1 a1 u2"))
        await worker.commit(request("u1 a1 u3 a3 u4", size_bytes=900))
        assert await size() == 900  # what the client sent: it is another path
        await worker.branches.switch(session(), "main")
        assert await size() == 3 * body

    play(scenario)


def test_a_title_of_hostile_text_is_kept_in_snapshots_too(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1"))
        hostile = '"}]\n\u2028\x00\\ключ'
        await changed(worker, Profile(title=hostile, metadata={"k": hostile}, aliases=["x" * 256]))
        await worker.snapshots.create(session(), hostile)
        (snapshot,) = await worker.reader.snapshots(session())
        assert (snapshot.title, snapshot.name) == (hostile, hostile)

    play(scenario)
