"""Conversations whose every request goes to another worker, or to another proxy, than the one before it.

What reaches the provider, and what is stored, is compared with the same conversation on one worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle
from typing import Any

import httpx
import openai
import orjson

from tests.agent import PLAN, TOOLS, Agent
from tests.fake_provider import FakeProvider, Reply, Request, ReusingModel
from tests.gateway.test_continued import Thread
from tests.gateway.test_endpoints import Messages, Responses
from tests.instances.fleet import Fleet
from tests.proxy import Proxy, eventually

SESSION = "x-litellm-session-id"
KEY = "sk-alice"
_SORTED = orjson.OPT_SORT_KEYS


@dataclass(frozen=True)
class Seat:
    """Where a request may go. `worker` None: the proxy has one only."""

    proxy: Proxy
    worker: int | None = None
    key: str = KEY

    def openai(self) -> openai.OpenAI:
        options = {"base_url": self.proxy.base_url, "api_key": self.key, "max_retries": 0}
        return openai.OpenAI(**options, http_client=self._connection())

    def post(self, path: str, headers: Mapping[str, str], body: Any) -> httpx.Response:
        connection: Any = self._connection() or httpx
        answer: httpx.Response = connection.post(self.proxy.root + path, headers=headers, json=body, timeout=30)
        return answer

    def _connection(self) -> httpx.Client | None:
        return self.proxy.connection(self.worker) if isinstance(self.proxy, Fleet) and self.worker else None


class Hopping:
    """A client of openai's that is another seat's each time that it is used."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self._seats = cycle(seats)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._seats).openai(), name)


class HoppingMessages(Messages):
    """/v1/messages without a client library: `client` is a cycle of seats."""

    def ask(self) -> list[tuple[str, str, str]]:
        tools = [{"name": tool["function"]["name"], "input_schema": {"type": "object"}} for tool in TOOLS]
        body = {"model": self.model, "max_tokens": 500, "tools": tools, "messages": self.wire}
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01", **self.options}
        answer = next(self.client).post("/v1/messages", headers, body).raise_for_status()
        self.answered(answer.headers)
        content = answer.json()["content"]
        self.wire.append({"role": "assistant", "content": content})
        calls = [block for block in content if block["type"] == "tool_use"]
        return [(call["id"], call["name"], json.dumps(call["input"])) for call in calls]


@dataclass(frozen=True)
class Play:
    """bodies   what reached the provider, in order
    session  as the response headers name it
    ids      of the calls that the client saw
    asked    requests that were sent"""

    bodies: list[bytes]
    session: str
    ids: list[str]
    asked: int


def chat(seats: Sequence[Seat], name: str, *, stream: bool = False) -> Any:
    """Three subtasks. `name` "": the client names no session."""
    return Agent(Hopping(seats), stream=stream, extra_headers={SESSION: name} if name else {})


def messages(seats: Sequence[Seat], name: str) -> Any:
    return HoppingMessages(cycle(seats), "claude", False, {SESSION: name})


def responses(seats: Sequence[Seat], name: str) -> Any:
    return Responses(Hopping(seats), "gpt", True, {"extra_headers": {SESSION: name}})


def thread(seats: Sequence[Seat], name: str) -> Any:
    """Goes on by `previous_response_id`, and names no session."""
    return Thread(Hopping(seats), stream=True)


def task(seats: Sequence[Seat], name: str) -> Any:
    """The client says which subtask it is at."""
    numbers = count()

    class Named(Agent):
        def run(self, text: str) -> str:
            number = next(numbers)
            self.extra_body = {"metadata": {"subtask": {"id": f"step-{number}", "agent": f"agent-{number}"}}}
            return super().run(text)

    return Named(Hopping(seats), extra_headers={SESSION: name})


PLAYS: Mapping[str, Callable[[Sequence[Seat], str], Any]] = {
    "chat": chat,
    "chat, streamed": lambda seats, name: chat(seats, name, stream=True),
    "chat without an id": lambda seats, name: chat(seats, ""),
    "messages": messages,
    "responses, streamed": responses,
    "responses that continue": thread,
    "subtasks that the client names": task,
}


def play(name: str, seats: Sequence[Seat], provider: FakeProvider, session: str, plan: Sequence[str] = PLAN) -> Play:
    """`session`: an id of its own for each time that the conversation is played on one store."""
    before = len(provider.requests)  # which number the provider's responses
    provider.brain = numbered() if PLAYS[name] is thread else ReusingModel()
    conversation = PLAYS[name](seats, session)
    for text in plan:
        conversation.run(text)
    bodies = [request.body for request in provider.requests[before:] if request.api]
    return Play(list(counted(bodies)), conversation.session, ids_of(conversation), len(bodies))


def counted(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Without the provider's own numbers of its responses and their items, which go on from one play to the next:
    by when they first came."""
    seen: dict[bytes, bytes] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return seen.setdefault(found[0], b"no-%d" % len(seen))

    return (re.sub(rb"0{16}\d{8,}", number, body) for body in bodies)


def numbered() -> Callable[[Request], Reply]:
    """A provider that keeps conversations does not give an id twice in one."""
    model, numbers = ReusingModel(), count()

    def brain(request: Request) -> Reply:
        reply = model(request)
        return replace(reply, calls=[(f"call_{next(numbers)}", *call[1:]) for call in reply.calls])

    return brain


def ids_of(conversation: Any) -> list[str]:
    if isinstance(conversation, Thread):
        return [item["call_id"] for item in conversation.wire if item.get("type") == "function_call"]
    return list(conversation.ids)


def portrait(proxy: Proxy, session: str, key: str = KEY) -> dict[str, Any]:
    """What the HTTP API has of a session, without its name and times."""

    def get(part: str, **params: Any) -> Any:
        answer = proxy.get(f"/sessions/{session}{part}", key=key, **params)
        return answer.json() if answer.status_code == 200 else {}

    history, requests = get("/history"), get("/requests", limit=100)
    entries = [get(f"/requests/{entry['n']}") for entry in requests.get("requests", ())]
    return {
        "messages": list(counted([said(message) for message in history.get("messages", ())])),
        "agents": [(switch["from"], switch["to"]) for switch in history.get("agent_history", ())],
        "nodes": [(node["id"], node["parent"]) for node in get("/tree", limit=500).get("nodes", ())],
        "branches": [(branch["name"], branch["head"]) for branch in get("/branches").get("branches", ())],
        "snapshots": sorted((s["name"], s["node"], s["message_count"]) for s in get("/snapshots").get("snapshots", ())),
        "subtasks": [
            (subtask["id"], subtask["state"], subtask["attempts"]) for subtask in get("/subtasks").get("subtasks", ())
        ],
        "requests": requests.get("total"),
        "left": list(counted([orjson.dumps(entry.get("sent")) for entry in entries])),
    }


def said(message: Mapping[str, Any]) -> bytes:
    """Without what a client may leave out when it sends a reply again: it is the one form or the other that is kept,
    whichever comes first."""
    return orjson.dumps({name: value for name, value in message.items() if value is not None}, option=_SORTED)


def whole(proxy: Proxy, played: Play, key: str = KEY) -> dict[str, Any]:
    """The portrait once all of the play is in it."""

    def found() -> dict[str, Any] | None:
        seen = portrait(proxy, played.session, key)
        done = seen["requests"] == played.asked and [state for _, state, _ in seen["subtasks"]] == ["completed"] * 3
        return seen if done else None

    seen: dict[str, Any] = eventually(found)
    return seen
