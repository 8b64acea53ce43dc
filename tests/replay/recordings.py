"""Recordings as agents and LiteLLM write them, made from one plan with figures that can be counted by hand.

The plan: the user asks who somebody is, the agent looks it up (call `call_1`); the user asks for an order, the
agent makes it with the customer number that it has found, under the id `call_1` again. That are four requests:

    1  user                                     nothing to do
    2  user, call, result                       nothing to do
    3  …, answer, user                          the first subtask collapses
    4  …, second call with the same id, result  collapses too, and the id is used twice: refused as it came
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

CUSTOMER = "CUST-48213"
FOUND = json.dumps(
    {
        "customer": CUSTOMER,
        "name": "Ada Lovelace",
        "notes": "Prefers to be called in the morning and asks for a written confirmation each time. " * 12,
    }
)
ORDERED = json.dumps({"order": "ORD-77120", "state": "placed"})
LOOK_UP = json.dumps({"name": "Ada Lovelace"})
ORDER = json.dumps({"customer": CUSTOMER, "item": "Difference Engine"})
REQUESTS, REFUSED, BREAKS, COLLAPSED = 4, 1, 1, 2


def call(call_id: str, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(call_id: str, text: str) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def chat(second_id: str = "call_1", asked: str = "Who is Ada Lovelace?") -> list[Json]:
    return [
        {"role": "user", "content": asked},
        call("call_1", "look_up", LOOK_UP),
        result("call_1", FOUND),
        {"role": "assistant", "content": "A customer of ours."},
        {"role": "user", "content": "Order the engine for her."},
        call(second_id, "order", ORDER),
        result(second_id, ORDERED),
        {"role": "assistant", "content": "It is ordered."},
    ]


def use(call_id: str, name: str, arguments: str) -> Json:
    return {"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)}


def answer(call_id: str, text: str) -> Json:
    return {"type": "tool_result", "tool_use_id": call_id, "content": text}


def messages(second_id: str = "call_1") -> list[Json]:
    return [
        {"role": "user", "content": "Who is Ada Lovelace?"},
        {"role": "assistant", "content": [use("call_1", "look_up", LOOK_UP)]},
        {"role": "user", "content": [answer("call_1", FOUND)]},
        {"role": "assistant", "content": [{"type": "text", "text": "A customer of ours."}]},
        {"role": "user", "content": "Order the engine for her."},
        {"role": "assistant", "content": [use(second_id, "order", ORDER)]},
        {"role": "user", "content": [answer(second_id, ORDERED)]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is ordered."}]},
    ]


def said(role: str, text: str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def responses(second_id: str = "call_1") -> list[Json]:
    return [
        said("user", "Who is Ada Lovelace?"),
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbGVk"},
        {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": LOOK_UP},
        {"type": "function_call_output", "call_id": "call_1", "output": FOUND},
        said("assistant", "A customer of ours."),
        said("user", "Order the engine for her."),
        {"type": "function_call", "call_id": second_id, "name": "order", "arguments": ORDER},
        {"type": "function_call_output", "call_id": second_id, "output": ORDERED},
        said("assistant", "It is ordered."),
    ]


def payloads(wire: list[Json], **fields: Any) -> list[Json]:
    """StandardLoggingPayloads of the requests of a chat, as far as they matter."""
    return [
        {
            "id": f"chatcmpl-{index}",
            "call_type": "acompletion",
            "custom_llm_provider": "openai",
            "model": "gpt-4o",
            "model_parameters": {},
            "session_id": "",
            "trace_id": f"made-up-{id(wire)}-{index}",
            "status": "success",
            "messages": wire[:index],
            "response": {"object": "chat.completion", "choices": [{"index": 0, "message": wire[index]}]},
            **fields,
        }
        for index in range(1, len(wire))
        if wire[index]["role"] == "assistant"
    ]


def transcript_line(number: int, parent: int | None, message: Json, **fields: Any) -> Json:
    """A line of Claude Code's."""
    return {
        "type": message["role"],
        "uuid": f"line-{number}",
        "parentUuid": None if parent is None else f"line-{parent}",
        "sessionId": "session-cc",
        "isSidechain": False,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "message": message,
        **fields,
    }


def claude_code(wire: list[Json]) -> list[Json]:
    """Lines of a conversation that went straight on, among those that carry no message."""
    lines: list[Json] = [{"type": "file-history-snapshot", "messageId": "m", "snapshot": {}}]
    for number, message in enumerate(wire):
        extra = {"id": f"msg_{number}", "model": "claude"} if message["role"] == "assistant" else {}
        lines.append(transcript_line(number, number - 1 if number else None, {**message, **extra}))
    return [*lines, {"type": "summary", "summary": "An order", "leafUuid": "line-7"}]


def codex(items: list[Json]) -> list[Json]:
    lines: list[Json] = [
        {"timestamp": "t", "type": "session_meta", "payload": {"id": "session-codex", "cwd": "/"}},
        {"timestamp": "t", "type": "turn_context", "payload": {"model": "gpt-5"}},
    ]
    for item in items:
        noted = {**item, "internal_chat_message_metadata_passthrough": {"turn_id": "1"}}
        lines.append({"timestamp": "t", "type": "response_item", "payload": noted})
        lines.append({"timestamp": "t", "type": "event_msg", "payload": {"type": "token_count"}})
    return lines


def write(path: Path, lines: list[Any]) -> Path:
    """One line each; what is text already is written as it is."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path
