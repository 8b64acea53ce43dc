"""Auto-reset and limits on the way of a request: through a real proxy, and where the store is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest

from proxy_plugin.events import PassedThrough
from proxy_plugin.gateway import commits
from proxy_plugin.gateway.pipeline import Incoming, Pipeline, Turn
from proxy_plugin.gateway.safety import REFUSALS
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Reset, Settings
from tests.fake_provider import FakeProvider
from tests.gateway.test_pipeline import Harness
from tests.proxy import Proxy, eventually
from tests.sessions.conftest import World, endpoint, play

__all__ = ["endpoint", "play"]

MARKER = "(Earlier messages are left out.)"
Play = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Proxy]:
    environ = {
        "PROXY_PLUGIN_RESET__MAX_MESSAGES": "4",
        "PROXY_PLUGIN_RESET__MARKER": MARKER,
        "PROXY_PLUGIN_STORE__MAX_SESSION_MESSAGES": "14",
    }
    models = {
        "gpt": provider.base_url,
        "claude": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"},
    }
    with Proxy(tmp_path_factory.mktemp("small"), models, environ=environ) as proxy:
        yield proxy


class Chat:
    def __init__(self, proxy: Proxy, session: str, model: str = "gpt") -> None:
        self.client = openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0)
        self.session, self.model = session, model
        self.messages: list[Any] = [{"role": "system", "content": "Be brief."}]

    def say(self, text: str) -> Any:
        self.messages.append({"role": "user", "content": text})
        answer = self.client.chat.completions.create(
            model=self.model, messages=self.messages, extra_headers={"x-litellm-session-id": self.session}
        )
        self.messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        return answer


def test_a_long_conversation_goes_on_without_its_past_and_the_store_keeps_it(
    small: Proxy, provider: FakeProvider
) -> None:
    chat = Chat(small, "long")
    for number in range(5):
        chat.say(f"question {number}")
    sent = [request.messages for request in provider.requests]
    asked = [[m["content"] for m in messages if m["role"] == "user"] for messages in sent]
    assert asked == [
        ["question 0"],
        ["question 0", "question 1"],
        ["question 2"],
        ["question 2", "question 3"],
        ["question 4"],
    ]
    marker = {"role": "system", "content": MARKER}
    assert [marker in messages for messages in sent] == [False, False, True, True, True]
    assert all(messages[0] == chat.messages[0] for messages in sent)
    assert sent[3][: len(sent[2])] == sent[2]

    def whole() -> Any:
        messages = small.get("/sessions/long/history").json().get("messages", [])
        return [m["content"] for m in messages] == [m["content"] for m in chat.messages]

    eventually(whole)
    assert small.metric("proxy_plugin_prefix_breaks_total", cause="reset") == 2


def test_a_session_that_is_full_is_served_all_the_same(small: Proxy, provider: FakeProvider) -> None:
    chat = Chat(small, "full")
    for number in range(9):
        chat.say(f"question {number}")
    assert len(provider.requests) == 9
    assert small.get("/sessions/full").json()["message_count"] == 15  # the leading one is no node
    assert small.metric("proxy_plugin_passthrough_total", reason="session_full") == 2


def test_where_system_text_stays_nowhere_the_marker_is_the_users(small: Proxy, provider: FakeProvider) -> None:
    chat = Chat(small, "claude", "claude")
    for number in range(3):
        chat.say(f"question {number}")
    (last,) = provider.requests[-1].messages
    assert [part["text"] for part in last["content"]] == ["question 2", MARKER]


# Without a proxy


def wire(questions: int) -> list[Any]:
    out: list[Any] = []
    for number in range(questions):
        out += [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}]
    return out[:-1]


def questions(turn: Turn | None) -> list[str]:
    assert turn is not None
    return [message["content"] for message in turn.messages if message["role"] == "user"]


def test_the_safety_fallback_sends_everything() -> None:
    harness = Harness(Settings(reset=Reset(max_messages=3)))
    for _ in range(REFUSALS):
        turn = harness.send(wire(3))
        assert turn is not None and questions(turn) == ["question 2"]
        harness.pipeline.failed(turn, refused=True)
    assert questions(harness.send(wire(3))) == ["question 0", "question 1", "question 2"]


def test_without_a_store_nothing_is_reset_for_its_age_and_that_is_counted() -> None:
    harness = Harness(Settings(reset=Reset(max_age_s=1)))
    assert len(questions(harness.send(wire(1)))) == 1 and harness.reasons == []
    assert len(questions(harness.send(wire(2)))) == 2 and harness.reasons == ["context_missing"]


def test_an_old_conversation_is_reset_and_stays_so_while_the_store_is_away(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        settings = Settings(reset=Reset(max_age_s=60), deadlines=Deadlines(store_ms=5_000, total_ms=10_000))
        guarded = GuardedStore(world.worker(settings), settings, world.events.append)
        pipeline = Pipeline(settings, guarded, world.events.append)

        async def send(messages: list[Any], at: float) -> list[str]:
            monkeypatch.setattr(commits.time, "time", lambda: at)
            incoming = Incoming(
                "chat", messages, {"x-litellm-session-id": "old"}, {}, "tenant", dialect_of("openai"), "enforce"
            )
            turn = await pipeline.before(incoming)
            assert turn is not None
            sent = questions(turn)
            await pipeline.after(turn, [{"role": "assistant", "content": "answer"}], complete=True)
            return sent

        begun = 1_900_000_000.0
        assert await send(wire(1), begun) == ["question 0"]
        assert await send(wire(2), begun + 30) == ["question 0", "question 1"]
        assert await send(wire(3), begun + 70) == ["question 2"]
        assert await send(wire(4), begun + 100) == ["question 2", "question 3"]
        pipeline._store = None
        assert await send(wire(4), begun + 200) == ["question 2", "question 3"]
        assert [event for event in world.events if isinstance(event, PassedThrough)] == []
        await guarded.close(5)

    play(scenario)
