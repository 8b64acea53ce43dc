"""Encryption at rest in a real server: no text lies there, keys change, and a missing key costs no data."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.doctor.encryption import check_keys, check_stored
from proxy_plugin.events import ValueLocked, ignore
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.bodies import Codec, key_of, size_of
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.encryption import Keyring, Locked, LockedValues
from proxy_plugin.sessions.profile import Profile
from proxy_plugin.sessions.resealing import Resealed
from proxy_plugin.sessions.snapshots import Restored
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.subtasks import Plan
from proxy_plugin.sessions.texts import Texts
from proxy_plugin.sessions.tree import Snapshot, Subtask
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import ENCRYPTION_KEYS, Deadlines, Settings, SettingsError, Store
from tests.binaries import require_package
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, TENANT, session
from tests.sessions.spoken import asked, assistant, calling, result, talk, user

require_package("cryptography")

Play = Callable[[Scenario], None]
NEEDLE = "heliotrope"
NAMES = keys.of_session(session())
SPOKEN: list[dict[str, Any]] = [
    {"role": "system", "content": f"{NEEDLE} rules"},
    user(f"find the {NEEDLE}"),
    calling("call_1", "search", json.dumps({"for": NEEDLE})),
    result("call_1", f"a long {NEEDLE} " * 200),
    assistant(f"It is the {NEEDLE}."),
    user(f"and the other {NEEDLE}?"),
]


def key(name: str) -> str:
    return b64encode(sha256(name.encode()).digest()).decode()


def keyring(*names: str) -> Keyring:
    ring = Keyring.of({ENCRYPTION_KEYS: ",".join(map(key, names))})
    assert ring is not None
    return ring


def with_keys(world: World, *names: str, chosen: Settings | None = None) -> SessionStore:
    """A worker that has these keys; none: one without encryption."""
    return world.worker(chosen, Codec(keyring(*names) if names else None, LockedValues(world.events.append)))


async def values(world: World) -> list[bytes]:
    """All that lies in the database, but for names of keys."""
    read = {
        b"hash": ("HGETALL",), b"list": ("LRANGE", 0, -1), b"zset": ("ZRANGE", 0, -1), b"set": ("SMEMBERS",),
        b"string": ("GET",),
    }  # fmt: skip
    found: list[bytes] = []
    for name in await world.keys():
        command, *rest = read[await world.redis("TYPE", name)]
        answer = await world.redis(command, name, *rest)
        pieces = answer if isinstance(answer, list | set) else [answer]
        for piece in [*answer.keys(), *answer.values()] if isinstance(answer, dict) else pieces:
            found.append(piece if isinstance(piece, bytes) else str(piece).encode())
    return found


def shown(stored: bytes) -> bytes:
    """The value, and whatever in it zstd can unpack."""
    at, parts = stored.find(zstandard.FRAME_HEADER), [stored]
    while at >= 0:
        with suppress(zstandard.ZstdError):
            parts.append(zstandard.ZstdDecompressor().decompress(stored[at:], max_output_size=10_000_000))
        at = stored.find(zstandard.FRAME_HEADER, at + 1)
    return b"\n".join(parts)


async def everything_said(worker: SessionStore) -> None:
    """A session that has the needle in each text that can be said of one."""
    chosen = Settings(deadlines=Deadlines(store_ms=10_000))
    pipeline = Pipeline(chosen, GuardedStore(worker, chosen), ignore)
    said = {"agent": "scout", "agent_reason": f"a {NEEDLE} is wanted", "session_id": "s-1"}
    subtask = {"id": "find", "description": f"find a {NEEDLE}", "metadata": {"of": NEEDLE}}
    for count, more in ((2, {}), (5, {"subtask": subtask, "agent": "other"})):
        body = {"metadata": {**said, **more}}
        turn = await pipeline.before(
            Incoming("chat", SPOKEN[:count], {}, body, TENANT, dialect_of("openai"), "enforce")
        )
        assert turn is not None
        await pipeline.after(turn, SPOKEN[count], complete=True)
    await talk(worker, SPOKEN, metadata={**said, "subtask": subtask})
    await worker.requests.settled()
    await worker.profiles.change(
        session(), Profile(title=f"my {NEEDLE}", description=f"{NEEDLE}s", metadata={"flower": NEEDLE})
    )
    assert isinstance(await worker.snapshots.create(session(), f"before the {NEEDLE}"), Snapshot)
    for name, end in (("one", worker.subtasks.complete), ("two", worker.subtasks.fail)):
        await worker.subtasks.begin(session(), Plan(name, f"a {NEEDLE}", metadata={"kind": NEEDLE}))
        assert isinstance(await end(session(), name, f"the {NEEDLE}"), Subtask)


async def told(worker: SessionStore) -> dict[str, Any]:
    """All of it, as a reader is told."""
    history = await worker.reader.history(session())
    info = await worker.reader.session(session())
    assert history is not None and info is not None
    page = await worker.requests.page(session(), 10)
    found = await worker.searches.search(session(), NEEDLE)
    return {
        "bodies": [node.body for node in history.nodes],
        "lead": history.lead,
        "missing": history.missing,
        "info": (info.title, info.description, info.metadata, info.agent_history),
        "snapshots": {(one.name, one.title) for one in await worker.reader.snapshots(session())},
        "subtasks": {
            one.id: (one.state, one.description, one.metadata, one.result_text, one.error_message)
            for one in await worker.reader.subtasks(session())
        },
        "hits": found.total,
        "requests": [
            account and (account.received, account.sent)
            for account in [await worker.requests.rebuild(session(), record) for _, record in page.records]
        ],
    }


def test_no_text_lies_anywhere_in_the_store_and_a_reader_sees_all_of_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        plain = with_keys(world)
        await everything_said(plain)
        expected = await told(plain)
        assert str(expected).count(NEEDLE) > 200 and None not in expected["requests"] and len(expected["requests"]) == 2
        holding = [value for value in await values(world) if NEEDLE.encode() in shown(value)]
        assert len(holding) >= 20  # it would be found

        await world.redis("FLUSHALL")
        worker = with_keys(world, "a")
        await everything_said(worker)
        found = await told(with_keys(world, "a"))
        times = {"agent_history", "timestamp"}
        assert timeless(found, times) == timeless(expected, times)
        for stored in await values(world):
            assert NEEDLE.encode() not in shown(stored)
            assert NEEDLE.encode()[:6] not in stored
        secrets = key("a").encode(), sha256(b"a").digest()
        assert not any(secret in stored for stored in await values(world) for secret in secrets)

    play(scenario)


def timeless(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: timeless(inner, names) for name, inner in value.items() if name not in names}
    if isinstance(value, list | tuple):
        return [timeless(inner, names) for inner in value]
    return value


def test_a_new_key_is_put_in_front_and_the_old_one_still_reads(play: Play) -> None:
    async def scenario(world: World) -> None:
        await everything_said(with_keys(world, "old"))
        before = await told(with_keys(world, "old"))
        turned = with_keys(world, "new", "old")
        assert await told(turned) == before
        await talk(turned, [*SPOKEN, assistant("done")])
        history = await turned.reader.history(session())
        assert history is not None and history.missing == ()
        by = {key_of(await world.redis("HGET", NAMES.bodies, node.id)) for node in history.nodes}
        assert by == {*keyring("new").ids, *keyring("old").ids}
        # Two workers, each with its own key in front, read each other.
        other = await with_keys(world, "old", "new").reader.history(session())
        assert other is not None and [n.body for n in other.nodes] == [n.body for n in history.nodes]
        assert not [event for event in world.events if isinstance(event, ValueLocked)]

    play(scenario)


@pytest.mark.parametrize("names", [(), ("new",)], ids=["without keys", "with another key"])
def test_what_cannot_be_decrypted_is_named_counted_and_never_overwritten(
    names: tuple[str, ...], play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        owner = with_keys(world, "old")
        await talk(owner, SPOKEN)
        whole = await owner.reader.history(session())
        assert whole is not None
        before = {part: await world.redis("HGETALL", getattr(NAMES, part)) for part in ("bodies", "leads", "nodes")}
        stranger = with_keys(world, *names)
        with caplog.at_level(logging.WARNING, "proxy_plugin"):
            seen = await stranger.reader.history(session())
            await stranger.reader.history(session())
        assert seen is not None and seen.lead is None and set(seen.missing) == {node.id for node in whole.nodes}
        assert len([event for event in world.events if isinstance(event, ValueLocked)]) == 2 * (len(whole.nodes) + 1)
        (line,) = [record.getMessage() for record in caplog.records if ENCRYPTION_KEYS in record.getMessage()]
        assert keyring("old").ids[0] in line and key("old") not in line
        assert await world.redis("HGET", NAMES.meta, "damaged") is None

        # Even where damage is noted, and the whole history comes, only what is damaged is put back.
        node = whole.nodes[1].id
        await world.redis("HDEL", NAMES.bodies, node)
        await stranger.commit(asked(SPOKEN))
        done = await talk(stranger, [*SPOKEN, assistant("yes"), user("next")])
        assert done.session_id == "s-1" and not done.alone and done.branch == "main"
        after = {part: await world.redis("HGETALL", getattr(NAMES, part)) for part in before}
        assert after["leads"] == before["leads"]
        changed = {name for name, value in before["bodies"].items() if after["bodies"][name] != value}
        assert changed == {node.encode()}

        both = with_keys(world, "old", *names)
        history = await both.reader.history(session())
        assert history is not None and history.missing == () and history.lead == whole.lead
        assert [n.body for n in history.nodes[: len(whole.nodes)]] == [n.body for n in whole.nodes]
        assert len(history.nodes) == len(whole.nodes) + 2

    play(scenario)


def test_texts_of_records_stay_where_the_key_is_missing(play: Play) -> None:
    async def scenario(world: World) -> None:
        owner = with_keys(world, "old")
        await everything_said(owner)
        before = await told(owner)
        stranger = with_keys(world, "new")
        info = await stranger.reader.session(session())
        assert info is not None and (info.title, info.description, info.metadata) == ("", "", {})
        assert {one.description for one in await stranger.reader.subtasks(session())} == {None}
        assert {(one.name, one.title) for one in await stranger.reader.snapshots(session())} == {("", None)}
        assert [
            await stranger.requests.rebuild(session(), r)
            for _, r in (await stranger.requests.page(session(), 9)).records
        ] == []
        pieces = await stranger.transfer.export(session())
        assert pieces is not None
        assert NEEDLE.encode() not in b"".join([piece async for piece in pieces])
        assert await told(owner) == before

    play(scenario)


@pytest.mark.parametrize("before", [("old",), ()], ids=["older key", "no key"])
def test_resealing_brings_all_of_it_under_the_new_key(before: tuple[str, ...], play: Play) -> None:
    async def scenario(world: World) -> None:
        await everything_said(with_keys(world, *before))
        said = await told(with_keys(world, *before))
        turned = with_keys(world, "new", *before)
        done = await turned.resealing.session(session())
        assert done.values > 20 and done.locked == 0
        assert await turned.resealing.session(session()) == Resealed()
        assert await told(with_keys(world, "new")) == said
        assert not any(NEEDLE.encode() in shown(value) for value in await values(world))
        stored = 0
        for name in (NAMES.nodes, NAMES.bodies, NAMES.leads, NAMES.requests):
            stored += sum(map(len, await world.redis("HVALS", name)))
        assert abs(int(await world.redis("HGET", NAMES.meta, "total")) - stored) < stored / 10

    play(scenario)


def test_resealing_leaves_what_it_cannot_read_and_what_changed_meanwhile(play: Play) -> None:
    async def scenario(world: World) -> None:
        await everything_said(with_keys(world, "old"))
        said, raw = await told(with_keys(world, "old")), sorted(await values(world))
        done = await with_keys(world, "new").resealing.session(session())
        assert done.values == 0 and done.locked > 20
        assert sorted(await values(world)) == raw and await told(with_keys(world, "old")) == said
        connection = world.connection()
        node, body = next(iter((await world.redis("HGETALL", NAMES.bodies)).items()))
        for key_list, was in (([NAMES.meta, NAMES.bodies], b"other"), ([NAMES.tomb, NAMES.bodies], body)):
            assert await connection.run("reseal", key_list, ["1", node, was, b"new"]) == 0
        assert await connection.run("reseal", [NAMES.meta, NAMES.bodies], ["1", "0" * 32, b"", b"new"]) == 0
        assert sorted(await values(world)) == raw
        assert await with_keys(world).resealing.session(session()) == Resealed()

    play(scenario)


def test_a_restore_writes_its_result_encrypted(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = with_keys(world, "a")
        await talk(worker, SPOKEN[:2])
        snapshot = await worker.snapshots.create(session(), "start")
        assert isinstance(snapshot, Snapshot)
        await talk(worker, SPOKEN[:5])
        restored = await worker.snapshots.restore(session(), snapshot.snapshot_id)
        assert isinstance(restored, Restored)
        history = await worker.reader.history(session())
        assert history is not None and history.missing == () and NEEDLE.encode() in (history.nodes[-1].body or b"")
        assert not any(NEEDLE.encode() in shown(value) for value in await values(world))

    play(scenario)


@pytest.mark.parametrize("place", [1, 3, 8, 12, -1], ids=["codec", "size", "key", "nonce", "tag"])
def test_tampered_bytes_are_noticed_and_come_back_with_the_next_history(place: int, play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = with_keys(world, "a")
        await talk(worker, SPOKEN)
        whole = await worker.reader.history(session())
        assert whole is not None
        node = whole.nodes[3].id
        body = bytearray(await world.redis("HGET", NAMES.bodies, node))
        body[place] ^= 0x01
        await world.redis("HSET", NAMES.bodies, node, bytes(body))
        history = await worker.reader.history(session())
        assert history is not None and history.missing == (node,) and history.nodes[3].body is None
        await worker.commit(asked(SPOKEN))
        history = await worker.reader.history(session())
        assert history is not None
        if place == 8:  # a key's id that is not here: it may be another worker's
            assert history.missing == (node,)
        else:
            assert history.missing == () and history.nodes == whole.nodes

    play(scenario)


def test_what_is_moved_to_another_place_does_not_decrypt_there(play: Play) -> None:
    """Whoever can write to the store, but has no key, cannot have one tenant's text read out to another."""

    async def scenario(world: World) -> None:
        worker, thief = with_keys(world, "a"), session("s-1", OTHER_TENANT)
        await everything_said(worker)
        await talk(worker, SPOKEN, thief)
        own, other = NAMES, keys.of_session(thief)
        history = await worker.reader.history(thief)
        assert history is not None
        for part in ("bodies", "leads", "subtasks", "profile", "named"):
            for field, value in (await world.redis("HGETALL", getattr(own, part))).items():
                await world.redis("HSET", getattr(other, part), field, value)
        one, two = (node.id for node in history.nodes[:2])
        await world.redis("HSET", own.bodies, one, await world.redis("HGET", own.bodies, two))
        stolen = await worker.reader.history(thief)
        assert stolen is not None and len(stolen.missing) == len(stolen.nodes) and stolen.lead is None
        info = await worker.reader.session(thief)
        assert info is not None and NEEDLE not in str(info)
        assert NEEDLE not in str(await worker.reader.subtasks(thief))
        swapped = await worker.reader.history(session())
        assert swapped is not None and swapped.missing == (one,)

    play(scenario)


