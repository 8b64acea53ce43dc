"""A small agent for tests: the official openai client, an agent loop, tools that answer at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import openai

Message = dict[str, Any]


def rows(name: str, arguments: str) -> str:
    """A tool's answer: large enough that a summary of it saves, and different for every call."""
    return json.dumps(
        [{"id": f"{name}-{n}", "asked": arguments, "status": "open", "note": f"line {n} " * 8} for n in range(12)]
    )


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("find_customer", "find_orders", "cancel", "refund", "report", "find", "a", "b")
]


@dataclass
class Agent:
    """One conversation. `ids`: every tool call id the client saw, in order; `headers`: of each response."""

    client: openai.OpenAI
    model: str = "gpt"
    stream: bool = False
    extra_headers: dict[str, str] = field(default_factory=dict)
    extra_body: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def run(self, task: str) -> str:
        """One subtask: asks, executes tools until there is a text, and gives the text."""
        self.messages.append({"role": "user", "content": task})
        while True:
            reply = self.ask()
            self.messages.append(reply)
            calls = reply.get("tool_calls")
            if not calls:
                return str(reply["content"])
            for call in calls:
                self.ids.append(call["id"])
                function = call["function"]
                content = rows(function["name"], function["arguments"])
                self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})

    def ask(self) -> Message:
        create = self.client.chat.completions.with_raw_response.create
        options = {"extra_headers": self.extra_headers, "extra_body": self.extra_body, "tools": TOOLS}
        raw = create(model=self.model, messages=self.messages, stream=self.stream, **options)  # type: ignore[call-overload]
        self.headers.append({k: v for k, v in raw.headers.items() if k.startswith("x-proxy-plugin")})
        if not self.stream:
            message: Message = raw.parse().choices[0].message.model_dump(exclude_none=True)
            return {"role": "assistant", "content": None, **message}
        return collect(raw.parse())

    @property
    def session(self) -> str:
        return self.headers[-1]["x-proxy-plugin-session"]


def collect(chunks: Any) -> Message:
    """A streamed reply as a client puts it together."""
    text = ""
    calls: dict[int, Message] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"type": "function", "function": {"name": "", "arguments": ""}})
                if part.id:
                    call["id"] = part.id
                call["function"]["name"] += part.function.name or ""
                call["function"]["arguments"] += part.function.arguments or ""
    message: Message = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = list(calls.values())
    return message


PLAN = (
    'call find_customer {"email": "a@example.com"}\ncall find_orders {"customer": 17}\n\ncall cancel {"order": 3}',
    'call refund {"order": 3}',
    'call report {"order": 3}',
)
"""Three subtasks for `fake_provider.ReusingModel`: parallel calls, then one round each."""
