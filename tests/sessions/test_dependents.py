"""Requests of dependent subtasks through the pipeline and a real store: prefixes, damage, and a store that is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy_plugin.events import Event, PassedThrough, StoreCalled
from proxy_plugin.gateway.pipeline import Incoming, Pipeline, Turn
from proxy_plugin.history.dependencies import TITLE
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Settings
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import TENANT, session

Play = Callable[[Scenario], None]
PATIENT = Settings(deadlines=Deadlines(store_ms=2_000, total_ms=4_000))
HASTY = Settings(deadlines=Deadlines(store_ms=50))


class Worker:
    """A pipeline on a store, that one client talks to."""

    def __init__(self, world: World, settings: Settings = PATIENT) -> None:
        self.events: list[Event] = []
        self.store: SessionStore = world.worker(settings)
        self.guarded = GuardedStore(self.store, settings, self.events.append)
        self.pipeline = Pipeline(settings, self.guarded, self.events.append)

    async def ask(self, wire: list[Any], subtask: dict[str, Any] | None = None, mode: str = "enforce") -> Turn:
        body = {"metadata": {"subtask": subtask}} if subtask else {}
        headers = {"x-litellm-session-id": session().session_id}
        turn = await self.pipeline.before(Incoming("chat", wire, headers, body, TENANT, dialect_of("openai"), mode))
        assert turn is not None
        return turn

    async def talk(self, wire: list[Any], said: str, subtask: dict[str, Any] | None = None) -> list[Any]:
        """Asks, stores the reply, and returns what was sent on."""
        turn = await self.ask(wire, subtask)
        sent = turn.messages
        await self.pipeline.after(turn, [{"role": "assistant", "content": said}], complete=True)
        return list(sent)

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, PassedThrough)]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def tool_round(call_id: str) -> list[Any]:
    call = {"id": call_id, "type": "function", "function": {"name": "find", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": "found"},
    ]


A, B = {"id": "a", "description": "the first"}, {"id": "b", "depends_on": ["a"]}


async def prepared(world: World, settings: Settings = PATIENT) -> Worker:
    worker = Worker(world)
    await worker.talk([user("u0")], "a0")
    await worker.talk([user("u0"), {"role": "assistant", "content": "a0"}, user("ua")], "ra", A)
    return worker if settings is PATIENT else Worker(world, settings)


def test_every_request_of_a_subtask_is_the_same_on_every_worker(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [await prepared(world), Worker(world)]
        wire = [user("ub")]
        before = (await workers[0].ask(wire, B)).messages
        assert [m["role"] for m in before] == ["user", "assistant", "system", "user"]
        for number in range(4):
            wire = [*wire, *tool_round(f"c{number}")]
            sent = [(await worker.ask(wire, B)).messages for worker in workers]
            assert sent[0] == sent[1]
            assert sent[0][: len(before)] == before
            before = sent[0]
        assert before[-8:] == wire[1:]
        assert {*workers[0].reasons, *workers[1].reasons} == set()

    play(scenario)


def test_no_request_without_a_subtask_reads_anything(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await prepared(world)
        worker.events.clear()
        await worker.ask([user("u0"), {"role": "assistant", "content": "a0"}, user("u1")])
        await worker.ask([user("ub")], B)
        calls = [event.operation for event in worker.events if isinstance(event, StoreCalled)]
        assert calls == ["commit_request", "read", "commit_request"]

    play(scenario)


def test_a_worker_remembers_while_the_store_is_away(play: Play) -> None:
    async def scenario(world: World) -> None:
        await prepared(world)
        worker, stranger = Worker(world, HASTY), Worker(world, HASTY)
        await stranger.store.ping()
        await worker.store.ping()
        wire = [user("ub")]
        first = (await worker.ask(wire, B)).messages
        assert TITLE in str(first) and worker.reasons == []
        await world.redis("CLIENT", "PAUSE", 1_000)
        wire += tool_round("c1")
        assert (await worker.ask(wire, B)).messages == [*first, *wire[1:]]
        assert "context_missing" not in worker.reasons
        assert (await stranger.ask(wire, B)).messages == wire
        assert stranger.reasons.count("context_missing") == 1

    play(scenario)


def test_without_a_store_what_is_there_passes(play: Play) -> None:
    async def scenario(world: World) -> None:
        events: list[Event] = []
        pipeline = Pipeline(Settings(), None, events.append)
        incoming = Incoming(
            "chat", [user("ub")], {}, {"metadata": {"subtask": B}}, TENANT, dialect_of("openai"), "enforce"
        )
        turn = await pipeline.before(incoming)
        assert turn is not None and turn.messages == [user("ub")]
        assert [event.reason for event in events if isinstance(event, PassedThrough)] == ["context_missing"]

    play(scenario)


def test_a_base_that_is_damaged_is_done_without(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await prepared(world)
        found = await worker.store.subtasks.find(session(), "a")
        assert found is not None
        await world.redis("HDEL", keys.of_session(session()).bodies, found.base)
        sent = (await worker.ask([user("ub")], B)).messages
        assert [m["role"] for m in sent] == ["system", "user"]
        assert "the first" in sent[0]["content"]

    play(scenario)


def test_audit_sends_the_original_and_stores_what_would_have_been(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await prepared(world)
        wire = [user("ub")]
        turn = await worker.ask(wire, B, mode="audit")
        assert turn.messages is wire and dict(turn.fields) == {}
        found = await worker.store.subtasks.find(session(), "b")
        assert found is not None and (found.depends_on, found.given) == (("a",), ("a",))

    play(scenario)


def test_refusals_end_with_what_the_client_sent(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = await prepared(world)
        wire = [user("ub")]
        for _ in range(3):
            turn = await worker.ask(wire, B)
            assert turn.messages != wire
            worker.pipeline.failed(turn, refused=True)
        assert (await worker.ask(wire, B)).messages == wire
        assert "safety_fallback" in worker.reasons

    play(scenario)