@pytest.mark.parametrize("first", ["plain", "encrypted"])
def test_plain_and_encrypted_bodies_lie_side_by_side(first: str, play: Play) -> None:
    async def scenario(world: World) -> None:
        before, after = with_keys(world), with_keys(world, "a")
        if first == "encrypted":
            before, after = with_keys(world, "a"), with_keys(world)
        await talk(before, SPOKEN[:5])
        await talk(after, SPOKEN)
        by = {
            (await world.redis("HGET", NAMES.bodies, field))[1:2] == b"2"
            for field in await world.redis("HKEYS", NAMES.bodies)
        }
        assert by == {True, False}
        history = await with_keys(world, "a").reader.history(session())
        assert history is not None and history.missing == () and len(history.nodes) == 5

    play(scenario)


def test_an_export_is_plain_and_an_import_encrypts(play: Play) -> None:
    async def exported(worker: SessionStore) -> bytes:
        pieces = await worker.transfer.export(session())
        assert pieces is not None
        return b"".join([piece async for piece in pieces])

    async def fed(text: bytes) -> AsyncIterator[bytes]:
        yield text

    async def scenario(world: World) -> None:
        one, other = with_keys(world, "a"), with_keys(world, "b")
        await everything_said(one)
        text, before = await exported(one), await told(one)
        lines = [json.loads(line) for line in text.splitlines()]
        assert {line.get("type") for line in lines} >= {"lead", "node", "subtask", "snapshot", "agent", "profile"}
        assert text.count(NEEDLE.encode()) > 200 and b"pp-sealed" not in text
        assert keyring("a").ids[0].encode() not in text and key("a").encode() not in text

        await one.delete(session())
        await other.transfer.read_in(TENANT, fed(text))
        assert await exported(other) == text
        assert {**await told(other), "requests": before["requests"]} == before
        assert not any(NEEDLE.encode() in shown(value) for value in await values(world))

    play(scenario)


