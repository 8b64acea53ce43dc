"""Damaged and lost nodes: what they cost, where they are named, and how the client's next history heals them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import History
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import behind, ids_of, keep, kept_under, lead, reply, request, session, tip_of

Play = Callable[[Scenario], None]
PATH = "u1 c1 t1 a1 u2 c2 t2 a2 u3"
NAMES = keys.of_session(session())
PLACES = {"root": "u1", "middle": "u1 c1 t1 a1 u2", "call": "u1 c1 t1 a1 u2 c2", "tip": PATH}

Harm = Callable[[World, str], Awaitable[None]]


async def head_of(world: World, node: str) -> bytes:
    head: bytes = await world.redis("HGET", NAMES.nodes, node)
    return head


async def truncated_head(world: World, node: str) -> None:
    await world.redis("HSET", NAMES.nodes, node, (await head_of(world, node))[:40])


async def empty_head(world: World, node: str) -> None:
    await world.redis("HSET", NAMES.nodes, node, "")


async def flipped_head(world: World, node: str) -> None:
    head = bytearray(await head_of(world, node))
    for place in (2, 12, 40):  # flags, parent, depth
        head[place] ^= 0x55
    await world.redis("HSET", NAMES.nodes, node, bytes(head))


async def other_version(world: World, node: str) -> None:
    await world.redis("HSET", NAMES.nodes, node, b"\x7f" + (await head_of(world, node))[1:])


async def lost_head(world: World, node: str) -> None:
    await world.redis("HDEL", NAMES.nodes, node)


async def lost_node(world: World, node: str) -> None:
    await world.redis("HDEL", NAMES.nodes, node)
    await world.redis("HDEL", NAMES.bodies, node)


async def lost_body(world: World, node: str) -> None:
    await world.redis("HDEL", NAMES.bodies, node)


async def truncated_body(world: World, node: str) -> None:
    await world.redis("HSET", NAMES.bodies, node, (await world.redis("HGET", NAMES.bodies, node))[:-4])


async def flipped_body(world: World, node: str) -> None:
    body = bytearray(await world.redis("HGET", NAMES.bodies, node))
    body[3] ^= 0x55
    await world.redis("HSET", NAMES.bodies, node, bytes(body))


async def body_of_another_version(world: World, node: str) -> None:
    await world.redis("HSET", NAMES.bodies, node, b"~" + (await world.redis("HGET", NAMES.bodies, node))[1:])


HEADS: list[Harm] = [truncated_head, empty_head, flipped_head, other_version, lost_head, lost_node]
BODIES: list[Harm] = [lost_body, truncated_body, flipped_body, body_of_another_version]


def texts(history: History | None) -> str:
    assert history is not None
    return " ".join(node.body.decode()[9:-2] for node in history.nodes if node.body is not None)


async def conversation(world: World) -> SessionStore:
    """PATH in three requests and their replies, as a client would send it."""
    worker = world.worker()
    words = PATH.split()
    for end in range(1, len(words) + 1):
        make = request if words[end - 1][0] in "ut" else reply
        await worker.commit(make(" ".join(words[:end]), lead=lead("be brief")))
    return worker


async def everything(worker: SessionStore) -> Any:
    """What a session holds beside the state of damage."""
    history = await worker.reader.history(session())
    assert history is not None
    heads = [(n.id, n.parent, n.depth, n.role, n.subtask, n.side, n.lead, n.size, n.body) for n in history.nodes]
    branches = [(branch.name, branch.head) for branch in await worker.reader.branches(session())]
    subtasks = [(s.id, s.state, s.first, s.result) for s in await worker.reader.subtasks(session())]
    return heads, branches, subtasks, history.head, history.lead, history.message_count


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("harm", HEADS + BODIES, ids=lambda harm: harm.__name__)
def test_a_damaged_node_costs_itself_is_named_and_is_healed_by_the_next_history(
    harm: Harm, place: str, play: Play
) -> None:
    async def scenario(world: World) -> None:
        worker = await conversation(world)
        whole = await everything(worker)
        node = tip_of(PLACES[place])
        await harm(world, node)

        history = await worker.reader.history(session())
        expected = PATH.split()
        expected.remove(PLACES[place].split()[-1])
        if harm is not flipped_head:  # its own text survives; what is lost is where it stands
            assert texts(history) == " ".join(expected)
            assert history is not None and history.missing == (node,)
        else:
            assert history is not None and history.missing and set(expected) <= set(texts(history).split())

        await worker.commit(request(PATH, lead=lead("be brief")))  # the same again
        assert await everything(worker) == whole
        history = await worker.reader.history(session())
        assert history is not None and history.missing == ()
        done = await worker.commit(reply(PATH + " a3", lead=lead("be brief")))
        assert (done.new_nodes, done.round_trips, done.branch) == (1, 1, "main")
        assert texts(await worker.reader.history(session())) == PATH + " a3"

    play(scenario)


@pytest.mark.parametrize("harm", [lost_head, lost_node, lost_body], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("fresh", [False, True], ids=["same worker", "other worker"])
def test_what_is_gone_is_noticed_by_the_next_commit_without_a_read(harm: Harm, fresh: bool, play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await conversation(world)
        await harm(world, tip_of("u1 c1 t1"))
        await harm(world, tip_of(PATH))
        other = world.worker() if fresh else worker
        await other.commit(request(PATH + " a3 u4"))
        history = await other.reader.history(session())
        assert (texts(history), history and history.missing) == (PATH + " a3 u4", ())
        assert len(await other.reader.branches(session())) == 1

    play(scenario)


def test_several_damaged_nodes_in_a_row_cost_themselves(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await conversation(world)
        for path in ("u1 c1 t1", "u1 c1 t1 a1", "u1 c1 t1 a1 u2"):
            await lost_node(world, tip_of(path))
        history = await worker.reader.history(session())
        assert texts(history) == "u1 c1 c2 t2 a2 u3"
        await worker.commit(request(PATH))
        assert texts(await worker.reader.history(session())) == PATH

    play(scenario)


def test_a_path_goes_on_above_a_lost_node_on_its_own_branch(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1 a1 u2 a2 u3 a3"))
        await worker.commit(request("u1 a1 u8 a8 u3 a3"))
        await lost_node(world, tip_of("u1 a1 u2 a2"))
        assert texts(await worker.reader.history(session(), branch="main")) == "u1 a1 u2 u3 a3"
        assert texts(await worker.reader.history(session(), branch="branch-2")) == "u1 a1 u8 a8 u3 a3"
        await worker.commit(request("u1 a1 u8 a8 u3 a3"))  # another branch heals what is its own
        assert texts(await worker.reader.history(session(), branch="main")) == "u1 a1 u2 u3 a3"
        await worker.commit(request("u1 a1 u2 a2 u3 a3"))
        assert texts(await worker.reader.history(session(), branch="main")) == "u1 a1 u2 a2 u3 a3"
        assert len(await worker.reader.branches(session())) == 2

    play(scenario)


def test_a_damaged_lead_is_healed_too(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await conversation(world)
        await world.redis("HSET", NAMES.leads, lead("be brief").id, b"~~")
        history = await worker.reader.history(session())
        assert history is not None and history.lead is None
        await worker.commit(request(PATH, lead=lead("be brief")))
        history = await worker.reader.history(session())
        assert history is not None and history.lead == lead("be brief").body

    play(scenario)


def test_a_request_behind_a_damaged_base_is_stored_all_the_same(play: Play) -> None:
    """A client that sends only what is new cannot heal what it does not have."""

    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(keep(reply("u1 a1"), "resp_1"))
        await truncated_head(world, tip_of("u1 a1"))
        base = worker.kept.known(kept_under("resp_1"))
        assert base is not None
        done = await worker.commit(behind(base, "u1 a1", "u2"))
        assert done.alone
        assert texts(await worker.reader.history(session(), branch=done.branch)) == "u2"

    play(scenario)


@pytest.mark.parametrize(
    "key",
    [NAMES.branches, NAMES.subtasks, NAMES.agents, NAMES.meta, NAMES.named, NAMES.profile],
    ids=lambda key: key.rpartition(":")[2],
)
def test_other_records_that_cannot_be_read_cost_themselves(key: str, play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1", agent="a"))
        await worker.commit(reply("u1 a1", agent="a"))
        await worker.profiles.change(session(), Profile(metadata={"step": 1}, aliases=["one"]))
        if key == NAMES.agents:
            await world.redis("LSET", key, 0, "{")
        elif key == NAMES.meta:
            for name in ("messages", "last"):
                await world.redis("HSET", key, name, "?")
        else:
            for name in await world.redis("HKEYS", key):
                await world.redis("HSET", key, name, "{")
        assert texts(await worker.reader.history(session())) == "u1 a1"
        await worker.reader.branches(session())
        await worker.reader.subtasks(session())
        named = await worker.reader.snapshots(session())
        assert (named == ()) == (key == NAMES.named)
        await worker.recovery.report(session().tenant, limit=10)
        assert (await worker.index.sessions(session().tenant)).total == 1
        await worker.commit(request("u1 a1 u2", agent="b"))
        assert texts(await worker.reader.history(session())) == "u1 a1 u2"

    play(scenario)


def test_ids_of_the_damaged_are_ids() -> None:
    assert all(len(node) == 32 for node in ids_of(PATH))
