"""What a cache can know of a request, and why what leaves is no continuation of what left before."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from proxy_plugin.events import Event, HistoryEstimated, PrefixBroken, Prompt, Refused, RequestHandled
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.history.tokens import message_tokens
from proxy_plugin.history.wire import CODECS
from proxy_plugin.settings import Collapse, Settings

Wire = list[dict[str, Any]]


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def round_of(n: int) -> Wire:
    call = {"id": f"c{n}", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{n}", "content": f"words and words {n} " * 200},
    ]


def tokens(wire: Wire) -> int:
    return sum(message_tokens(message) for message in CODECS["chat"].parse(wire, 0))


class Session:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.pipeline = Pipeline(Settings(), None, self.events.append)

    def send(self, wire: Wire, settings: Settings | None = None, mode: str = "enforce") -> Wire:
        """One request and its reply; `events` holds what it told, the result is what left."""
        self.events.clear()
        return asyncio.run(self._send(copy.deepcopy(wire), settings, mode))

    async def _send(self, wire: Wire, settings: Settings | None, mode: str) -> Wire:
        named = {"x-litellm-session-id": "s"}
        turn = await self.pipeline.before(
            Incoming("chat", wire, named, {}, "t", dialect_of("openai", "chat"), mode, settings, dollars=(0.1, 1.0))
        )
        assert turn is not None
        sent: Wire = turn.messages
        await self.pipeline.after(turn, None, complete=True)
        return sent

    def estimate(self) -> HistoryEstimated:
        (found,) = [event for event in self.events if isinstance(event, HistoryEstimated)]
        return found

    def broke(self) -> str:
        """Why, by the report or by the trail; never both."""
        told = [event.cause for event in self.events if isinstance(event, PrefixBroken)]
        told += [event.report.prefix_break for event in self.events if isinstance(event, RequestHandled)]
        named = [cause for cause in told if cause]
        assert len(named) <= 1
        return "".join(named)


def conversation() -> list[Wire]:
    """Requests of two subtasks, as a client sends them."""
    wire, requests = [said("system", "You help."), said("user", "first")], []
    for n in range(4):
        requests.append(list(wire))
        wire += round_of(n)
        if n == 1:
            wire += [said("assistant", "done"), said("user", "second")]
    return [*requests, wire]


@pytest.mark.parametrize("mode", ["enforce", "audit"])
def test_the_cached_tokens_are_those_of_the_common_beginning(mode: str) -> None:
    session, received, sent = Session(), [], []
    for wire in conversation():
        rewritten = session.send(wire, mode=mode)
        estimate = session.estimate()
        assert estimate.mode == mode and estimate.dollars == (0.1, 1.0)
        before = received[-1] if received else []
        assert estimate.received == Prompt(tokens(wire), tokens(before))
        received.append(wire)
        if mode == "enforce":
            same = [one for one, other in zip(sent[-1], rewritten, strict=False) if one == other] if sent else []
            assert estimate.rewritten == Prompt(tokens(rewritten), tokens(same))
            sent.append(rewritten)
        assert session.broke() == ("subtask" if len(received) == 3 else "")
    assert estimate.rewritten.tokens < estimate.received.tokens


def test_a_summary_is_counted_again_where_the_request_before_failed() -> None:
    session, twin = Session(), Session()
    for wire in conversation():
        session.send(wire)
        twin.send(wire)
    wire = [*conversation()[-1], *round_of(9)]

    async def fails() -> None:
        named = {"x-litellm-session-id": "s"}
        turn = await twin.pipeline.before(
            Incoming("chat", wire, named, {}, "t", dialect_of("openai", "chat"), "enforce")
        )
        assert turn is not None
        twin.events.clear()
        twin.pipeline.failed(turn, refused=True)

    asyncio.run(fails())
    assert twin.events == [Refused(rewritten=True)]
    session.send(wire)
    longer = [*wire, *round_of(10)]
    session.send(longer)
    twin.send(longer)
    assert twin.estimate() == session.estimate()


def edited(wire: Wire) -> Wire:
    changed = copy.deepcopy(wire)
    changed[3]["content"] = "another result " * 100
    return changed


def prompted(wire: Wire) -> Wire:
    return [said("system", "You help, and it is Tuesday."), *wire[1:]]


def late(wire: Wire) -> Wire:
    """The call that had no result has got one."""
    return [*wire[:3], {**round_of(0)[1]}, *wire[3:]]


ONE = conversation()[2][:6]
UNANSWERED = [*ONE[:3], said("user", "go on"), *round_of(5)]


@pytest.mark.parametrize(
    ("first", "second", "settings", "cause"),
    [
        (ONE, [*ONE, *round_of(7)], None, ""),
        (ONE, ONE, None, ""),
        (ONE, ONE[:4], None, ""),  # a step back reads what is cached
        (ONE, [*edited(ONE), *round_of(7)], None, "client_edit"),
        (ONE, prompted(ONE), None, "client_edit"),
        (ONE, [said("system", "You help."), said("user", "of another agent"), *ONE[2:]], None, ""),
        (conversation()[3], conversation()[4], Settings(collapse=Collapse(policy="never")), "settings"),
        (ONE[:4], conversation()[3], None, "subtask"),  # nothing was asked where it ended
        (UNANSWERED, late(UNANSWERED), None, "client_edit"),
        (UNANSWERED, [*UNANSWERED, round_of(0)[1]], None, "repair"),  # it came, and moves behind its call
    ],
)
def test_why_a_prefix_breaks(first: Wire, second: Wire, settings: Settings | None, cause: str) -> None:
    session = Session()
    session.send(first)
    session.send(second, settings)
    assert session.broke() == cause


def test_an_edit_that_leaves_the_plan_alone_is_seen_in_what_leaves() -> None:
    session = Session()
    session.send(ONE)
    session.send(prompted(ONE))
    assert session.estimate().received.cached == session.estimate().rewritten.cached == 0
    session.send([*prompted(ONE[:3]), *edited(ONE)[3:]])
    shared = prompted(ONE)[:3]
    assert session.estimate().rewritten.cached == tokens(shared)