@given(st.binary(max_size=3_000) | st.builds(lambda part: part * 90, st.binary(min_size=1, max_size=40)), st.text())
def test_every_body_reads_back_where_it_was_written_and_nowhere_else(body: bytes, field: str) -> None:
    field = field.encode("utf-8", "replace").decode()
    codec = Codec(keyring("a", "b"))
    stored = codec.encode(body, "key", field)
    assert codec.decode(stored, "key", field) == body and size_of(stored) == len(body)
    assert Codec(keyring("c", "a")).decode(stored, "key", field) == body
    assert stored != codec.encode(body, "key", field)
    for lost in (Codec(), Codec(keyring("b"))):
        assert lost.is_locked(stored) and lost.read(stored, "key", field) is None
        with pytest.raises(Locked):
            lost.decode(stored, "key", field)
    for place in (("yek", field), ("key", field + "x"), ("key\0", field)):
        with pytest.raises(ValueError, match="damaged"):
            codec.decode(stored, *place)


@given(st.binary(max_size=200), st.data())
def test_any_damage_is_one_error(body: bytes, data: st.DataObject) -> None:
    codec = Codec(keyring("a"))
    stored = codec.encode(body, "key", "field")
    at = data.draw(st.integers(0, len(stored) - 1))
    flipped = bytearray(stored)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), stored[:at]):
        assert codec.read(damaged, "key", "field") is None or damaged[1:2] in b"01"


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers()))
def test_texts_of_a_record_read_back(text: str, metadata: dict[str, Any]) -> None:
    text = text.encode("utf-8", "replace").decode()
    texts = Texts(Codec(keyring("a")), NAMES)
    record = {"id": "x", "description": text, "metadata": {"of": text}}
    sealed = json.dumps(texts.sealed("subtasks", record), separators=(",", ":")).encode()
    assert json.loads(texts.opened(sealed)) == record
    alone = texts.sealed("profile", {"description": text})["description"].encode()
    assert texts.opened(alone).decode() == text
    assert Texts(Codec(), NAMES).sealed("subtasks", record) == record


