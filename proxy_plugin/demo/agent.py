"""The demo's agent: the official openai client in the usual loop. It knows nothing of the plugin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from proxy_plugin.demo import tools
from proxy_plugin.demo.provider import Provider, Received
from proxy_plugin.demo.proxy import MODEL, Proxy

Json = dict[str, Any]

INSTRUCTIONS = "You are a travel desk's agent. Use the tools, and never invent an identifier."


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call, seen from both ends."""

    asked: list[Json]  # what the client sent
    received: Received  # what reached the provider
    headers: Mapping[str, str]  # of the response
    reply: Json  # what the client got

    @property
    def final(self) -> bool:
        """Whether the reply ends the turn: text, and no call to be run."""
        return "tool_calls" not in self.reply


class Agent:
    """One conversation; `messages` is all it knows. `headers` go with every call."""

    def __init__(self, proxy: Proxy, provider: Provider, headers: Mapping[str, str]) -> None:
        self.messages: list[Json] = [{"role": "system", "content": INSTRUCTIONS}]
        self._provider = provider
        self._client: Any = openai.OpenAI(
            base_url=f"{proxy.address}/v1",
            api_key=proxy.key,
            max_retries=0,
            timeout=30,
            default_headers=headers,
            http_client=httpx.Client(trust_env=False),
        )

    def say(self, text: str) -> None:
        """Adds what the user says."""
        self.messages.append({"role": "user", "content": text})

    def call(self, *, model: str = MODEL, stream: bool = False) -> Exchange:
        """One call with the conversation as it stands; the reply and its tools' results join it.
        Raises openai's errors."""
        asked = list(self.messages)
        response = self._client.chat.completions.with_raw_response.create(
            model=model, messages=asked, tools=tools.OFFERED, stream=stream
        )
        answer = response.parse()
        reply = _collect(answer) if stream else answer.choices[0].message.model_dump(exclude_none=True)
        self.messages.append(reply)
        for call in reply.get("tool_calls", []):
            result = tools.run(call["function"]["name"], json.loads(call["function"]["arguments"]))
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return Exchange(asked, self._provider.received[-1], response.headers, reply)

    def close(self) -> None:
        self._client.close()


def _collect(stream: Any) -> Json:
    """The message that a stream's chunks make up."""
    text, calls = "", dict[int, Json]()
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or []:
                empty = {"id": part.id, "type": "function", "function": {"name": "", "arguments": ""}}
                function = calls.setdefault(part.index, empty)["function"]
                function["name"] += part.function.name or ""
                function["arguments"] += part.function.arguments or ""
    reply: Json = {"role": "assistant"}
    if text:
        reply["content"] = text
    if calls:
        reply["tool_calls"] = list(calls.values())
    return reply
