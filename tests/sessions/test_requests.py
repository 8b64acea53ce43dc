"""Records of requests in a real server: rebuilt to the byte by any worker, each text kept once, bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import exceptions as errors

from proxy_plugin.events import ignore
from proxy_plugin.gateway import pipeline, recorder
from proxy_plugin.gateway.commits import request_commit
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.gateway.recorder import Handled, noted
from proxy_plugin.history import account as accounts
from proxy_plugin.history import chain
from proxy_plugin.history.account import rules_of
from proxy_plugin.history.chain import Chain
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.history.model import dump
from proxy_plugin.history.residual import filled, residual
from proxy_plugin.history.rewrite import read, rewrite
from proxy_plugin.history.subtasks import NOTHING_SAID
from proxy_plugin.sessions import keys, requests
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.identity import address, kept_under
from proxy_plugin.sessions.lines import LineError
from proxy_plugin.sessions.requests import Stored
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Collapse, Deadlines, Limits, Settings, Store
from proxy_plugin.version import VERSION
from tests.agent import rows
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import TENANT, session
from tests.sessions.test_transfer import exported, imported
from tests.strategies import broken_chats, broken_messages, broken_responses, prefixes

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
    skipped = {b"r": 49, b"s": 0, b"w": 49}
    return [Codec().decode(value[skipped[name[:1]] :], "", "") for name, value in fields.items() if name[:1] in skipped]


async def fields_of(world: World) -> dict[str, bytes]:
    stored = await world.redis("HGETALL", keys.of_session(session()).requests)
    pairs = stored.items() if isinstance(stored, dict) else zip(stored[::2], stored[1::2], strict=True)
    return {name.decode(): value for name, value in pairs}


async def nothing_is_left_over(world: World) -> None:
    """What the hash holds is needed by the records that are kept, and it counts its uses and its bytes right."""
    fields = await fields_of(world)
    needed: Counter[str] = Counter()
    for name in [name for name in fields if name.startswith("r:")]:
        token, tip, rules = fields[name][:16].decode(), fields[name][17:33].decode(), fields[name][33:49].decode()
        assert fields[f"t:{token}"].decode() == name[2:]
        needed.update(["s:" + rules, *(["w:" + tip] if not tip.startswith("-") else [])])
    steps = {name: value[:16].decode() for name, value in fields.items() if name.startswith("w:")}
    needed.update("w:" + before for before in steps.values() if not before.startswith("-"))
    assert {name for name in fields if name[:2] in ("s:", "w:")} == needed.keys()
    assert {name[2:]: int(value) for name, value in fields.items() if name.startswith("c:")} == {
        name: times - 1 for name, times in needed.items() if times > 1
    }
    numbers = sorted(int(name[2:]) for name in fields if name.startswith("r:"))
    assert int(fields["n"]) >= max(numbers, default=0) and int(fields["o"]) <= min(numbers, default=10**9)
    names = keys.of_session(session())
    kept = [await world.redis("HVALS", key) for key in (names.nodes, names.bodies, names.leads)]
    size = sum(len(one) for values in kept for one in values)
    size += sum(len(name) + len(value) for name, value in fields.items() if name[:2] in ("r:", "t:", "s:", "w:"))
    assert int(await world.redis("HGET", names.meta, "total")) == size


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


@relaxed
@given(data=st.data())
def test_what_only_forgotten_records_needed_goes_with_them(play: Play, data: st.DataObject) -> None:
    """Histories that grow, go back, change in the middle or in the system text, on two workers."""

    async def scenario(world: World) -> None:
        gates = [Gate(world, Settings(store=Store(keep_requests=3))) for _ in range(2)]
        wire, sent = talk(1), 0
        for kind in data.draw(st.lists(st.sampled_from(["grow", "cut", "edit", "lead", "same"]), max_size=8)):
            match kind:
                case "grow":
                    wire = [*wire, *talk(1)[1:]]
                case "cut":
                    wire = wire[: data.draw(st.integers(2, len(wire)))]
                case "edit":
                    place = data.draw(st.integers(1, len(wire) - 1))
                    wire = [*wire[:place], {**wire[place], "name": f"n{sent}"}, *wire[place + 1 :]]
                case "lead":
                    wire = [{"role": "system", "content": f"today is day {sent}"}, *wire[1:]]
            left = await data.draw(st.sampled_from(gates)).send(wire)
            sent += 1
            account = await rebuilt(gates[0].store, sent)
            assert account.exact and (dump(account.received), dump(account.sent)) == (dump(wire), left)
            await nothing_is_left_over(world)
        for n in range(max(1, sent - 2), sent + 1):
            assert (await rebuilt(gates[0].store, n)).exact

    play(scenario)


def test_records_give_way_where_a_session_comes_near_its_limit(play: Play) -> None:
    async def scenario(world: World) -> None:
        await Gate(world).send(talk(3))
        size = int(await world.redis("HGET", keys.of_session(session()).meta, "total"))
        limited = Settings(store=Store(max_session_bytes=2 * size))
        gate = Gate(world, limited)
        numbers: list[int] = []
        while len(numbers) == (numbers[0] if numbers else 0):  # none was forgotten yet
            question = {"role": "user", "content": f"another question {len(numbers)} {'x' * 200}"}
            await gate.send([*talk(3)[:-1], question])
            await nothing_is_left_over(world)
            assert int(await world.redis("HGET", keys.of_session(session()).meta, "total")) <= 0.9 * 2 * size
            numbers = [n for n, _ in (await gate.store.requests.page(session(), 500)).records]
        page = await gate.store.requests.page(session(), 500)
        assert len(numbers) > 2 and page.total == len(numbers) and page.cursor is None
        for n in (numbers[0], numbers[-1]):
            assert (await rebuilt(gate.store, n)).exact
        await gate.store.limits.make_room(session(), 0, 2 * size)
        fields = await fields_of(world)
        assert not [name for name in fields if name[:2] in ("r:", "t:", "s:", "w:", "c:")]

    play(scenario)


@pytest.mark.parametrize("stands", ["the commit is late", "the store is away"])
def test_a_request_is_noted_when_its_commit_lands(play: Play, monkeypatch: Any, stands: str) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world)
        gate.settings = replace(gate.settings, deadlines=Deadlines(store_ms=1), store=Store(breaker_reset_ms=1))
        guarded = GuardedStore(gate.store, gate.settings)
        gate.pipeline = Pipeline(gate.settings, guarded, ignore)
        goes_on, commit = asyncio.Event(), gate.store.commit

        async def held_back(asked: Any) -> Any:
            if stands == "the store is away" and not goes_on.is_set():
                raise errors.ConnectionError
            await goes_on.wait()
            return await commit(asked)

        monkeypatch.setattr(gate.store, "commit", held_back)
        expected = [(dump(wire), await gate.send(wire)) for wire in (talk(1), talk(2), talk(3))]
        assert await gate.store.requests.newest(session()) == 0
        goes_on.set()
        await guarded.close(10)
        records = (await gate.store.requests.page(session(), 10)).records
        assert len(records) == 3
        told = []
        for n, _ in records:
            account = await rebuilt(gate.store, n)
            assert account.exact
            told.append((dump(account.received), dump(account.sent)))
        assert sorted(told) == sorted(expected)
        await nothing_is_left_over(world)

    play(scenario)


def test_a_request_whose_base_is_gone_is_noted_where_it_is_kept(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world)

        async def ask(wire: list[Any], body: Any, **changes: Any) -> str:
            asked = Incoming("responses", wire, {}, body, TENANT, dialect_of("openai"), "enforce", **changes)
            turn = await gate.pipeline.before(asked)
            assert turn is not None
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
            await gate.pipeline.after(turn, [item], complete=True, response_id="resp_1")
            await gate.store.requests.settled()
            return turn.headers["x-proxy-plugin-session"]

        await ask([{"role": "user", "content": "one?"}], {"metadata": {"session_id": "s-1"}})
        await world.redis("DEL", keys.of_session(session()).nodes)
        wire = [{"role": "user", "content": "and two?"}]
        found = await ask(wire, {}, continued=True, earlier=kept_under(TENANT, "response", "resp_1"))
        assert found != "s-1"
        place = address(TENANT, found)
        record = await gate.store.requests.record(place, 1)
        assert record is not None
        account = await gate.store.requests.rebuild(place, record)
        assert account is not None and account.exact and account.received == wire

    play(scenario)


def test_a_record_of_an_older_version_stays_readable(play: Play) -> None:
    """It held no links, no version and hashes of whole lists, and nothing in the session counted its uses."""

    async def scenario(world: World) -> None:
        gate, key = Gate(world, Settings(store=Store(keep_requests=2))), keys.of_session(session()).requests
        wire = talk(2)
        left = await gate.send(wire)
        record = await gate.store.requests.record(session(), 1)
        assert record is not None and record.pop("version") == VERSION
        del record["chains"]
        record["hashes"] = [sha256(one).hexdigest()[:32] for one in (dump(wire), left)]
        fields = await fields_of(world)
        token = fields["r:1"][:16]
        await world.redis("HSET", key, "r:1", token + Codec().encode(orjson.dumps(record), key, "r:" + token.decode()))
        await world.redis("HDEL", key, "o", *[name for name in fields if name.startswith("c:")])
        account = await rebuilt(gate.store, 1)
        assert account.exact and (dump(account.received), dump(account.sent)) == (dump(wire), left)
        for n in range(3, 8):
            await gate.send(talk(n))
        assert [n for n, _ in (await gate.store.requests.page(session(), 9)).records] == [6, 5]
        assert (await rebuilt(gate.store, 5)).exact and (await rebuilt(gate.store, 6)).exact
        assert {name for name in fields if name.startswith("w:")} <= (await fields_of(world)).keys()

    play(scenario)


def test_a_restored_session_tells_of_its_requests_as_before(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world, Settings(store=Store(keep_requests=4)))
        wires = [talk(1), talk(2, echo=True), [{"role": "system", "content": "other"}, *talk(2)[1:]], talk(3), talk(1)]
        for wire in [*wires, talk(2)]:
            await gate.send(wire)

        async def told() -> Any:
            records = (await gate.store.requests.page(session(), 10)).records
            return records, [await gate.store.requests.rebuild(session(), record) for _, record in records]

        before, text = await told(), await exported(gate.store)
        assert len(before[0]) == 4 and all(account.exact for account in before[1])
        await gate.send(talk(4))
        await imported(gate.store, text, replace=True)
        assert await told() == before and await exported(gate.store) == text
        await nothing_is_left_over(world)
        for n in range(4, 9):
            await gate.send(talk(n))
            await nothing_is_left_over(world)
        assert [n for n, _ in (await gate.store.requests.page(session(), 10)).records] == [11, 10, 9, 8]

        without = b"\n".join(line for line in text.split(b"\n") if b'"step"' not in line and b'"request"' not in line)
        await imported(gate.store, without, replace=True)
        assert await world.redis("EXISTS", keys.of_session(session()).requests) == 1  # rules alone
        assert (await told())[0] == ()

    play(scenario)


def test_what_an_import_says_of_requests_is_looked_at(play: Play) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world)
        await gate.send(talk(1))
        lines = (await exported(gate.store)).split(b"\n")
        places = {orjson.loads(line).get("type"): at for at, line in enumerate(lines) if line}
        for kind, changes in (
            ("rules", {"id": "0" * 16}),
            ("step", {"before": "f" * 16}),
            ("step", {"id": "x"}),
            ("step", {"node": "../x"}),
            ("step", {"residual": None}),
            ("request", {"n": "1"}),
            ("request", {"n": 0}),
            ("request", {"record": {}}),
            ("request", {"record": {"tip": "f" * 16}}),
        ):
            at = places[kind]
            said = orjson.loads(lines[at])
            if changes.get("record"):
                changes = {"record": {**said["record"], **changes["record"]}}
            text = b"\n".join([*lines[:at], orjson.dumps({**said, **changes}), *lines[at + 1 :]])
            with pytest.raises(LineError, match=f"line {at + 1}"):
                await imported(gate.store, text, replace=True)
        forged = orjson.loads(lines[places["step"]])
        text = b"\n".join(lines).replace(orjson.dumps(forged), orjson.dumps({**forged, "residual": "R{}"}))
        await imported(gate.store, text, replace=True)
        account = await rebuilt(gate.store, 1)
        assert account is None or not account.exact

    play(scenario)


def test_a_small_import_does_not_grow_into_work_or_bytes_without_end(play: Play, monkeypatch: Any) -> None:
    def forged(record: Any = None, ids: Any = None) -> Any:
        rules = orjson.loads(rules_of(Settings(), dialect_of("openai")))
        rules["dialect"]["ids"].update(ids or {})
        said = {"api": "chat", "outcome": "rewritten", "chains": ["", ""], "report": {}, **(record or {})}
        return accounts.rebuilt(said, rules, [dump(item) for item in talk(2)], [""] * len(talk(2)))

    assert forged().why
    for changes in ({"ids": {"exactly": 4_000_000_000}}, {"ids": {"at_most": -1}}, {"record": {"received": [0] * 2}}):
        with pytest.raises(ValueError):
            forged(**changes)
    with pytest.raises(ValueError, match="refers to more"):
        filled(b"T" + orjson.dumps([{"\0": 0}] * 300), "x" * 1_000_000)

    async def scenario(world: World) -> None:
        gate = Gate(world)
        await gate.send(talk(1))
        assert (await rebuilt(gate.store, 1)).exact
        monkeypatch.setattr(requests, "MAX_REBUILT", len(dump(talk(1))) // 2)
        assert await rebuilt(gate.store, 1) is None

    play(scenario)


def test_a_setting_that_changes_no_list_is_none_of_the_rules() -> None:
    one, other = Settings(limits=Limits(memo_bytes=1)), Settings(limits=Limits(max_messages=1))
    openai = dialect_of("openai")
    assert rules_of(one, openai) == rules_of(Settings(), openai) != rules_of(other, openai)


def test_what_waits_to_be_noted_is_bounded_in_bytes(play: Play) -> None:
    async def scenario(world: World) -> None:
        requests = world.worker(Settings(store=Store(backlog_bytes=1_000))).requests
        made: list[int] = []

        def make(n: int) -> Any:
            made.append(n)
            raise ValueError  # it is left out, and the next one written

        for n, size in enumerate([300, 300, 600, 300, 5_000, 100]):
            requests.note(partial(make, n), size)
        await requests.settled()
        assert made == [5]
        for n in range(3):
            requests.note(partial(make, n), 300)
        await requests.settled()
        assert made == [5, 0, 1, 2]

    play(scenario)


def test_nothing_is_kept_or_worked_out_where_the_setting_says_so(play: Play, monkeypatch: Any) -> None:
    async def scenario(world: World) -> None:
        gate = Gate(world, Settings(store=Store(keep_requests=0)))
        monkeypatch.setattr(pipeline, "noted", lambda *_: pytest.fail("a record is made"))
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
        other = await gate.store.requests.rebuild(session(), {**record, "chains": [record["chains"][0], "0" * 32]})
        assert other is not None and not other.exact and f"version {VERSION} " in other.why
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


@given(st.lists(st.binary(max_size=2)), st.lists(st.binary(max_size=2)), st.lists(st.binary(max_size=2)))
def test_a_chain_that_goes_on_is_that_of_the_whole_list(same: list[bytes], old: list[bytes], new: list[bytes]) -> None:
    before = Chain([*same, *old])
    after = Chain([*same, *new], before)
    assert after.links == Chain([*same, *new]).links and after.alike >= len(same)
    assert (after.hash == before.hash) == (new == old)


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
@relaxed
@given(data=st.data())
def test_what_is_hashed_behind_an_earlier_request_is_the_same(api: str, data: st.DataObject) -> None:
    """Whatever that was: another history, another beginning, another form."""
    histories = {"chat": broken_chats, "messages": broken_messages, "responses": broken_responses}
    before = None
    for _ in range(3):
        wire = data.draw(st.one_of(histories[api](), broken_chats()) if before is None else histories[api]())
        wires = list(prefixes(wire))[-2:]
        for sent in wires:
            handled = handled_of(api, sent)
            if handled is not None:
                made, before = noted(handled, before)
                again, alone = noted(handled, None)
                assert before is not None and alone is not None
                assert (before.steps, before.came.links, before.left.links) == (
                    alone.steps,
                    alone.came.links,
                    alone.left.links,
                )
                place = Stored(session())
                assert made(place).record == again(place).record
                assert list(made(place).fragments(0)) == list(again(place).fragments(0))


@pytest.mark.parametrize("length", [40, 400])
def test_only_new_messages_are_hashed(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    wire = talk(length // 4)
    first, second = handled_of("chat", wire[:-3]), handled_of("chat", wire)
    assert first is not None and second is not None
    _, before = noted(first, None)
    hashed: list[None] = []
    for module in (chain, recorder):
        monkeypatch.setattr(module, "sha256", lambda *data: hashed.append(None) or sha256(*data))
    noted(second, before)
    new = 3 + 2  # and the summaries that were not there before
    assert 0 < len(hashed) <= 3 * new


def handled_of(api: str, wire: Any) -> Handled | None:
    path = read(wire, api)
    if path is None:
        return None
    dialect, chosen = dialect_of("openai", api), Settings()
    asked = Incoming(api, wire, {}, {}, TENANT, dialect, "enforce")
    result = rewrite(path, dialect, chosen, NOTHING_SAID)
    assert result.dumps is None or list(result.dumps) == [dump(item) for item in result.messages]
    commit = request_commit(path, session(), {}, {})
    return Handled(asked, wire, path, path, commit, chosen, NOTHING_SAID, result, "rewritten")


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