def test_a_clients_text_that_looks_like_a_token_stays_text() -> None:
    plain, texts = Texts(Codec(), NAMES), Texts(Codec(keyring("a")), NAMES)
    token = texts.sealed("meta", {"title": "x"})["title"]
    for said in (f'a "{token}" b', f'"{token}', "pp-sealed-1:", f"{token}!"):
        record = json.dumps({"description": said}).encode()
        assert json.loads(plain.opened(record)) == {"description": said}
        assert plain.opened(said.encode()) == said.encode()
        sealed = json.dumps(texts.sealed("subtasks", {"description": said})).encode()
        assert json.loads(texts.opened(sealed)) == {"description": said}
    for other in ({"id": token, "agent": token}, {"metadata": {token: 1}}, {"depends_on": [token]}):
        assert json.loads(plain.opened(json.dumps(other).encode())) == other


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 1), (" ", 1), ("secret", 1), (key("a") + ",", 2), (key("a") + "," + key("b")[:-4], 2),
        (b64encode(b"x" * 31).decode(), 1), (key("a") + ", sécret", 2), ("s3cret" * 7, 1),
    ],
)  # fmt: skip
def test_a_bad_key_stops_the_start_and_is_named_by_its_position(text: str, position: int) -> None:
    with pytest.raises(SettingsError) as raised:
        Connection.open(Settings(store=Store(url="redis://127.0.0.1:1")), {ENCRYPTION_KEYS: text})
    said = str(raised.value)
    assert said.startswith(f"{ENCRYPTION_KEYS}: key {position} ") and "\n" not in said
    assert not any(part.strip() and part.strip() in said for part in text.split(","))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    assert Keyring.of({}) is None
    with pytest.raises(SettingsError, match=r"litellm-session-plugin\[encryption\]"):
        Keyring.of({ENCRYPTION_KEYS: key("a")})


