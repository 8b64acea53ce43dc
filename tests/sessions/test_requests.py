"""Records of requests in a real server: rebuilt to the byte by any worker, each text kept once, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_plugin.events import ignore
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.history.model import dump
from proxy_plugin.history.residual import filled, residual
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.bodies import decode_body
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Collapse, Deadlines, Settings, Store
from tests.agent import rows
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import TENANT, session
from tests.strategies import broken_chats, prefixes

Play = Callable[[Scenario], None]
SECRET = "a text that stands in the tree and nowhere else, however often it comes"
relaxed = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Gate:
    """A worker's pipeline; remembers what came and what left."""

    def __init__(self, world: World, chosen: Settings | None = None) -> None:
        self.settings = replace(chosen or Settings(), deadlines=Deadlines(store_ms=10_000))
        self.store = world.worker(self.settings)
        self.pipeline = Pipeline(self.settings, GuardedStore(self.store, self.settings), ignore)

    async def send(self, wire: list[Any], reply: Any = None, **changes: Any) -> bytes:
        """The bytes of what left."""
        body = {"metadata": {"session_id": "s-1"}}
        asked = Incoming("chat", wire, {}, body, TENANT, dialect_of("openai"), "enforce", **changes)
        turn = await self.pipeline.before(asked)
        assert turn is not None
        left = dump(turn.messages)
        await self.pipeline.after(turn, reply, complete=True)
        await self.store.requests.settled()
        return left


def talk(count: int, *, echo: bool = False) -> list[Any]:
    """`echo`: as a client sends it again, with more keys in another order."""
    wire: list[Any] = [{"role": "system", "content": "be brief, and careful with what you say"}]
    for n in range(count):
        function = {"name": "find", "arguments": f'{{"n":  {n}}}'}
        call = {"id": "same", "type": "function", "function": function}
        said = {"role": "assistant", "content": f"{SECRET} {n}"}
        wire += [
            {"role": "user", "content": f"question {n}"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "same", "content": rows("find", str(n))},
            {"refusal": None, **dict(reversed(said.items())), "annotations": []} if echo else said,
        ]
    return [*wire, {"role": "user", "content": "and then?"}]


async def held(world: World) -> list[bytes]:
    """What the session keeps of its requests, unpacked."""
    stored = await world.redis("HGETALL", keys.of_session(session()).requests)
    fields = stored if isinstance(stored, dict) else dict(zip(stored[::2], stored[1::2], strict=True))
    skipped = {b"r": 16, b"s": 0, b"w": 49}
    return [decode_body(value[skipped[name[:1]] :]) for name, value in fields.items() if name[:1] in skipped]


async def rebuilt(store: Any, n: int) -> Any:
    record = await store.requests.record(session(), n)
    assert record is not None
    return await store.requests.rebuild(session(), record)


def test_another_worker_rebuilds_each_request_to_the_byte(play: Play) -> None:
    async def scenario(world: World) -> None:
        one, two = Gate(world), Gate(world)
        expected = []
        for n in range(4):
            for gate, echo in ((one, False), (two, True)):
                wire = talk(n, echo=echo)
                expected.append((orjson.dumps(wire), await gate.send(wire)))
        reader = Gate(world).store
        for n, (came, left) in enumerate(expected, 1):
            account = await rebuilt(reader, n)
            assert account.exact and (dump(account.received), dump(account.sent)) == (came, left)
        assert expected[-1][0] != expected[-1][1]

    play(scenario)


def test_a_text_stands_once_however_it_is_sent(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world)
        for echo in (False, True, False, True):
            await gate.send(talk(2, echo=echo))
        before = await held(world)
        assert not any(b"stands in the tree" in value for value in before)
        await gate.send(talk(2, echo=True))
        assert sum(map(len, await held(world))) - sum(map(len, before)) < 700  # a record, and no step

    play(scenario)


def test_only_the_newest_are_kept_and_a_deleted_session_has_none(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world, Settings(store=Store(keep_requests=3)))
        for n in range(5):
            await gate.send(talk(n))
        page = await gate.store.requests.page(session(), 2)
        assert ([n for n, _ in page.records], page.total, page.cursor) == ([5, 4], 3, 4)
        page = await gate.store.requests.page(session(), 2, page.cursor)
        assert ([n for n, _ in page.records], page.cursor) == ([3], None)
        assert await gate.store.requests.record(session(), 2) is None
        assert (await rebuilt(gate.store, 3)).exact
        await gate.store.delete(session())
        assert await gate.store.requests.newest(session()) == 0
        await gate.send(talk(1))  # kept out by the tombstone
        assert await world.redis("EXISTS", keys.of_session(session()).requests) == 0

    play(scenario)


def test_nothing_is_kept_where_the_setting_says_so(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world, Settings(store=Store(keep_requests=0)))
        await gate.send(talk(1))
        assert await world.redis("EXISTS", keys.of_session(session()).requests) == 0
        assert await gate.store.reader.session(session()) is not None

    play(scenario)


def test_settings_of_the_time_hold_and_what_cannot_be_had_again_is_said(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world)
        left = await gate.send(talk(2))
        unlike = await gate.send(talk(2), settings=Settings(collapse=Collapse(policy="never")))
        assert left != unlike
        assert [dump((await rebuilt(gate.store, n)).sent) for n in (1, 2)] == [left, unlike]
        record = await gate.store.requests.record(session(), 1)
        assert record is not None
        other = await gate.store.requests.rebuild(session(), {**record, "hashes": [record["hashes"][0], "0" * 32]})
        assert other is not None and not other.exact and "version" in other.why
        await world.redis("DEL", keys.of_session(session()).bodies)
        assert await gate.store.requests.rebuild(session(), record) is None

    play(scenario)


def test_a_worker_whose_memory_is_wrong_writes_it_all_again(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world)
        await gate.send(talk(2))
        await world.redis("DEL", keys.of_session(session()).requests)
        left = await gate.send(talk(3))
        account = await rebuilt(gate.store, 1)
        assert account.exact and dump(account.sent) == left and dump(account.received) == orjson.dumps(talk(3))

    play(scenario)


@relaxed
@given(data=st.data())
def test_any_history_is_rebuilt_exactly(play: Play, data: st.DataObject) -> None:
    wires = [list(wire) for wire in prefixes(data.draw(broken_chats()))][-4:]

    async def scenario(world: World) -> None:
        gate = Gate(world, Settings(store=Store(keep_requests=10)))
        for n, wire in enumerate(wires, 1):
            came, left = dump(wire), await gate.send(wire)
            account = await rebuilt(gate.store, n)
            assert account is not None and account.exact, account
            assert (dump(account.received), dump(account.sent)) == (came, left)

    play(scenario)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON, _JSON)
def test_a_residual_gives_the_same_bytes(fragment: Any, stored: Any) -> None:
    for one in (fragment, stored, {"deep": [stored, fragment]}, {"\0": 0}):
        kept = residual(dump(one), stored)
        assert filled(kept, stored) == dump(one)
        assert residual(dump(stored), stored) == b""


def test_a_pipeline_without_a_store_notes_nothing() -> None:
    asked = Incoming("chat", talk(1), {}, {}, TENANT, dialect_of("openai"), "enforce")
    assert asyncio.run(Pipeline(Settings(), None, ignore).before(asked)) is not None
