"""openai-python: chat completions and responses, whole and streamed, with the library's own stream helpers."""

from __future__ import annotations

import json
from typing import Any

import openai
from tools import API, API_KEY, BASE_URL, FUNCTIONS, HEADERS, MODEL, SCHEMAS, STREAM, TASKS, finish

client = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY, default_headers=HEADERS)
history: list[Any] = []
ids: list[str] = []


def chat(task: str) -> str:
    tools: list[Any] = [
        {"type": "function", "function": {"name": name, "parameters": schema, "strict": True}}
        for name, schema in SCHEMAS.items()
    ]
    history.append({"role": "user", "content": task})
    while True:
        if STREAM:
            with client.chat.completions.stream(model=MODEL, messages=history, tools=tools) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            reply = client.chat.completions.create(model=MODEL, messages=history, tools=tools)
            message = reply.choices[0].message
        history.append(message)
        if not message.tool_calls:
            return message.content or ""
        for call in message.tool_calls:
            ids.append(call.id)
            content = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
            history.append({"role": "tool", "tool_call_id": call.id, "content": content})


def responses(task: str) -> str:
    tools: list[Any] = [
        {"type": "function", "name": name, "parameters": schema, "strict": True} for name, schema in SCHEMAS.items()
    ]
    history.append({"role": "user", "content": task})
    while True:
        if STREAM:
            with client.responses.stream(model=MODEL, input=history, tools=tools) as stream:
                response = stream.get_final_response()
        else:
            response = client.responses.create(model=MODEL, input=history, tools=tools)
        history.extend(response.output)
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        for call in calls:
            ids.append(call.call_id)
            output = FUNCTIONS[call.name](**json.loads(call.arguments))
            history.append({"type": "function_call_output", "call_id": call.call_id, "output": output})


ask = {"chat": chat, "responses": responses}[API]
finish([ask(task) for task in TASKS], ids)
