"""The load run in short: one proxy with the plugin, 64 agents at once, for some seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import orjson
import pytest

from tests.benchmarks.load.processes import thirds
from tests.benchmarks.load.provider import Provider, events, whole
from tests.benchmarks.load.recordings import BURST, place_after, recordings, reply, script, told
from tests.benchmarks.load.side import Side, side
from tests.benchmarks.load.stored import faults
from tests.proxy import Proxy
from tests.validators import violations

CLIENTS = 64
SESSIONS = 96
SECONDS = 6.0
GROWTH = 1.2
"""Of the worker's memory after the warm-up, at most: it still fills its caches, and the allocator its arenas."""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


async def loaded(proxy: Proxy) -> Side:
    async with side(proxy) as measured:
        made = recordings(SESSIONS, 10, 160)
        measured.asks["soak"] = script("soak", made, SESSIONS, SESSIONS, all_first=True)
        await measured.closed("soak", CLIENTS, requests=2 * SESSIONS, into="warm-up")
        measured.memory.clear()
        await measured.closed("soak", CLIENTS, seconds=SECONDS)
        return measured


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    folder: Path = tmp_path_factory.mktemp("proxy")
    with Provider() as provider, Proxy(folder, {"gpt": provider.base_url}) as proxy:
        yield asyncio.run(loaded(proxy))


@linux
def test_every_request_gets_the_providers_reply(soaked: Side) -> None:
    assert soaked.errors == {}
    assert len(soaked.stretches["soak"].load.seconds) >= CLIENTS
    assert soaked.proxy.metric("proxy_plugin_subtasks_collapsed_total") > 0
    assert not soaked.stood_aside().keys() & {"internal_error", "deadline", "not_understood"}


@linux
def test_every_acknowledged_conversation_is_stored_once_and_whole(soaked: Side) -> None:
    sessions = list(soaked.clients.sessions.values())
    assert len(sessions) == SESSIONS
    assert faults(soaked.proxy, sessions, sample=30) == []


@linux
def test_a_lost_reply_and_a_lost_session_would_be_seen(soaked: Side) -> None:
    first, second, *others = soaked.clients.sessions.values()
    longer = replace(first, acknowledged=first.acknowledged + 2)
    lost = replace(second, name="unheard-of", key="unheard-of")
    found = faults(soaked.proxy, [longer, lost, *others], sample=0, settle_seconds=0)
    assert sorted(fault.partition(":")[0] for fault in found) == sorted([first.key, second.key, "unheard-of"])


@linux
def test_memory_does_not_grow_after_the_warm_up(soaked: Side) -> None:
    first, _, last = thirds(soaked.memory)
    assert last / first < GROWTH


def test_a_session_is_sent_as_an_agent_sends_it() -> None:
    made = recordings(8, 10, 120)
    last: dict[str, int] = {}
    for session, index in islice(script("test", made, 8, 4), 3 * 8 * BURST):
        body = orjson.loads(session.body(index, stream=True))
        assert violations(body["messages"], strict=True) == []
        assert place_after(orjson.dumps(body)) == (session.recording.number, index)
        if session.name in last:  # what was answered before stands in the history, and what the tools gave
            said = reply(session.recording.number, last[session.name])
            assert body["messages"][last[session.name]] == said
            assert 1 <= len(body["messages"]) - last[session.name] - 1 <= 2
        last[session.name] = index
    assert len(last) == 8


@pytest.mark.parametrize("index", [3, 12])
def test_the_provider_says_the_same_streamed_or_not(index: int) -> None:
    said = reply(0, index)
    assert orjson.loads(whole(said, 100))["choices"][0]["message"] == said
    *chunks, end = (event.removeprefix(b"data: ").strip() for event in events(said))
    deltas = [orjson.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    text = "".join(delta.get("content") or "" for delta in deltas)
    arguments = "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if "tool_calls" in delta)
    calls = said.get("tool_calls") or [{"function": {"arguments": ""}}]
    assert (text, arguments, end) == (said["content"] or "", calls[0]["function"]["arguments"], b"[DONE]")
    assert any(told(0, index) in chunk for chunk in chunks)
