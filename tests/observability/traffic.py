"""What a day brings, in a few seconds, through a real proxy: every endpoint, streamed and not, plans, audit, edits,
broken histories, refusals and failures of the provider, snapshots and subtasks over HTTP."""

from __future__ import annotations

import contextlib
from secrets import token_hex
from typing import Any

import httpx
import openai

from tests.agent import PLAN, Agent, rows
from tests.fake_provider import FakeProvider, fail
from tests.proxy import Proxy

Json = dict[str, Any]


def mixed(proxy: Proxy, provider: FakeProvider) -> None:
    client = openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0)
    plans(client)
    untouched(client)
    odd_histories(client)
    faults_of_the_provider(client, provider)
    other_endpoints(proxy)
    over_http(proxy, client)


def plans(client: openai.OpenAI) -> None:
    """Three subtasks each: whole, streamed, for another provider."""
    for model, stream in (("gpt", False), ("gpt", True), ("claude", True)):
        agent = Agent(client, model, stream, {"x-litellm-session-id": token_hex(8)})
        for task in PLAN:
            agent.run(task)


def untouched(client: openai.OpenAI) -> None:
    """Plans that leave as they came: audited, and with the plugin switched off. Their ids are the client's own,
    since the provider refuses those that its model reuses."""
    for wish in ("audit", "off"):
        agent = Agent(client, extra_headers={"x-litellm-session-id": token_hex(8), "x-proxy-plugin": wish})
        for n in range(4):
            call = {"id": f"call_{n}", "type": "function", "function": {"name": "find", "arguments": "{}"}}
            agent.messages += [
                {"role": "user", "content": f"Find number {n}."},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "content": rows("find", str(n))},
            ]
            agent.messages.append(agent.ask())


def odd_histories(client: openai.OpenAI) -> None:
    """An edit of what was sent before, a call without a result, a result without a call, a path nobody knows."""
    named = {"x-litellm-session-id": token_hex(8)}
    agent = Agent(client, extra_headers=named)
    agent.run(PLAN[0])
    agent.messages[2]["content"] = "something else"
    agent.run(PLAN[1])
    agent.messages.append({"role": "tool", "tool_call_id": "call_nobody", "content": "17"})
    agent.run("And now?")
    del agent.messages[2]
    agent.run("And then?")
    Agent(client, extra_headers={"x-litellm-session-id": token_hex(8), "x-proxy-plugin-resume": "head"}).run("Go on.")


def faults_of_the_provider(client: openai.OpenAI, provider: FakeProvider) -> None:
    agent = Agent(client, extra_headers={"x-litellm-session-id": token_hex(8)})
    for task in PLAN[:2]:
        agent.run(task)
    agent.messages.append({"role": "user", "content": "What came of it?"})
    for status in (400, 500):  # after the latter a proxy may try again
        provider.next(fail(status, "Invalid 'messages'."))
        with contextlib.suppress(openai.APIStatusError):
            agent.ask()


def other_endpoints(proxy: Proxy) -> None:
    said = [{"role": "user", "content": "hello " * 400}]
    for path, body in (
        ("/v1/messages", {"model": "claude", "messages": said, "max_tokens": 50}),
        ("/v1/responses", {"model": "gpt", "input": said}),
    ):
        for stream in (False, True):
            answer = httpx.post(
                proxy.root + path,
                json={**body, "stream": stream},
                headers={"authorization": f"Bearer {proxy.key}"},
                timeout=30,
            )
            assert answer.status_code == 200, answer.text


def over_http(proxy: Proxy, client: openai.OpenAI) -> None:
    """Subtasks that end in every way, and snapshots that can be restored and cannot."""
    session = token_hex(8)
    Agent(client, extra_headers={"x-litellm-session-id": session}).run(PLAN[0])
    with httpx.Client(
        base_url=f"{proxy.root}/api/v1/sessions/{session}/",
        headers={"authorization": f"Bearer {proxy.key}"},
        timeout=20,
    ) as http:

        def post(path: str, body: Json, expected: int) -> Json:
            answer = http.post(path, json=body)
            assert answer.status_code == expected, answer.text
            found: Json = answer.json()
            return found

        for end in ("complete", "fail", "rollback"):
            post("subtasks", {"id": end}, 201)
            post(f"subtasks/{end}/{end}", {}, 200)
        snapshot = post("snapshots", {"name": "before lunch"}, 201)["snapshot_id"]
        post(f"snapshots/{snapshot}/restore", {}, 200)
        post("snapshots/nowhere/restore", {}, 404)


def plans_without_a_store(proxy: Proxy) -> None:
    """Plans whose conversations cannot be stored now."""
    client = openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0)
    for stream in (False, True):
        agent = Agent(client, stream=stream, extra_headers={"x-litellm-session-id": token_hex(8)})
        for task in PLAN:
            agent.run(task)
