"""What a client does while the store is away, and what the proxy shows of its conversation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from tests.agent import Agent, Message
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy

SESSION = "x-litellm-session-id"


def client_of(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0, timeout=30)


@dataclass
class TimedAgent(Agent):
    """An agent that notes how long each request took (seconds, streams to their end) and what failed."""

    took: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def ask(self) -> Message:
        began = time.monotonic()
        try:
            return super().ask()
        finally:
            self.took.append(time.monotonic() - began)

    def attempt(self, task: str) -> None:
        """Runs the subtask; a request that fails ends it."""
        try:
            self.run(task)
        except (openai.APIError, httpx.HTTPError) as error:
            self.failed.append(f"{type(error).__name__}: {error}")


def chat_bodies(provider: FakeProvider) -> list[bytes]:
    """What reached the provider, without what LiteLLM asks it on its own account."""
    return [request.body for request in provider.requests if request.api == "chat"]


def is_whole(proxy: Proxy, agent: Agent) -> bool:
    """Whether the stored history is the one that the client has."""
    try:
        answer = proxy.get(f"/sessions/{agent.session}/history")
    except httpx.TimeoutException:
        return False
    messages = answer.json().get("messages", []) if answer.status_code == 200 else []
    return [_shown(message) for message in messages] == [_shown(message) for message in agent.messages]


def _shown(message: Message) -> Any:
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or []]
    return message["role"], message.get("content"), message.get("tool_call_id"), calls
