"""Server-sent events: a second client sees messages as they are committed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request

from proxy_plugin.admin import feed
from proxy_plugin.sessions.feed import News, Quiet
from tests.agent import Agent
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy, eventually

Event = dict[str, Any]


@contextmanager
def listening(proxy: Proxy, session: str, after: str | None = None) -> Iterator[Iterator[Event]]:
    headers = {"authorization": "Bearer sk-alice"} | ({"last-event-id": after} if after else {})
    url = f"{proxy.root}/api/v1/sessions/{session}/events"
    with httpx.stream("GET", url, headers=headers, timeout=10) as answer:  # less than a heartbeat
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[Event]:
    event: Event = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "event" in event:
            yield event
        if line == "":
            event = {}
        elif name:
            event[name] = json.loads(value) if name == "data" else value


def test_messages_come_as_they_are_committed_and_go_on_behind_the_last_one(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "watched"})
    agent.run("first")
    eventually(lambda: proxy.get("/sessions/watched", key="sk-alice").json()["message_count"] == 2)
    with listening(proxy, "watched") as events:
        agent.run("second")
        asked, answered = next(events), next(events)
    assert asked["event"] == "message" and asked["data"]["message"]["content"] == "second"
    assert (asked["data"]["role"], answered["data"]["role"]) == ("user", "assistant")
    assert asked["id"] == asked["data"]["node"] and answered["data"]["parent"] == asked["id"]
    agent.run("third")
    with listening(proxy, "watched", after=asked["id"]) as events:
        assert [next(events)["data"]["message"]["content"] for _ in range(2)][1] == "third"
    with listening(proxy, "watched", after="f" * 32) as events:
        assert next(events)["data"]["message"]["content"] == "first"


def test_a_feed_ends_with_its_session(proxy: Proxy, alice: openai.OpenAI) -> None:
    Agent(alice, extra_headers={"x-litellm-session-id": "short-lived"}).run("hello")
    eventually(lambda: proxy.get("/sessions/short-lived", key="sk-alice").status_code == 200)
    with listening(proxy, "short-lived") as events:
        headers = {"authorization": "Bearer sk-alice"}
        httpx.delete(f"{proxy.root}/api/v1/sessions/short-lived", headers=headers, timeout=20)
        assert next(events)["event"] == "deleted"
        assert list(events) == []
    for key in ("sk-alice", "sk-bob"):
        assert proxy.get("/sessions/short-lived/events", key=key).status_code == 404


def test_a_client_that_listens_does_not_keep_the_proxy_from_ending(tmp_path: Path, provider: FakeProvider) -> None:
    with Proxy(tmp_path, {"gpt": provider.base_url}, custom_auth=True) as proxy:
        client = openai.OpenAI(base_url=proxy.base_url, api_key="sk-alice", max_retries=0)
        Agent(client, extra_headers={"x-litellm-session-id": "open"}).run("hello")
        eventually(lambda: proxy.get("/sessions/open", key="sk-alice").status_code == 200)
        with listening(proxy, "open") as events:
            process = proxy.process
            assert process is not None
            process.terminate()
            assert list(events) == []
            deadline = time.monotonic() + 15
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert process.poll() is not None


def test_a_listener_hears_that_the_feed_is_there_and_is_left_when_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", -1.0)
    ended = []

    async def quiet() -> AsyncGenerator[News]:
        try:
            while True:
                yield Quiet()
        finally:
            ended.append(True)

    async def listened() -> list[bytes]:
        left = iter([False, False, True])

        class Client(Request):
            async def is_disconnected(self) -> bool:
                return next(left)

        return [piece async for piece in feed._stream(Client({"type": "http"}), quiet())]

    assert asyncio.run(listened()) == [b"retry: 1000\n\n", *[b": still there\n\n"] * 2]
    assert ended
