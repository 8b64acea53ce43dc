"""What a worker remembers of conversations: packed or not, it changes no answer and stays within its bound."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from threading import Lock
from typing import Any

import pytest

from proxy_plugin.events import ignore
from proxy_plugin.gateway.memos import Memos, Remembered
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.history.memo import Memo
from proxy_plugin.history.path import Path
from proxy_plugin.history.rewrite import read, rewrite
from proxy_plugin.history.subtasks import NOTHING_SAID
from proxy_plugin.settings import Limits, Settings
from tests.benchmarks.conversations import conversation, requests

SESSIONS = 6


def remembered(wire: list[Any]) -> Memo:
    memo = Memo()
    path = read(wire, "chat", memo)
    assert path is not None
    rewrite(path, dialect_of("openai"), Settings(), NOTHING_SAID, memo)
    return memo


@pytest.mark.parametrize("kept", ["all of them", "a few ready, the others packed", "all packed", "none"])
def test_what_leaves_is_the_same_whatever_is_remembered(kept: str) -> None:
    wires = [requests(conversation(60, rounds=4, seed=seed))[-12:] for seed in range(SESSIONS)]
    sizes = [remembered(turns[-1]).size_bytes for turns in wires]
    limit = {"all of them": 4 * sum(sizes), "a few ready, the others packed": 4 * max(sizes), "all packed": max(sizes)}
    settings = Settings(limits=Limits(memo_bytes=limit.get(kept, 0)))
    pipeline = Pipeline(settings, None, ignore)

    async def ask(session: int, wire: list[Any]) -> Any:
        headers = {"x-litellm-session-id": f"s-{session}"}
        turn = await pipeline.before(Incoming("chat", wire, headers, {}, "tenant", dialect_of("openai"), "enforce"))
        assert turn is not None
        return turn.messages

    for turn in range(len(wires[0])):
        for session, wire in enumerate(wires):
            settings = replace(settings, store=replace(settings.store, content="structure"))  # as there is no store
            alone = rewrite(_path(wire[turn]), dialect_of("openai"), settings, NOTHING_SAID).messages
            assert asyncio.run(ask(session, wire[turn])) == alone


def _path(wire: list[Any]) -> Path:
    path = read(wire, "chat")
    assert path is not None
    return path


def test_those_used_last_stay_and_the_others_go() -> None:
    memos, memo = Memos(0), remembered(conversation(60, rounds=4, seed=1))
    memos.put("a", Remembered(memo))
    assert not memos.take("a").memo.dumps

    memos = Memos(3 * memo.size_bytes)
    for name in "abcdefghijklmnopqrstuvwxyz":
        memos.put(name, Remembered(remembered(conversation(60, rounds=4, seed=ord(name)))))
    there = [name for name in "abcdefghijklmnopqrstuvwxyz" if memos.take(name).memo.dumps]
    assert there and there == [*"abcdefghijklmnopqrstuvwxyz"][-len(there) :]
    assert len(there) > 3  # more than stand ready
    assert not memos.take("z").memo.dumps  # it is away while it is used


@pytest.mark.parametrize("what", ["hundreds of levels", "no JSON"])
def test_a_conversation_that_cannot_be_packed_is_worked_out_anew(what: str) -> None:
    odd: Any = Lock() if what == "no JSON" else "deep"
    for _ in range(0 if what == "no JSON" else 900):
        odd = [odd]
    wire = [{"role": "user", "content": [{"type": "text", "text": "look", "more": odd}]}]
    memo = remembered(wire)
    memos = Memos(memo.size_bytes)
    memos.put("deep", Remembered(memo))
    assert memos.take("deep").memo.dumps in ([], memo.dumps)
