"""Calls of the plugin's HTTP routes, and sessions to call them on."""

from __future__ import annotations

from typing import Any

import httpx
import openai

from tests.agent import Agent
from tests.proxy import Proxy, eventually


def call(proxy: Proxy, method: str, path: str, body: Any = None, *, key: str = "sk-alice", **params: Any) -> Any:
    """The answer to a request on the plugin's prefix. `body`: bytes as they are, else JSON."""
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{proxy.root}/api/v1{path}"
    return httpx.request(method, url, headers=headers, params=params or None, timeout=20, **sent)


def told(proxy: Proxy, client: openai.OpenAI, session: str, *tasks: str, **options: Any) -> Agent:
    """A session in which the tasks were done; all of it is stored."""
    agent = Agent(client, extra_headers={"x-litellm-session-id": session}, **options)
    for task in tasks:
        agent.run(task)
    count = len(agent.messages)
    eventually(lambda: proxy.get(f"/sessions/{session}", key=client.api_key).json().get("message_count") == count)
    return agent


def messages(proxy: Proxy, session: str, **params: Any) -> Any:
    return call(proxy, "GET", f"/sessions/{session}/history", **params).json()["messages"]
