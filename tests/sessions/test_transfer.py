"""Export and import: the same session again, and nothing that is not one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions import keys, lines, tree
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.identity import Address, address
from proxy_plugin.sessions.keys import SessionKeys
from proxy_plugin.sessions.lines import LineError, Reader
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.transfer import AliasTaken, Imported, SessionExists
from proxy_plugin.sessions.tree import StoredNode
from proxy_plugin.settings import Settings, Store
from tests.sessions import servers
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, TENANT, opened, session
from tests.sessions.spoken import asked, assistant, calling, result, talk, user
from tests.strategies import (
    broken_chats,
    broken_messages,
    broken_responses,
    valid_chats,
    valid_messages,
    valid_responses,
)

Play = Callable[[Scenario], None]
FIRST = [
    {"role": "system", "content": "be brief"},
    user("find the flight"),
    calling("call_1", "search", '{"to": "Oslo"}'),
    result("call_1", "SK 4711"),
    assistant("It is SK 4711."),
]


async def exported(worker: SessionStore, place: Address | None = None) -> bytes:
    stream = await worker.transfer.export(place or session())
    assert stream is not None
    return b"".join([piece async for piece in stream])


async def imported(worker: SessionStore, text: bytes, tenant: str = TENANT, **how: Any) -> Imported:
    async def cut() -> AsyncIterator[bytes]:
        for begin in range(0, len(text), 700):  # lines lie across the pieces of a body
            yield text[begin : begin + 700]

    return await worker.transfer.read_in(tenant, cut(), **how)


async def a_session(worker: SessionStore) -> None:
    """Two branches, a second root, subtasks of both kinds, agents, a pinned snapshot."""
    await talk(worker, FIRST, metadata={"agent": "scout"})
    await talk(
        worker,
        [
            *FIRST,
            user("book it"),
            assistant("Booked: Zürich → Oslo \ud83d\ude80 ünï".encode("utf-8", "replace").decode()),
        ],
    )
    edited = [*FIRST, user("cancel it"), assistant("Cancelled.")]
    await talk(worker, edited, metadata={"agent": "clerk", "agent_reason": "handover", "subtask_id": "step/2"})
    await worker.commit(asked([user("a title, please")]))


def test_export_delete_import_gives_the_same_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await a_session(worker)
        before = await exported(worker)
        reader = worker.reader
        told = [
            await reader.session(session()),
            await reader.branches(session()),
            await reader.subtasks(session()),
            await reader.snapshots(session()),
            [await reader.history(session(), branch=b.name) for b in await reader.branches(session())],
        ]
        assert len(told[1]) == 3 and len(told[2]) >= 3 and told[3]  # type: ignore[arg-type]
        assert await worker.delete(session())
        assert await reader.session(session()) is None

        done = await imported(worker, before)  # right behind the deletion, whose tomb is still there
        assert done.address == session() and done.nodes == before.count(b'"type":"node"')
        after = [
            await reader.session(session()),
            await reader.branches(session()),
            await reader.subtasks(session()),
            await reader.snapshots(session()),
            [await reader.history(session(), branch=b.name) for b in await reader.branches(session())],
        ]
        assert after == told
        assert await exported(worker) == before
        assert (await worker.index.sessions(TENANT)).sessions[0].session_id == "s-1"
        names = keys.of_session(session())
        held = [await world.redis("HVALS", key) for key in (names.nodes, names.bodies, names.leads)]
        assert int(await world.redis("HGET", names.meta, "total")) == sum(len(one) for values in held for one in values)
        assert not [key for key in await world.keys() if ":import-" in key and not key.endswith(":tomb")]

        await talk(world.worker(), [*FIRST, user("cancel it"), assistant("Cancelled."), user("thanks")])
        history = await reader.history(session())
        assert history is not None and history.nodes[-1].role == "user" and history.message_count == 8

    play(scenario)


def test_every_part_of_a_session_is_carried_or_known_not_to_be() -> None:
    assert set(lines.KINDS) | lines.NOT_CARRIED == set(SessionKeys.__slots__)
    assert not set(lines.KINDS) & lines.NOT_CARRIED


def test_a_session_without_a_clients_id_is_found_again_by_its_conversation(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        place = opened("find the flight")
        made = await talk(worker, FIRST, place)
        text = await exported(worker, address(TENANT, made.session_id))
        await worker.delete(address(TENANT, made.session_id))
        await world.redis("FLUSHALL")
        await imported(worker, text)
        went_on = await world.worker().commit(asked([*FIRST, user("book it")], place))
        assert went_on.session_id == made.session_id

    play(scenario)


def test_an_import_never_goes_over_a_session_unless_told_to(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await talk(worker, FIRST)
        text = await exported(worker)
        await talk(worker, [*FIRST, user("book it"), assistant("Booked.")])
        newer = await exported(worker)
        with pytest.raises(SessionExists):
            await imported(worker, text)
        assert await exported(worker) == newer
        await imported(worker, text, replace=True)
        assert await exported(worker) == text

    play(scenario)


def test_an_import_belongs_to_the_tenant_who_makes_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await talk(worker, FIRST)
        text = await exported(worker)
        await imported(worker, text, OTHER_TENANT)
        assert await exported(worker) == text
        theirs = await worker.reader.history(session("s-1", OTHER_TENANT))
        assert theirs is not None and theirs.message_count == 5

    play(scenario)


def test_what_is_damaged_costs_itself_alone(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await talk(worker, [*FIRST, user("book it"), assistant("Booked.")])
        names = keys.of_session(session())
        history = await worker.reader.history(session())
        assert history is not None
        ids = [node.id for node in history.nodes]
        await world.redis("HDEL", names.bodies, ids[1])
        await world.redis("HSET", names.nodes, ids[3], "damaged")
        history = await worker.reader.history(session())
        assert history is not None and set(history.missing) == {ids[1], ids[3]}
        text = await exported(worker)
        await worker.delete(session())
        await imported(worker, text)
        assert await exported(worker) == text
        again = await worker.reader.history(session())
        assert again is not None and again.missing == history.missing
        assert [(node.id, node.body) for node in again.nodes] == [(node.id, node.body) for node in history.nodes]

    play(scenario)


def test_an_import_that_is_retried_is_the_same(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script may run twice where its first answer was lost."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        await a_session(worker)
        text = await exported(worker)
        await worker.delete(session())
        connection = worker.transfer.connection
        once = connection.run

        async def twice(*call: Any) -> Any:
            await once(*call)
            return await once(*call)

        monkeypatch.setattr(connection, "run", twice)
        await imported(worker, text)
        assert await exported(worker) == text

    play(scenario)


def test_an_alias_of_another_session_is_not_taken(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await talk(worker, FIRST)
        await talk(worker, FIRST, session("s-2"))
        await worker.profiles.change(session(), Profile(aliases=["user:alice"], title="a trip"))
        text = await exported(worker)
        await worker.delete(session())
        await worker.profiles.change(session("s-2"), Profile(aliases=["user:alice"]))
        with pytest.raises(AliasTaken):
            await imported(worker, text)
        assert await worker.reader.session(session()) is None
        await worker.delete(session("s-2"))
        await imported(worker, text)
        found = await worker.profiles.find(TENANT, "user:alice")
        assert found is not None and (found.session_id, found.title) == ("s-1", "a trip")
        assert await exported(worker) == text

    play(scenario)


def test_on_a_cluster_all_of_it_is_the_same(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        connection = Connection.open(Settings(store=Store(url=url)), {})
        assert connection is not None
        worker = SessionStore(connection, Settings())
        places = [session(f"s-{number}") for number in range(6)]
        made = await talk(worker, FIRST, opened("find the flight"))
        for place in places:
            await talk(worker, FIRST, place)
        for place in (*places, address(TENANT, made.session_id)):
            text = await exported(worker, place)
            await worker.delete(place)
            assert (await imported(worker, text)).address.session_id == place.session_id
            assert await exported(worker, place) == text
            assert (await worker.searches.search(place, "sk 4711")).total == 2
            news = await worker.feed.listen(place, after="f" * 32)
            assert news is not None and (await anext(news)).id == json.loads(text.splitlines()[2])["id"]  # type: ignore[union-attr]
            await news.aclose()
        await worker.close()
        await connection.close()

    with servers.cluster(tmp_path, "secret") as url:
        asyncio.run(scenario(url))


def _spoiled(text: bytes, at: int, /, **changes: Any) -> bytes:
    """The export with other values in the line `at` of those that have these keys."""
    parsed = [json.loads(line) for line in text.splitlines()]
    fitting = [line for line in parsed if changes.keys() <= line.keys()]
    fitting[at].update(changes)
    return b"".join(json.dumps(line).encode() + b"\n" for line in parsed)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: _spoiled(t, 0, version=2), "line 1: version '2'"),
        (lambda t: _spoiled(t, 0, format="other"), "line 1: is no export"),
        (lambda t: b"x" + t, "line 1: is no JSON"),
        (lambda t: b"", "line 1: the export ends"),
        (lambda t: b"".join(t.splitlines(True)[:-1]), "the export ends before its last line"),
        (lambda t: t.replace(b"SK 4711", b"SK 4712", 1), "line 5: id is not the hash"),
        (lambda t: _spoiled(t, 1, parent="0" * 32), "parent '0"),
        (lambda t: _spoiled(t, 1, depth=3), "depth is not"),
        (lambda t: _spoiled(t, 1, at=-1), "at is no time"),
        (lambda t: _spoiled(t, 1, start="…"), "start or subtask"),
        (lambda t: _spoiled(t, 0, role="judge"), "none that can be stored"),
        (lambda t: t.replace(b'"be brief"', b'"be evil"'), "id is not the hash of the lead"),
        (lambda t: b"".join(line for line in t.splitlines(True) if b'"depth":2' not in line), "did not come before"),
        (lambda t: t + t, "stands behind the end"),
        (lambda t: t.replace(b'"name":"main"', b'"name":"other"'), "is no tip"),
        (lambda t: t.replace(b'"cur":"main"', b'"cur":"none"'), "the branch that the first line names"),
        (lambda t: t.replace(b'"session_id":"s-1"', b'"session_id":"a/b"'), "is none that the store gives"),
        (lambda t: t.replace(b'"created":"', b'"created":"x', 1), "created is no number"),
        (lambda t: t.replace(b'"type":"subtask"', b'"type":"thing"', 1), "unknown type 'thing'"),
        (lambda t: t.replace(b'"base":""', b'"base":"ffffffffffffffffffffffffffffffff"'), "is no subtask"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named_and_nothing_of_it_is_stored(
    play: Play, spoil: Callable[[bytes], bytes], said: str
) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await talk(worker, FIRST)
        text = await exported(worker)
        await world.redis("FLUSHALL")
        broken = spoil(text)
        assert broken != text
        with pytest.raises(LineError, match=r"line \d+: ") as refused:
            await imported(worker, broken)
        assert said in str(refused.value)
        assert await world.keys() == []

    play(scenario)


@given(
    wire=st.one_of(
        *(
            source().map(lambda wire, api=api: (api, wire))  # type: ignore[misc]
            for api, sources in {
                "chat": (valid_chats, broken_chats),
                "messages": (valid_messages, broken_messages),
                "responses": (valid_responses, broken_responses),
            }.items()
            for source in sources
        )
    )
)
def test_whatever_can_be_stored_can_be_imported(wire: tuple[str, list[Any]]) -> None:
    api, items = wire
    commit = asked(items, session(), api)
    reader = Reader(TENANT, Codec())
    reader.read(lines.header(session(), {"created": "1", "messages": "1"}))
    for index, node in enumerate(commit.ids):
        stored = StoredNode(
            id=node, parent=commit.before(index), depth=index + 1, role=commit.roles[index], at_ms=1,
            incomplete=False, side=False, subtask=tree.automatic("." * 12), size=0, lead="",
            body=commit.bodies[index], start="." * 12,
        )  # fmt: skip
        (body, *_) = reader.read(lines.node_line(stored))
        assert Codec().decode(body.value, "", "") == commit.bodies[index]
    reader.read(lines.end_line(len(commit.ids)))
    reader.finish()
    assert api in CODECS and reader.nodes == len(commit.ids)
