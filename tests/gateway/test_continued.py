"""Responses that go on from earlier ones, through a real proxy: stored as one conversation."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from uuid import uuid4

import openai
import pytest

from proxy_plugin.gateway.response_ids import provider_id
from proxy_plugin.history.rewrite import read
from tests.agent import PLAN, TOOLS, rows
from tests.fake_provider import FakeProvider, Reply, Request, ReusingModel
from tests.proxy import Proxy, eventually

Item = dict[str, Any]
RESPONSE_TOOLS = [{"type": "function", "strict": False, **tool["function"]} for tool in TOOLS]
_names = count()

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@dataclass
class Thread:
    """A client that sends only what is new. `wire`: the whole conversation, which it does not send."""

    client: openai.OpenAI
    stream: bool = False
    model: str = "gpt"
    options: Item = field(default_factory=dict)
    last: str | None = None
    wire: list[Item] = field(default_factory=list)
    shown: list[dict[str, str]] = field(default_factory=list)

    def run(self, task: str) -> None:
        new: list[Item] = [{"role": "user", "content": task}]
        while calls := self.say(new):
            new = [
                {"type": "function_call_output", "call_id": c["call_id"], "output": rows(c["name"], c["arguments"])}
                for c in calls
            ]

    def say(self, new: list[Item]) -> list[Item]:
        """One request; the calls of its answer."""
        going_on = {"previous_response_id": self.last} if self.last else {}
        ask = {"model": self.model, "tools": RESPONSE_TOOLS, "input": new, **going_on, **self.options}
        raw = self.client.responses.with_raw_response.create(**ask, stream=self.stream)  # type: ignore[call-overload]
        self.shown.append({name: value for name, value in raw.headers.items() if name.startswith("x-proxy-plugin")})
        answer = raw.parse()
        if self.stream:
            with answer:  # goes on at once, without waiting for the end of the connection
                answer = next(event for event in answer if event.type == "response.completed").response
        self.last = answer.id
        output = [item.to_dict() for item in answer.output]
        self.wire += [*new, *output]
        return [item for item in output if item["type"] == "function_call"]

    @property
    def session(self) -> str:
        return self.shown[-1]["x-proxy-plugin-session"]

    @property
    def ids(self) -> list[str]:
        path = read(self.wire, "responses")
        assert path is not None
        return list(path.node_ids)[path.lead :]


@pytest.fixture(autouse=True)
def fresh_ids(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that keeps conversations does not give an id twice in one."""
    model = ReusingModel()

    def brain(request: Request) -> Reply:
        reply = model(request)
        return replace(reply, calls=[(f"call_{uuid4().hex}", *call[1:]) for call in reply.calls])

    monkeypatch.setattr(provider, "brain", brain)
    monkeypatch.setattr(provider, "_stored", {})  # it numbers its responses anew for each test


@pytest.fixture
def thread(alice: openai.OpenAI) -> Callable[..., Thread]:
    def begin(stream: bool = False, **options: Any) -> Thread:
        model = options.pop("model", "gpt")
        return Thread(alice, stream, model, options)

    return begin


def whole(proxy: Proxy, thread: Thread, key: str = "sk-alice") -> Any:
    """The session as soon as all of the thread is in it."""
    messages = len(read(thread.wire, "responses").messages)  # type: ignore[union-attr]

    def found() -> Any:
        answer = proxy.get(f"/sessions/{thread.session}/history", key=key).json()
        return answer if answer.get("message_count") == messages else None

    return eventually(found)


def said(items: list[Item]) -> list[Any]:
    path = read(items, "responses")
    assert path is not None
    return [(message.role, message.content, message.calls, message.answers) for message in path.messages]


@both
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_a_plan_is_one_conversation_though_only_what_is_new_is_sent(
    proxy: Proxy, provider: FakeProvider, thread: Any, stream: bool, named: bool
) -> None:
    number = next(_names)
    headers = {"extra_headers": {"x-litellm-session-id": f"thread-{number}"}} if named else {}
    client = thread(stream, **headers)
    for task in PLAN:
        client.run(f"thread {number}\n\n{task}")
    assert provider.refused() == []
    assert len({headers["x-proxy-plugin-session"] for headers in client.shown}) == 1
    assert {headers["x-proxy-plugin-collapsed"] for headers in client.shown} == {"0"}
    assert {len(request.messages) for request in provider.requests} <= {1, 2}  # as the client sent it
    history = whole(proxy, client)
    assert said(history["messages"]) == said(client.wire)
    info = proxy.get(f"/sessions/{client.session}", key="sk-alice").json()
    assert (info["branches"], info["subtasks"]) == (1, len(PLAN))
    calls = next(i for i, message in enumerate(read(client.wire, "responses").messages) if message.calls)  # type: ignore[union-attr]
    node = proxy.get(f"/sessions/{client.session}/nodes/{client.ids[calls + 1][:12]}", key="sk-alice").json()
    assert node.get("role") == "tool", node
    assert said(node["subtask_messages"]) == said(client.wire)[: calls + 2]
    again = client.client.responses.with_raw_response.create(
        model="gpt", input=[*client.wire, {"role": "user", "content": "all of it"}], tools=RESPONSE_TOOLS, **headers
    )
    assert again.headers["x-proxy-plugin-session"] == client.session  # a client that sends everything is no other
    assert again.headers["x-proxy-plugin-collapsed"] != "0"