def test_keys_are_read_in_both_alphabets_and_shown_nowhere() -> None:
    standard, other = key("a"), urlsafe_b64encode(sha256(b"a").digest()).decode()
    environ = {ENCRYPTION_KEYS: f" {standard} , {key('b')}"}
    assert Settings.load(environ=environ) == Settings()
    connection = Connection.open(Settings(store=Store(url="redis://127.0.0.1:1")), environ)
    assert connection is not None and connection.codec.keyring is not None
    assert connection.codec.keyring.ids == keyring("a", "b").ids
    assert Keyring.of({ENCRYPTION_KEYS: other}) is not None and keyring("a").ids == keyring("a", "a").ids
    assert not any(secret in repr(connection.codec) for secret in (standard, sha256(b"a").digest().hex()))


def test_the_doctor_says_whether_the_keys_here_open_what_is_stored(play: Play) -> None:
    (off,) = check_keys({})
    assert off.level == "ok" and "off" in off.message
    (fine,) = check_keys({ENCRYPTION_KEYS: f"{key('a')},{key('b')}"})
    assert fine.level == "ok" and all(one in fine.message for one in keyring("a", "b").ids)
    (wrong,) = check_keys({ENCRYPTION_KEYS: "s3cret"})
    assert wrong.level == "error" and wrong.cure and "s3cret" not in str(wrong)

    async def scenario(world: World) -> None:
        for name, of in (("one", ("a",)), ("two", ("b",)), ("three", ())):
            worker = with_keys(world, *of)
            await talk(worker, SPOKEN, session(name))
            await worker.index.flush()
        both = world.connection(Codec(keyring("a", "b")))
        (found,) = [finding async for finding in check_stored(both, Settings())]
        assert found.level == "ok" and "1 not encrypted" in found.message
        one = world.connection(Codec(keyring("a")))
        (found,) = [finding async for finding in check_stored(one, Settings())]
        assert found.level == "error" and keyring("b").ids[0] in found.message
        assert "1 of the 3 newest sessions" in found.message

    play(scenario)


def test_one_codec_serves_many_threads() -> None:
    codec = Codec(keyring("a"))

    async def main() -> list[bool]:
        def turn(n: int) -> bool:
            body = b"%d " % n * 1_000
            return all(codec.decode(codec.encode(body, "k", str(n)), "k", str(n)) == body for _ in range(50))

        return await asyncio.gather(*(asyncio.to_thread(turn, n) for n in range(8)))

    assert all(asyncio.run(main()))
