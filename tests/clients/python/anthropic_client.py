"""anthropic-python: messages, whole and streamed, with the library's own stream helper."""

from __future__ import annotations

from typing import Any

import anthropic
from tools import API_KEY, BASE_URL, FUNCTIONS, HEADERS, MODEL, SCHEMAS, STREAM, TASKS, finish

client = anthropic.Anthropic(base_url=BASE_URL, api_key=API_KEY, default_headers=HEADERS)
tools: list[Any] = [{"name": name, "input_schema": schema} for name, schema in SCHEMAS.items()]
history: list[Any] = []
ids: list[str] = []


def ask(task: str) -> str:
    history.append({"role": "user", "content": task})
    while True:
        if STREAM:
            with client.messages.stream(model=MODEL, max_tokens=500, messages=history, tools=tools) as stream:
                message = stream.get_final_message()
        else:
            message = client.messages.create(model=MODEL, max_tokens=500, messages=history, tools=tools)
        history.append({"role": "assistant", "content": message.content})
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return "".join(block.text for block in message.content if block.type == "text")
        ids.extend(call.id for call in calls)
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": FUNCTIONS[call.name](**call.input)}
            for call in calls
        ]
        history.append({"role": "user", "content": results})


finish([ask(task) for task in TASKS], ids)