@both
def test_a_provider_without_responses_of_its_own(proxy: Proxy, thread: Any, stream: bool) -> None:
    client = thread(stream, model="claude")
    for task in ("say", "say more", "say the rest"):
        client.run(f"{next(_names)} {task}")
    assert said(whole(proxy, client)["messages"]) == said(client.wire)


def test_a_request_waits_for_the_store_no_more_than_twice(proxy: Proxy, thread: Any) -> None:
    def calls() -> dict[str, float]:
        name = "proxy_plugin_store_seconds_count"
        return {kind: proxy.metric(name, operation=kind) for kind in ("commit_request", "commit_reply", "read")}

    client, before = thread(), calls()
    for task in PLAN:
        client.run(f"{next(_names)}\n\n{task}")
    made = {kind: count - before[kind] for kind, count in calls().items()}
    assert made == {"commit_request": len(client.shown), "commit_reply": len(client.shown), "read": 0}


def test_two_that_go_on_from_one_response_are_branches_of_one_session(proxy: Proxy, thread: Any) -> None:
    client = thread()
    client.run(f"fork {next(_names)}")
    place, fork = client.last, client.session
    for text in ("left", "right"):
        client.last = place
        client.run(text)
        assert client.session == fork
    info = eventually(
        lambda: (found := proxy.get(f"/sessions/{fork}", key="sk-alice").json())["branches"] == 2 and found
    )
    assert info["message_count"] == 4


def test_many_at_the_same_time_do_not_meet(proxy: Proxy, thread: Any) -> None:
    clients = [thread(stream=bool(number % 2)) for number in range(6)]
    name = next(_names)  # all of them open alike

    def play(client: Thread) -> None:
        for task in PLAN[:2]:
            client.run(f"alike {name}\n\n{task}")

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(play, clients))
    assert len({client.session for client in clients}) == len(clients)
    for client in clients:
        assert said(whole(proxy, client)["messages"]) == said(client.wire)


def test_what_leads_the_conversation_stays_and_new_instructions_take_its_place(proxy: Proxy, thread: Any) -> None:
    client = thread()
    client.say([{"role": "developer", "content": "be brief"}, {"role": "user", "content": f"lead {next(_names)}"}])
    client.run("go on")
    history = whole(proxy, client)
    assert said(history["messages"]) == said(client.wire) and "instructions" not in history
    client.options["instructions"] = "be long"
    client.run("and on")
    assert whole(proxy, client)["instructions"] == "be long"


def test_a_conversation_that_the_provider_keeps(proxy: Proxy, thread: Any) -> None:
    name = f"conv_{next(_names)}"
    client = thread(conversation=name)
    for text in ("one", "two", "three"):
        client.say([{"role": "user", "content": f"{text} {name}"}])
        client.last = None
    assert len({headers["x-proxy-plugin-session"] for headers in client.shown}) == 1
    assert said(whole(proxy, client)["messages"]) == said(client.wire)
    client.options["conversation"] = {"id": name}
    client.say([{"role": "user", "content": "four"}])
    assert said(whole(proxy, client)["messages"]) == said(client.wire)


def test_an_id_of_another_tenants_leads_nowhere(proxy: Proxy, thread: Any, bob: openai.OpenAI) -> None:
    mine = thread(conversation=f"conv_{next(_names)}")
    mine.run(f"secret {next(_names)}")
    theirs = Thread(bob, options=mine.options)
    theirs.say([{"role": "user", "content": "what was that"}])
    assert theirs.session != mine.session
    assert said(whole(proxy, theirs, "sk-bob")["messages"]) == said(theirs.wire)
    theirs.last = mine.last
    with pytest.raises(openai.PermissionDeniedError):
        theirs.say([{"role": "user", "content": "and that"}])
    assert said(whole(proxy, mine)["messages"]) == said(mine.wire)


def test_an_earlier_response_that_is_unknown_or_in_another_session(
    proxy: Proxy, provider: FakeProvider, thread: Any
) -> None:
    client = thread()
    client.run(f"here {next(_names)}")
    client.options["extra_headers"] = {"x-litellm-session-id": f"there-{next(_names)}"}
    client.wire.clear()
    client.run("and there")
    assert client.session.startswith("there-")
    client.run("still there")
    assert said(whole(proxy, client)["messages"]) == said(client.wire)
    assert provider.refused() == []


def test_a_response_that_the_provider_does_not_keep_leads_nowhere(proxy: Proxy, thread: Any) -> None:
    client = thread(store=False)
    client.run(f"forget {next(_names)}")
    first = client.session
    client.options.clear()
    with pytest.raises(openai.BadRequestError):
        client.say([{"role": "user", "content": "what was that"}])
    assert said(whole(proxy, client)["messages"]) == said(client.wire)
    assert client.session == first


def test_an_id_is_the_providers_whichever_way_it_is_written() -> None:
    named = b64encode(b"litellm:custom_llm_provider:openai;model_id:m;response_id:resp_up").decode()
    assert provider_id(f"resp_{named}") == "resp_up"
    assert provider_id("chatcmpl-1") == "chatcmpl-1"
    assert [provider_id(given) for given in (None, 7, {}, "")] == [""] * 4
