"""A store that keeps no texts: what is written, switching to it and back, mending, and moving sessions in and out."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy_plugin.admin.histories import content_of, wire_history
from proxy_plugin.gateway import resume
from proxy_plugin.history.account import rules_of
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.history.redaction import is_redacted
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.embedded import Embedded
from proxy_plugin.sessions.lines import LineError
from proxy_plugin.sessions.snapshots import Restored
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.subtasks import Place, Plan
from proxy_plugin.sessions.tree import History, Snapshot, Subtask
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import Scenario, World, free_port
from tests.sessions.dump import everything
from tests.sessions.paths import TENANT, session
from tests.sessions.spoken import asked, assistant, calling, result, talk, user
from tests.sessions.test_writer import SETTINGS, Guarded

Play = Callable[[Scenario], None]
FULL, STRUCTURE = Settings(), Settings(store=Store(content="structure"))
NAMES = keys.of_session(session())
LEAD = {"role": "system", "content": "the secret plan"}
FIRST = [
    LEAD,
    user("find the secret flight"),
    calling("call_1", "search", '{"to": "secret place"}'),
    result("call_1", "secret SK 4711"),
    assistant("It is the secret SK 4711."),
]
SECOND = [*FIRST, user("book the secret flight"), assistant("The secret is booked.")]
SAID = {"agent": "scout", "agent_reason": "a secret reason", "subtask": {"id": "one", "description": "secret"}}
SKELETON = [
    {"role": "system", "content": ""},
    {"role": "user", "content": ""},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "search", "arguments": ""}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": ""},
    {"role": "assistant", "content": ""},
]


async def history(worker: SessionStore) -> History:
    found = await worker.reader.history(session())
    assert found is not None
    return found


async def secrets(world: World) -> set[str]:
    """Keys of what holds a text."""
    return {key for key, value in await everything(world.redis) if b"secret" in value}


async def exported(worker: SessionStore) -> bytes:
    stream = await worker.transfer.export(session())
    assert stream is not None
    return b"".join([piece async for piece in stream])


async def imported(worker: SessionStore, text: bytes) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield text

    await worker.transfer.read_in(TENANT, body(), replace=True)


def test_a_conversation_is_kept_without_its_texts(play: Play) -> None:
    async def scenario(world: World) -> None:
        await talk(world.worker(FULL), FIRST, metadata=SAID)
        whole, texts = await history(world.worker()), await secrets(world)
        assert {NAMES.bodies, NAMES.leads, NAMES.subtasks, NAMES.agents} <= texts  # so that the look finds them
        await world.redis("FLUSHALL")

        worker = world.worker(STRUCTURE)
        await talk(worker, FIRST, metadata=SAID)
        kept = await history(worker)
        assert await secrets(world) == set()
        assert wire_history(kept).messages == SKELETON
        assert content_of(kept.lead, kept.nodes) == "structure" and content_of(whole.lead, whole.nodes) == "full"
        for one, other in zip(whole.nodes, kept.nodes, strict=True):
            assert (one.id, one.parent, one.depth, one.role, one.subtask, one.lead) == (
                other.id, other.parent, other.depth, other.role, other.subtask, other.lead,
            )  # fmt: skip
            assert one.size == other.size > len(other.body or b"") - len('"content":"structure","bytes":100,')
        assert kept.session.size_bytes == whole.session.size_bytes
        assert kept.session.current_agent == "scout" and kept.session.agent_history[0]["reason"] is None
        (subtask,) = await worker.reader.subtasks(session())
        assert (subtask.id, subtask.description, subtask.state) == ("one", None, "completed")

    play(scenario)


def test_what_is_said_of_subtasks_by_http_is_not_kept(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(STRUCTURE)
        await talk(worker, FIRST)
        plan = Plan("two", description="secret", agent="scout", metadata={"note": "secret"})
        begun = await worker.subtasks.begin(session(), plan)
        assert isinstance(begun, tuple) and begun[1]
        failed = await worker.subtasks.fail(session(), "two", "a secret error")
        assert isinstance(failed, Subtask) and (failed.state, failed.error_message, failed.withheld) == (
            "failed", None, True,
        )  # fmt: skip
        await worker.subtasks.begin(session(), plan)
        done = await worker.subtasks.complete(session(), "two", "a secret result")
        assert isinstance(done, Subtask) and (done.state, done.result_text, done.withheld) == ("completed", None, True)
        await worker.subtasks.begin(session(), Plan("three"))
        silent = await worker.subtasks.complete(session(), "three", None)
        assert isinstance(silent, Subtask) and not silent.withheld  # it had no text
        assert await secrets(world) == set()

        place = Place([node.id for node in (await history(worker)).nodes], 4)
        for needed, withheld in (("two", True), ("three", False)):
            standing = await worker.subtasks.standing(session(), Plan("four", depends_on=(needed,)), place)
            assert standing.withheld is withheld
            assert standing.given == (() if withheld else ("three",))

    play(scenario)


def test_switched_to_it_and_back(play: Play) -> None:
    async def scenario(world: World) -> None:
        await talk(world.worker(FULL), FIRST)
        careful = world.worker(STRUCTURE)
        await talk(careful, SECOND)
        mixed = await history(careful)
        assert wire_history(mixed).messages == [*FIRST, {"role": "user", "content": ""}, SKELETON[-1]]
        assert content_of(mixed.lead, mixed.nodes) == "structure"
        sent = [user("and now?")]
        assert resume.behind(mixed, "chat", sent, {}) is None

        worker = world.worker(FULL)
        third = [*SECOND, user("and the secret hotel?")]
        committed = await worker.commit(asked(third))
        assert committed.new_nodes == 1  # what is there already is not written again
        assert [is_redacted(orjson.loads(node.body or b"")) for node in (await history(worker)).nodes] == [
            False, False, False, False, True, True, False,
        ]  # fmt: skip
        found = await worker.searches.search(session(), "secret")
        assert (found.total, found.complete) == (5, False)

    play(scenario)


@pytest.mark.parametrize("lost", ["body", "node"])
def test_mending_brings_no_text_back_and_comes_to_an_end(play: Play, lost: str) -> None:
    async def scenario(world: World) -> None:
        await talk(world.worker(FULL), FIRST)
        worker = world.worker(STRUCTURE)
        await talk(worker, SECOND)
        nodes = (await history(worker)).nodes
        for node in (nodes[1], nodes[4]):  # one that had its text, one that had not
            await world.redis("HDEL", NAMES.bodies, node.id)
            if lost == "node":
                await world.redis("HDEL", NAMES.nodes, node.id)
        await worker.commit(asked([*SECOND, user("go on")]))
        healed = await history(worker)
        assert not healed.missing and len(healed.nodes) == 7
        assert [is_redacted(orjson.loads(node.body or b"")) for node in healed.nodes] == [
            False, True, False, False, True, True, True,
        ]  # fmt: skip
        assert [node.size for node in healed.nodes[:6]] == [node.size for node in nodes]
        again = await worker.commit(asked([*SECOND, user("go on")]))
        assert again.round_trips == 1 and again.new_nodes == 0

    play(scenario)


def test_an_import_into_it_leaves_the_texts_out(play: Play) -> None:
    async def scenario(world: World) -> None:
        source = world.worker(FULL)
        await talk(source, FIRST, metadata=SAID)
        await source.subtasks.begin(session(), Plan("two", description="secret", metadata={"note": "secret"}))
        await source.subtasks.complete(session(), "two", "a secret result")
        text, sizes = await exported(source), [node.size for node in (await history(source)).nodes]
        assert b"secret" in text
        await world.redis("FLUSHALL")

        worker = world.worker(STRUCTURE)
        await imported(worker, text)
        assert await secrets(world) == set()
        kept = await history(worker)
        assert wire_history(kept).messages == SKELETON and [node.size for node in kept.nodes] == sizes
        states = {subtask.id: (subtask.state, subtask.withheld) for subtask in await worker.reader.subtasks(session())}
        assert states == {"one": ("completed", False), "two": ("completed", True)}

        skeleton = await exported(worker)
        assert b"secret" not in skeleton
        await world.redis("FLUSHALL")
        await imported(world.worker(FULL), skeleton)  # what has no texts can be taken in anywhere
        assert await exported(world.worker()) == skeleton
        assert [node.size for node in (await history(world.worker())).nodes] == sizes

    play(scenario)


def test_what_says_that_it_has_no_texts_and_has_is_taken_in_without(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(FULL)
        await talk(worker, FIRST)
        text = await exported(worker)
        lied = text.replace(b'"body":{"api":"chat","wire"', b'"body":{"api":"chat","content":"structure","wire"')
        lied = lied.replace(b'[{"api":"chat","wire"', b'[{"api":"chat","content":"structure","bytes":-1,"wire"')
        assert lied.count(b'"content":"structure"') == 5
        await imported(worker, lied)
        assert await secrets(world) == set() and wire_history(await history(worker)).messages == SKELETON
        with pytest.raises(LineError):
            await imported(worker, text.replace(b"secret", b"other"))

    play(scenario)


def with_a_request(text: bytes, record: dict[str, Any], rules: Any = None) -> bytes:
    """An export with one request more, of these rules."""
    value = rules_of(FULL, dialect_of("openai", "chat")) if rules is None else orjson.dumps(rules)
    name = sha256(value).hexdigest()[:16]
    lines = [b'{"type":"rules","id":"%s","value":%s}' % (name.encode(), value)]
    lines.append(orjson.dumps({"type": "request", "n": 1, "record": {**record, "rules": name}}))
    body, end = text.rstrip(b"\n").rsplit(b"\n", 1)
    return b"\n".join([body, *lines, end, b""])


NOTED = {
    "at": 1,
    "api": "chat",
    "model": "gpt-4o",
    "mode": "enforce",
    "outcome": "rewritten",
    "version": "1.2.3",
    "ends": ["0" * 32],
    "report": {"ids_renamed": 1, "prefix_break": "subtask"},
    "content": "structure",
    "tip": "",
    "edits": [{"message": 2, "node": "0" * 32, "edits": ["summary"], "instead_of": ["1" * 32]}],
}


def test_a_request_that_says_it_has_no_texts_brings_none(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(STRUCTURE)
        await talk(worker, FIRST)
        text = await exported(worker)
        await imported(worker, with_a_request(text, NOTED))
        kept = await worker.requests.record(session(), 1)
        assert kept is not None and {**NOTED, "rules": kept["rules"]} == kept

        added = {**NOTED, "note": "secret", "received": ["secret"], "report": {**NOTED["report"], "secret": "secret"}}
        await imported(worker, with_a_request(text, added))
        assert await worker.requests.record(session(), 1) == kept
        rules = {**orjson.loads(rules_of(FULL, dialect_of("openai", "chat"))), "note": "secret"}
        await imported(worker, with_a_request(text, NOTED, rules))
        assert await secrets(world) == set()

        edit = NOTED["edits"][0]
        for field, said in (
            *(
                ("edits", [{**edit, **one}])
                for one in ({"note": "secret"}, {"node": "a secret"}, {"message": "secret"})
            ),
            ("edits", [{**edit, "edits": {"summary": "secret"}}]),
            ("edits", [{**edit, "edits": ["secret"]}]),
            ("edits", [{**edit, "instead_of": {"1" * 32: "secret"}}]),
            ("ends", ["a secret"]),
            ("resets", {"1" * 32: "secret"}),
            ("continued", "secret"),
            ("model", "a secret model"),
            ("version", "a secret"),
            ("report", {"ids_renamed": "secret"}),
            ("report", {"prefix_break": "secret"}),
        ):
            with pytest.raises(LineError):
                await imported(worker, with_a_request(text, {**NOTED, field: said}))
        assert await worker.requests.record(session(), 1) is not None and await secrets(world) == set()

    play(scenario)


def test_a_restore_writes_no_text_and_makes_up_no_result(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker(STRUCTURE)
        await talk(worker, FIRST)
        start = await worker.snapshots.create(session(), "start", node=(await history(worker)).nodes[3].id)
        await talk(worker, SECOND)
        assert isinstance(start, Snapshot)
        restored = await worker.snapshots.restore(session(), start.snapshot_id)
        assert isinstance(restored, Restored) and restored.head == start.node
        await worker.commit(asked([*SECOND[:5], user("and the hotel?")]))  # what its client goes on with
        went_on = await history(worker)
        assert (went_on.session.branch, len(went_on.nodes)) == (restored.branch, 5) and not went_on.missing

        await world.redis("FLUSHALL")
        await talk(world.worker(FULL), SECOND)
        start = await worker.snapshots.create(session(), "start", node=(await history(worker)).nodes[0].id)
        assert isinstance(start, Snapshot)
        restored = await worker.snapshots.restore(session(), start.snapshot_id)
        assert isinstance(restored, Restored)
        nodes = (await history(worker)).nodes
        assert [is_redacted(orjson.loads(node.body or b"")) for node in nodes] == [False, True]
        committed = await worker.commit(asked([*SECOND[:2], SECOND[-1]]))
        assert committed.new_nodes == 0  # it is the node that the client's own words lead to

    play(scenario)


def test_what_waited_for_the_store_comes_without_texts(tmp_path: Path) -> None:
    server = Embedded(tmp_path, free_port())

    async def scenario() -> None:
        world = Guarded(server, replace(SETTINGS, store=replace(SETTINGS.store, content="structure")))
        world.signal(signal.SIGSTOP)
        for name in ("one", "two", "three"):
            await world.guarded.commit(asked(FIRST, session(name), metadata=SAID))
        assert "store_down" in world.reasons  # nobody tries it any more, and what comes is kept for later
        world.signal(signal.SIGCONT)
        await world.guarded.close(30)
        assert len(await world.path(session("three"))) == 4
        found = await everything(lambda *command: world.connection.command("execute_command", *command))
        assert found and not any(b"secret" in value for _, value in found)

    try:
        asyncio.run(scenario())
    finally:
        if server.pid is not None:
            os.kill(server.pid, signal.SIGCONT)
        server.stop()


def test_settings_name_what_is_kept() -> None:
    with pytest.raises(ValueError, match="content: 'none' is not one of full, structure"):
        Store(content="none")  # type: ignore[arg-type]
