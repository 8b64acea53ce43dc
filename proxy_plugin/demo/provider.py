"""A strict fake provider: refuses what OpenAI refuses, and answers like a careless model.

It speaks chat completions, streamed or not, under two base paths: under `/v1` a faulty history is a 400, as
at OpenAI; under `/gateway/v1` it is a 403, as behind some gateways. Its model plays a plan of three
subtasks and gives `call_abc123` as the id of every tool call. What the plan's later steps need (a
customer's, an order's, a payment's id) it reads from the messages that reach it, and from nowhere else.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from proxy_plugin.demo import tools

Json = dict[str, Any]

CALL_ID = "call_abc123"
_LONGEST_ID = 40
_KEPT = 1_000

PLAN: dict[str, tuple[Any, ...]] = {
    "Subtask 1": (
        [("find_customer", {"email": tools.EMAIL})],
        [("get_order", {"order_id": "{order}"})],
        "Found Ada Okafor and the booking to Lisbon on 10 October, paid by card.",
    ),
    "Subtask 2": (
        [("get_fare_rules", {"order_id": "{order}"}), ("get_payment", {"payment_id": "{payment}"})],
        [("cancel_order", {"order_id": "{order}", "payment_id": "{payment}"})],
        "The fare allows it: the booking is cancelled, and 402.80 EUR go back to the card.",
    ),
    "Subtask 3": (
        [
            (
                "write_report",
                {
                    "customer_id": "{customer}",
                    "order_id": "{order}",
                    "payment_id": "{payment}",
                    "refund_id": "{refund}",
                },
            )
        ],
        "The report is written: customer {customer}, order {order}, payment {payment}, refund {refund}.",
    ),
}
"""Opening words of the user's message -> the replies in turn: calls (name, arguments) or a text."""

_FACTS = {"customer": r"cus_\w+", "order": r"ord_\w+", "payment": r"pay_\w+", "refund": r"rf_\w+"}
"""What the model looks for in the messages, and how it looks."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its messages as they arrived, and the refusal or the assistant message it got."""

    messages: list[Json]
    refusal: str | None
    reply: Json | None


class Provider:
    """Listens on a free loopback port from construction until `close`; `received` is in order of arrival."""

    def __init__(self) -> None:
        self.received: deque[Received] = deque(maxlen=_KEPT)
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._direct, methods=["POST"]),
                Route("/gateway/v1/chat/completions", self._through_gateway, methods=["POST"]),
            ]
        )
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """http://host:port, without a base path."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()

    async def _direct(self, request: Request) -> Response:
        return await self._answer(request, 400)

    async def _through_gateway(self, request: Request) -> Response:
        return await self._answer(request, 403)

    async def _answer(self, request: Request, refused_with: int) -> Response:
        body = await request.json()
        messages = body.get("messages") or []
        refused = refusal(messages)
        reply = None if refused else next_message(messages)
        self.received.append(Received(messages, refused, reply))
        if reply is None:
            error = {"message": refused, "type": "invalid_request_error", "param": "messages", "code": None}
            return JSONResponse({"error": error}, status_code=refused_with)
        usage = _usage(messages, reply)
        if body.get("stream"):
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            events = _events(body, reply, usage if with_usage else None)
            return StreamingResponse(events, media_type="text/event-stream")
        choice = {"index": 0, "message": reply, "finish_reason": _finish(reply)}
        return JSONResponse({**_frame(body, "chat.completion"), "choices": [choice], "usage": usage})


def refusal(messages: list[Json]) -> str | None:
    """OpenAI's words for the first fault in a history's tool calls; None if there is none."""
    answered: dict[str, int] = {}  # call id -> index of the message that answered it
    waiting: list[str] = []
    for index, message in enumerate(messages):
        if message.get("role") == "tool":
            call_id = str(message.get("tool_call_id"))
            if call_id in answered:
                return (
                    f"Invalid parameter: Duplicate value for 'tool_call_id' of '{call_id}', "
                    f"in messages[{answered[call_id]}] and messages[{index}]."
                )
            if call_id not in waiting:
                return (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
                    "with 'tool_calls'."
                )
            waiting.remove(call_id)
            answered[call_id] = index
            continue
        if waiting:
            break
        for number, call in enumerate(message.get("tool_calls") or []):
            call_id = str(call.get("id"))
            if len(call_id) > _LONGEST_ID:
                return (
                    f"Invalid 'messages[{index}].tool_calls[{number}].id': string too long. Expected a string with "
                    f"maximum length {_LONGEST_ID}, but got a string with length {len(call_id)} instead."
                )
            waiting.append(call_id)
    if waiting:
        return (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}"
        )
    return None


def next_message(messages: list[Json]) -> Json:
    """The model's next message: the step of the plan that the rounds since the last user message leave open."""
    asked = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=0)
    opening = _text(messages[asked]) if messages else ""
    plan = next((steps for words, steps in PLAN.items() if opening.startswith(words)), ())
    rounds = sum(bool(m.get("tool_calls")) for m in messages[asked:])
    if rounds >= len(plan):
        text = "I am the demo's fake model. I play the demo's plan and have nothing to say to anything else."
        return {"role": "assistant", "content": text}
    step, known = plan[rounds], _facts(messages)
    if isinstance(step, str):
        return {"role": "assistant", "content": _fill(step, known)}
    calls = []
    for name, arguments in step:
        given = json.dumps({key: _fill(value, known) for key, value in arguments.items()})
        calls.append({"id": CALL_ID, "type": "function", "function": {"name": name, "arguments": given}})
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _facts(messages: list[Json]) -> dict[str, str]:
    text = "\n".join(map(_text, messages))
    return {name: found[0] for name, pattern in _FACTS.items() if (found := re.search(pattern, text))}


def _fill(template: str, known: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: known.get(name[1], "unknown"), template)


def _text(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _finish(reply: Json) -> str:
    return "tool_calls" if reply.get("tool_calls") else "stop"


def _usage(messages: list[Json], reply: Json) -> Json:
    """Four bytes a token: near enough for a demo."""
    asked, said = len(json.dumps(messages)) // 4, len(json.dumps(reply)) // 4
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _frame(body: Json, kind: str) -> Json:
    return {"id": "chatcmpl-demo", "object": kind, "created": int(time.time()), "model": body.get("model")}


def _events(body: Json, reply: Json, usage: Json | None) -> Iterator[str]:
    deltas: list[Json] = [{"role": "assistant", "content": None}]
    deltas += [{"content": word} for word in re.findall(r"\S+\s*", reply["content"] or "")]
    for index, call in enumerate(reply.get("tool_calls") or []):
        name, given = call["function"]["name"], call["function"]["arguments"]
        half = len(given) // 2
        deltas.append({"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": given[:half]}}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": given[half:]}}]})
    frame = _frame(body, "chat.completion.chunk")
    for delta in deltas:
        yield _event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish(reply)}]})
    if usage is not None:
        yield _event({**frame, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def _event(data: Json) -> str:
    return f"data: {json.dumps(data)}\n\n"
