"""A strict fake provider: judges every history as the real one would, and answers like an agent's model.

    with FakeProvider(dialect="openai") as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="any")
        ...
        assert provider.requests[-1].violations == []

It listens on a free loopback port and serves chat completions, messages and responses (streamed and
not), and the endpoints beside them. A history that breaks a rule of its dialect (see `validators`) gets the
provider's own words as a 400, or a 403 behind a gateway. Every request is kept raw in `requests`.

Replies come from a brain, `Callable[[Request], Reply]`. The default, `ReusingModel`, plays a plan that the
user writes into the message, one round of parallel calls a paragraph:

    call search {"query": "boats"}
    call search {"query": "trains"}

    call book {"id": 7}

and gives the same ids in every turn, as careless models do. `provider.next(...)` changes the next replies:
`fail(500)`, `cut(after=2)`, `hang(event)`, `one_id`, `long_ids`, `thought_ids`, or a whole `Reply`.
`provider.hold(event=3)` stops the next stream in front of its fourth event until the test releases it.

For a shell: `python tests/fake_provider.py --port 8900 --dialect anthropic`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import re
import socket
import struct
import sys
import threading
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count as counting
from itertools import zip_longest
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.validators import Fault, judge

Json = dict[str, Any]
Call = tuple[str, str, str]
"""id, name, arguments"""

CREATED = 1_700_000_000
"""The time of every reply, so that recordings compare byte for byte."""

_POLL_SECONDS = 0.005  # threading.Event has no awaitable form, and a blocked thread would outlive the server


class Gate:
    """Holds one stream in front of an event: wait for `reached`, look at what came, then `release()`."""

    def __init__(self, event: int) -> None:
        self.event = event
        self.reached = threading.Event()
        self._open = threading.Event()

    def release(self) -> None:
        self._open.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()


@dataclass(frozen=True)
class Reply:
    """What the model says. A `status` other than 200 is a failure with `text` as its message."""

    text: str = ""
    calls: Sequence[Call] = ()
    chunks: int = 3  # pieces that a streamed text, and each call's arguments, come in
    finish: str | None = None  # None: what fits, in the words of the endpoint
    reasoning: str | None = None  # a reasoning item or a thinking block in front
    delay_event: threading.Event | None = None  # nothing is sent before it is set
    status: int = 200
    cut_after: int | None = None  # events of a stream after which the connection breaks
    gate: Gate | None = None


Change = Callable[[Reply], Reply]


@dataclass
class Request:
    """One request as it came, what the judge said, and how it ended."""

    path: str
    headers: dict[str, str]
    body: bytes
    parsed: Any
    api: str  # "chat" | "messages" | "responses" | "" for everything else
    number: int
    dialect: str
    faults: list[Fault] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply: Reply | None = None
    outcome: str = "pending"  # then "answered" | "refused" | "failed" | "cut" | "disconnected" (or still streaming)
    history: list[Any] = field(default_factory=list)  # what was judged; a continued response's items in front

    @property
    def violations(self) -> list[str]:
        return [str(fault) for fault in self.faults]

    @property
    def messages(self) -> list[Any]:
        """The wire list of the request itself."""
        value = self.parsed.get("input" if self.api == "responses" else "messages")
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        return value if isinstance(value, list) else []

    @property
    def stream(self) -> bool:
        return bool(self.parsed.get("stream"))

    @property
    def model(self) -> str:
        return str(self.parsed.get("model", "fake"))


Brain = Callable[[Request], Reply]


# The default brain


@dataclass(frozen=True)
class Spoken:
    kind: str  # "user" | "assistant" | "call" | "result"
    text: str


def spoken(request: Request) -> list[Spoken]:
    """The conversation of any wire form as one flat list; assistant text beside a call is left out."""
    flat = [part for item in request.history if isinstance(item, dict) for part in _spoken_item(item)]
    return [
        part
        for part, after in zip_longest(flat, flat[1:])
        if not (part.kind == "assistant" and after is not None and after.kind == "call")
    ]


def _spoken_item(item: Json) -> Iterator[Spoken]:
    kind, role, content = item.get("type"), item.get("role"), item.get("content")
    if kind in ("function_call", "custom_tool_call"):
        yield Spoken("call", str(item.get("name")))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield Spoken("result", _text(item.get("output")))
    elif role == "tool":
        yield Spoken("result", _text(content))
    elif role in ("user", "assistant"):
        blocks = content if isinstance(content, list) else []
        for block in blocks:
            if isinstance(block, dict) and block.get("type") == "tool_result":
                yield Spoken("result", _text(block.get("content")))
        if text := _text(content):
            yield Spoken(role, text)
        calls = item.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            yield Spoken("call", str(function.get("name")) if isinstance(function, dict) else "")
        for block in blocks:
            if isinstance(block, dict) and block.get("type") == "tool_use":
                yield Spoken("call", str(block.get("name")))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text"))


_CALL_LINE = re.compile(r"^\s*call[ \t]+([\w.-]+)[ \t]*(\{.*\})?\s*$", re.MULTILINE)


def rounds_in(text: str) -> list[list[tuple[str, str]]]:
    """The plan that a user message holds: for each paragraph with call lines its (name, arguments)."""
    paragraphs = re.split(r"\n\s*\n", text)
    found = [[(name, args or "{}") for name, args in _CALL_LINE.findall(p)] for p in paragraphs]
    return [calls for calls in found if calls]


class ReusingModel:
    """Plays the plan of the running subtask, with the same ids in every turn; then says what came of it."""

    def __call__(self, request: Request) -> Reply:
        running = self._running(spoken(request))
        asked = [i for i, part in enumerate(running) if part.kind == "user" and rounds_in(part.text)]
        since = running[asked[-1] :] if asked else []
        plan = rounds_in(since[0].text) if since else []
        done = sum(
            1
            for before, part in zip([Spoken("", ""), *since], since, strict=False)
            if part.kind == "call" and before.kind != "call"
        )
        if done < len(plan):
            calls = [(reused_id(request, n), name, args) for n, (name, args) in enumerate(plan[done])]
            return Reply(calls=calls)
        results = [part.text for part in since if part.kind == "result"]
        if results:
            return Reply(text=f"Done after {len(results)} results, the last of them: {results[-1][:120]}")
        said = [part.text for part in running if part.kind == "user"]
        return Reply(text=f"I have nothing to call. You said: {said[-1][:120] if said else 'nothing'}")

    @staticmethod
    def _running(parts: list[Spoken]) -> list[Spoken]:
        ends = [i for i, part in enumerate(parts) if part.kind == "assistant"]
        return parts[ends[-1] + 1 :] if ends else parts


def reused_id(request: Request, position: int) -> str:
    """The id of a turn's call by its place alone, so that every turn gives the same ones."""
    if request.dialect == "mistral":
        return f"abc{123 + position}XYZ"
    if request.api == "messages":
        return f"toolu_abc{123 + position}"
    return f"call_abc{123 + position}"


# Faults to come


def fail(status: int, message: str = "The server had an error while processing your request.") -> Change:
    """The next reply is an error of the provider."""
    return lambda _: Reply(text=message, status=status)


def cut(after: int) -> Change:
    """The next stream breaks off after so many events (a reply that is not streamed breaks at once)."""
    return lambda reply: replace(reply, cut_after=after)


def hang(event: threading.Event) -> Change:
    """Nothing of the next reply is sent before the event is set."""
    return lambda reply: replace(reply, delay_event=event)


def one_id(reply: Reply) -> Reply:
    """All calls of the reply share the first one's id."""
    return replace(reply, calls=[(reply.calls[0][0], name, args) for _, name, args in reply.calls])


def long_ids(reply: Reply) -> Reply:
    """Ids of more than 64 characters that differ only at their end."""
    return replace(reply, calls=[(f"call_{'x' * 64}{n}", c[1], c[2]) for n, c in enumerate(reply.calls)])


def thought_ids(reply: Reply) -> Reply:
    """Ids that carry a signature, as LiteLLM makes them for Gemini 3."""

    def thought(position: int, name: str) -> str:
        digest = hashlib.sha256(f"{position}{name}".encode()).digest()
        return f"call_{digest.hex()[:28]}__thought__{base64.b64encode(digest * 3).decode()}"

    return replace(reply, calls=[(thought(n, c[1]), c[1], c[2]) for n, c in enumerate(reply.calls)])


# The provider's own words

_UNANSWERED = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
    " The following tool_call_ids did not have response messages: {ids}"
)
_ORPHAN = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
_DUPLICATE = "Invalid parameter: Duplicate value for 'tool_call_id' of '{id}', in {where}."
_OPENAI = {
    "unanswered": _UNANSWERED,
    "orphan": _ORPHAN,
    "second-answer": _ORPHAN,
    "duplicate-id": _DUPLICATE,
    "reused-id": _DUPLICATE,
    "id-length": "Invalid '{where}.id': string too long. Expected a string with maximum length 40, "
    "but got a string with length {length} instead.",
    "call-without-id": "Missing required parameter: '{where}.id'.",
    "result-without-id": "Missing required parameter: '{where}.tool_call_id'.",
    "null-content": "Invalid value for 'content': expected a string, got null.",
    "empty-tool-calls": "Invalid '{where}.tool_calls': empty array. Expected an array with minimum length 1, "
    "but got an empty array instead.",
    "name": "Invalid '{where}.function.name': string does not match pattern. "
    "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
}
_RESPONSES = {
    "unanswered": "No tool output found for function call {id}.",
    "orphan": "No tool call found for function call output with call_id {id}.",
    "second-answer": "No tool call found for function call output with call_id {id}.",
    "duplicate-item": "Duplicate item found with id {id}. Remove duplicate items from your input and try again.",
    "duplicate-id": "Duplicate item found with id {id}. Remove duplicate items from your input and try again.",
    "reused-id": "Duplicate item found with id {id}. Remove duplicate items from your input and try again.",
    "id-length": "Invalid '{where}.call_id': string too long. Expected a string with maximum length 64, "
    "but got a string with length {length} instead.",
    "item-id": "Invalid '{where}.id': '{id}'.",
    "reasoning": "Item '{id}' of type 'reasoning' was provided without its required following item.",
}
_TOOL_USE_PATTERN = "{where}.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
_ANTHROPIC = {
    "duplicate-id": "{where}: `tool_use` ids must be unique",
    "reused-id": "{where}: `tool_use` ids must be unique",
    "unanswered": "{where}: `tool_use` ids were found without `tool_result` blocks immediately after: {ids}. "
    "Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
    "results-first": "{where}: `tool_use` ids were found without `tool_result` blocks immediately after: {ids}.",
    "orphan": "{where}: unexpected `tool_use_id` found in `tool_result` blocks: {ids}. Each `tool_result` block "
    "must have a corresponding `tool_use` block in the previous message.",
    "second-answer": "{where}: each tool_use must have a single result. Found multiple `tool_result` blocks "
    "with id: {id}",
    "id-alphabet": _TOOL_USE_PATTERN,
    "id-length": "{where}.id: String should have at most 64 characters",
    "call-without-id": "{where}.id: Field required",
    "result-without-id": "{where}.tool_use_id: Field required",
    "system-place": "{where}: role 'system' is not supported on this model",
    "empty-text": "messages: text content blocks must be non-empty",
    "empty-content": "{where}: all messages must have non-empty content except for the optional final assistant "
    "message",
    "cache-control": "A maximum of 4 blocks with cache_control may be provided. Found {id}.",
    "thinking-place": "{where}: The final block in an assistant message cannot be `thinking`.",
    "extra-key": "{where}.{id}: Extra inputs are not permitted",
}
_BEDROCK = {
    "unanswered": "Expected toolResult blocks at {where}.content for the following Ids: {ids}",
    "orphan": "The number of toolResult blocks at {where}.content exceeds the number of toolUse blocks of "
    "previous turn.",
    "second-answer": "The toolResult blocks at {where}.content contain duplicate Ids: {ids}",
    "duplicate-id": "The toolUse blocks at {where}.content contain duplicate Ids: {ids}",
    "reused-id": "The toolUse blocks at {where}.content contain duplicate Ids: {ids}",
    "id-alphabet": "Value '{id}' at '{where}.toolUseId' failed to satisfy constraint: Member must satisfy regular "
    "expression pattern: [a-zA-Z0-9_.:-]+",
    "id-length": "Value '{id}' at '{where}.toolUseId' failed to satisfy constraint: Member must have length less "
    "than or equal to 64",
}
_COUNTS = "Not the same number of function calls and responses"
_MISTRAL_ID = "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."
_MISTRAL = {
    "unanswered": _COUNTS,
    "orphan": _COUNTS,
    "second-answer": _COUNTS,
    "id-length": _MISTRAL_ID,
    "id-alphabet": _MISTRAL_ID,
    "duplicate-id": "Duplicate tool call id in assistant message: {id}",
    "user-after-tool": "Unexpected role 'user' after role 'tool'",
    "system-place": "Unexpected role 'system' after role 'assistant' or 'tool'",
    "last-role": "Expected last role User or Tool (or Assistant with prefix True) for serving",
}
_GEMINI_COUNTS = (
    "Please ensure that the number of function response parts is equal to the number of function call parts of "
    "the function call turn."
)
_GEMINI = dict.fromkeys(["unanswered", "orphan", "second-answer"], _GEMINI_COUNTS)
_INSUFFICIENT = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
    "(insufficient tool messages following tool_calls message)"
)
_WORDS: dict[str, dict[str, str]] = {
    "anthropic": _ANTHROPIC,
    "bedrock": _BEDROCK,
    "mistral": _MISTRAL,
    "gemini": _GEMINI,
    "vertex_ai": _GEMINI,
    "deepseek": {"unanswered": _INSUFFICIENT},
    "hosted_vllm": {"system-place": "System message must be at the beginning."},
}


def wording(fault: Fault, dialect: str, api: str) -> str:
    """How the provider says it: rule and place as in the recorded error texts."""
    own = {"messages": _ANTHROPIC, "responses": _RESPONSES}.get(api, _WORDS.get(dialect, {}))
    template = own.get(fault.rule) or _OPENAI.get(fault.rule) or "Invalid request: {fault}"
    first = fault.ids[0] if fault.ids else ""
    return template.format(where=fault.where, id=first, ids=", ".join(fault.ids), length=len(first), fault=str(fault))


# The server


class _Cut(Exception):
    """Ends the connection in the middle of a reply."""


class FakeProvider:
    """The server, for the length of a `with` block.

    `dialect`: whose rules hold on chat completions (a key of `validators.PROVIDERS`); /v1/messages judges as
    Anthropic unless the dialect is bedrock, /v1/responses as OpenAI unless it is deepseek. `gateway`: refusals
    are 403. `strict`: the client's own faults are refused too. `allowed`: see `validators.violations`.
    """

    def __init__(
        self,
        dialect: str = "openai",
        gateway: bool = False,
        *,
        brain: Brain | None = None,
        strict: bool = True,
        allowed: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        self.dialect, self.gateway, self.strict, self.allowed = dialect, gateway, strict, tuple(allowed)
        self.brain = brain or ReusingModel()
        self.requests: list[Request] = []
        self._numbers = counting(1)  # it gives no id of a response twice, also where `requests` was emptied
        self._changes: list[Change] = []
        self._prompts: dict[tuple[str, str, str], bytes] = {}
        self._stored: dict[str, list[Any]] = {}  # items by response id
        self._arrival = threading.Condition()
        self._closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.app = Starlette(routes=self._routes())
        config = uvicorn.Config(self.app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def url(self) -> str:
        """Without a path, as Anthropic's clients want it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """With /v1, as OpenAI's clients want it."""
        return f"{self.url}/v1"

    def __enter__(self) -> FakeProvider:
        self._thread.start()  # the socket listens already: a client that is early waits in its queue
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def serve(self) -> None:
        """Runs in the calling thread until a signal ends it."""
        self._server.run([self._socket])

    def next(self, *changes: Change | Reply) -> None:
        """Each change is for one accepted request to come, in order; a `Reply` takes the brain's place."""
        self._changes += [_always(change) if isinstance(change, Reply) else change for change in changes]

    def hold(self, event: int) -> Gate:
        """Stops the next reply's stream in front of its event number `event` (from 0)."""
        gate = Gate(event)
        self.next(lambda reply: replace(reply, gate=gate))
        return gate

    def wait_for(self, count: int, seconds: float = 20) -> Request:
        """The request number `count` (from 1) as soon as it is there; `TimeoutError` if it does not come."""
        with self._arrival:
            if not self._arrival.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} of {count} requests came")
        return self.requests[count - 1]

    def sent(self, api: str = "chat") -> list[list[Any]]:
        """The wire lists of all requests to an endpoint, in order."""
        return [request.messages for request in self.requests if request.api == api]

    def refused(self) -> list[Request]:
        return [request for request in self.requests if request.outcome == "refused"]

    # Requests

    def _routes(self) -> list[Route]:
        posts: dict[str, Callable[[HttpRequest], Any]] = {
            "/chat/completions": lambda http: self._generate(http, "chat"),
            "/messages": lambda http: self._generate(http, "messages"),
            "/responses": lambda http: self._generate(http, "responses"),
            "/messages/count_tokens": self._count_tokens,
            "/embeddings": self._embeddings,
            "/completions": self._completions,
        }
        routes = [
            Route(prefix + path, _endpoint(call), methods=["POST"])
            for prefix in ("/v1", "")
            for path, call in posts.items()
        ]
        return [*routes, *(Route(f"{p}/models", _endpoint(self._models)) for p in ("/v1", ""))]

    async def _record(self, http: HttpRequest, api: str = "") -> Request:
        body = await http.body()
        try:
            parsed = json.loads(body) if body else {}
        except ValueError:
            parsed = {}
        request = Request(
            path=http.url.path,
            headers=dict(http.headers),
            body=body,
            parsed=parsed if isinstance(parsed, dict) else {},
            api=api,
            number=next(self._numbers),
            dialect=self.dialect,
        )
        with self._arrival:
            self.requests.append(request)
            self._arrival.notify_all()
        return request

    async def _generate(self, http: HttpRequest, api: str) -> Response:
        request = await self._record(http, api)
        request.history = request.messages
        if previous := request.parsed.get("previous_response_id"):
            if previous not in self._stored:
                request.outcome = "refused"
                return self._error(request, 400, f"Previous response with id '{previous}' not found.")
            request.history = [*self._stored[previous], *request.history]
        request.faults = judge(request.history, self._judge_for(api), api, strict=self.strict, allowed=self.allowed)
        if request.faults or not request.history:
            request.outcome = "refused"
            words = "Missing required parameter: 'messages'."
            if request.faults:
                words = wording(request.faults[0], self.dialect, api)
            return self._error(request, 403 if self.gateway else 400, words)
        self._count(request)
        reply = self.brain(request)
        if self._changes:
            reply = self._changes.pop(0)(reply)
        request.reply = reply
        if reply.delay_event is not None:
            await self._until(reply.delay_event.is_set)
        if reply.status != 200:
            request.outcome = "failed"
            return self._error(request, reply.status, reply.text)
        wire = _WIRES[api](request, reply)
        if api == "responses" and request.parsed.get("store") is not False:
            self._stored[wire.id] = [*request.history, *wire.whole()["output"]]
        if request.stream:
            return StreamingResponse(self._events(request, reply, wire), media_type="text/event-stream")
        if reply.cut_after is not None:
            return StreamingResponse(self._events(request, replace(reply, cut_after=0), wire))
        request.outcome = "answered"
        return JSONResponse(wire.whole())

    def _judge_for(self, api: str) -> str:
        if api == "messages":
            return self.dialect if self.dialect == "bedrock" else "anthropic"
        if api == "responses":
            return self.dialect if self.dialect == "deepseek" else "openai"
        return self.dialect

    async def _events(self, request: Request, reply: Reply, wire: _Wire) -> AsyncIterator[bytes]:
        request.outcome = "disconnected"  # unless the end is reached
        for number, event in enumerate(wire.events()):
            if reply.cut_after is not None and number >= reply.cut_after:
                request.outcome = "cut"
                raise _Cut
            if reply.gate is not None and number == reply.gate.event:
                reply.gate.reached.set()
                await self._until(lambda: reply.gate is None or reply.gate.is_open)
            yield event
        request.outcome = "answered"

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done() and not self._closing.is_set():
            await asyncio.sleep(_POLL_SECONDS)

    def _count(self, request: Request) -> None:
        """Prompt tokens (4 bytes each), and how many of them the previous prompt already began with."""
        head = [request.parsed.get(key) for key in ("tools", "system", "instructions")]
        prompt = "\n".join(json.dumps(part) for part in [head, *request.history]).encode()
        user = str(request.parsed.get("user") or request.headers.get("authorization"))
        before = self._prompts.get((user, request.model, request.api), b"")
        self._prompts[user, request.model, request.api] = prompt
        request.prompt_tokens = _tokens(len(prompt))
        request.cached_tokens = _common_length(before, prompt) // 4

    def _error(self, request: Request, status: int, message: str) -> Response:
        kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}.get(status)
        kind = kind or {429: "rate_limit_error"}.get(status, "api_error" if status >= 500 else "invalid_request_error")
        if request.api == "messages":
            body: Json = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
        elif self.dialect == "mistral":
            body = {"object": "error", "message": message, "type": kind, "param": None, "code": "3230"}
        else:
            body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        return JSONResponse(body, status_code=status, headers={"retry-after": "0"} if status == 429 else None)

    async def _models(self, http: HttpRequest) -> Response:
        await self._record(http)
        model = {"id": "fake", "object": "model", "created": CREATED, "owned_by": "fake"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _count_tokens(self, http: HttpRequest) -> Response:
        request = await self._record(http)
        counted = {key: request.parsed.get(key) for key in ("system", "tools", "messages")}
        return JSONResponse({"input_tokens": _tokens(len(json.dumps(counted)))})

    async def _embeddings(self, http: HttpRequest) -> Response:
        request = await self._record(http)
        given = request.parsed.get("input", "")
        inputs = given if isinstance(given, list) else [given]
        as_bytes = request.parsed.get("encoding_format") == "base64"
        data = []
        for index, value in enumerate(inputs):
            vector = [byte / 255 for byte in hashlib.sha256(str(value).encode()).digest()[:8]]
            packed = base64.b64encode(struct.pack("<8f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": packed if as_bytes else vector})
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return JSONResponse({"object": "list", "model": request.model, "data": data, "usage": usage})

    async def _completions(self, http: HttpRequest) -> Response:
        request = await self._record(http)
        body = {"id": f"cmpl-{request.number}", "object": "text_completion", "created": CREATED, "model": request.model}
        choice = {"index": 0, "text": "Completed.", "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if not request.stream:
            return JSONResponse({**body, "choices": [choice], "usage": usage})
        lines = [_sse({**body, "choices": [choice]}), _DONE]
        return Response(b"".join(lines), media_type="text/event-stream")


def _always(reply: Reply) -> Change:
    return lambda _: reply


def _endpoint(call: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    async def endpoint(http: HttpRequest) -> Response:
        response: Response = await call(http)
        return response

    return endpoint


def _common_length(left: bytes, right: bytes) -> int:
    sizes = range(1, min(len(left), len(right)) + 1)
    return bisect_left(sizes, True, key=lambda size: left[:size] != right[:size])


def _tokens(size: int) -> int:
    return (size + 3) // 4


# The wire forms of a reply


def _sse(data: Json, event: str | None = None) -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


_DONE = b"data: [DONE]\n\n"


def _split(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[i : i + size] for i in range(0, len(text), size)]


class _Wire:
    """One reply in one wire form: `whole()` the body, `events()` the stream."""

    def __init__(self, request: Request, reply: Reply) -> None:
        self.request, self.reply = request, reply
        size = len(reply.text) + sum(len(name) + len(arguments) for _, name, arguments in reply.calls)
        self.output_tokens = _tokens(size)

    @property
    def id(self) -> str:
        raise NotImplementedError

    def whole(self) -> Json:
        raise NotImplementedError

    def events(self) -> Iterator[bytes]:
        raise NotImplementedError


class _Chat(_Wire):
    @property
    def id(self) -> str:
        return f"chatcmpl-{self.request.number}"

    @property
    def finish(self) -> str:
        return self.reply.finish or ("tool_calls" if self.reply.calls else "stop")

    def usage(self) -> Json:
        prompt, cached = self.request.prompt_tokens, self.request.cached_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.output_tokens,
            "total_tokens": prompt + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": CREATED, "model": self.request.model}

    def whole(self) -> Json:
        reply = self.reply
        message: Json = {"role": "assistant", "content": reply.text or None, "refusal": None}
        if reply.reasoning is not None:
            message["reasoning_content"] = reply.reasoning
        if reply.calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in reply.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self.usage()}

    def events(self) -> Iterator[bytes]:
        reply = self.reply
        yield self._delta({"role": "assistant", "content": "" if reply.text else None})
        if reply.reasoning is not None:
            yield self._delta({"reasoning_content": reply.reasoning})
        for piece in _split(reply.text, reply.chunks):
            yield self._delta({"content": piece})
        for index, (call_id, name, arguments) in enumerate(reply.calls):
            function = {"name": name, "arguments": ""}
            yield self._call_delta({"index": index, "id": call_id, "type": "function", "function": function})
            for piece in _split(arguments, reply.chunks):
                yield self._call_delta({"index": index, "function": {"arguments": piece}})
        yield self._delta({}, self.finish)
        if (self.request.parsed.get("stream_options") or {}).get("include_usage"):
            yield _sse({**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage()})
        yield _DONE

    def _delta(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _call_delta(self, call: Json) -> bytes:
        return self._delta({"tool_calls": [call]})


class _Messages(_Wire):
    @property
    def id(self) -> str:
        return f"msg_{self.request.number:024}"

    @property
    def finish(self) -> str:
        return self.reply.finish or ("tool_use" if self.reply.calls else "end_turn")

    def usage(self) -> Json:
        cached = self.request.cached_tokens
        return {
            "input_tokens": self.request.prompt_tokens - cached,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": self.output_tokens,
        }

    def _blocks(self) -> list[Json]:
        blocks: list[Json] = []
        if self.reply.reasoning is not None:
            signature = base64.b64encode(self.reply.reasoning.encode()).decode()
            blocks.append({"type": "thinking", "thinking": self.reply.reasoning, "signature": signature})
        if self.reply.text:
            blocks.append({"type": "text", "text": self.reply.text})
        for call_id, name, arguments in self.reply.calls:
            blocks.append({"type": "tool_use", "id": call_id, "name": name, "input": _object(arguments)})
        return blocks

    def _head(self) -> Json:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.request.model}

    def whole(self) -> Json:
        stop = {"stop_reason": self.finish, "stop_sequence": None}
        return {**self._head(), "content": self._blocks(), **stop, "usage": self.usage()}

    def events(self) -> Iterator[bytes]:
        start = {**self._head(), "content": [], "stop_reason": None, "stop_sequence": None}
        yield self._event("message_start", message={**start, "usage": {**self.usage(), "output_tokens": 1}})
        yield self._event("ping")
        for index, block in enumerate(self._blocks()):
            opened, deltas = self._parts(block)
            yield self._event("content_block_start", index=index, content_block=opened)
            for delta in deltas:
                yield self._event("content_block_delta", index=index, delta=delta)
            yield self._event("content_block_stop", index=index)
        delta = {"stop_reason": self.finish, "stop_sequence": None}
        yield self._event("message_delta", delta=delta, usage={"output_tokens": self.output_tokens})
        yield self._event("message_stop")

    def _parts(self, block: Json) -> tuple[Json, list[Json]]:
        """A block as it opens, and the deltas that fill it."""
        chunks = self.reply.chunks
        if block["type"] == "text":
            deltas = [{"type": "text_delta", "text": piece} for piece in _split(block["text"], chunks)]
            return {**block, "text": ""}, deltas
        if block["type"] == "tool_use":
            pieces = _split(json.dumps(block["input"]), chunks)
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": p} for p in pieces]
        thoughts: list[Json] = [
            {"type": "thinking_delta", "thinking": piece} for piece in _split(block["thinking"], chunks)
        ]
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signature]

    @staticmethod
    def _event(kind: str, **data: Any) -> bytes:
        return _sse({"type": kind, **data}, kind)


def _object(arguments: str) -> Json:
    try:
        value = json.loads(arguments)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class _Responses(_Wire):
    """Item ids of calls are reused like call ids; those of messages and reasoning differ."""

    @property
    def id(self) -> str:
        return f"resp_{self.request.number:032}"

    def usage(self) -> Json:
        prompt = self.request.prompt_tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": self.request.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + self.output_tokens,
        }

    def _items(self) -> list[Json]:
        number, items = f"{self.request.number:032}", list[Json]()
        if self.reply.reasoning is not None:
            summary = [{"type": "summary_text", "text": self.reply.reasoning}]
            items.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary})
        if self.reply.text:
            content = [{"type": "output_text", "text": self.reply.text, "annotations": []}]
            message = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed"}
            items.append({**message, "content": content})
        for call_id, name, arguments in self.reply.calls:
            item_id = f"fc_{call_id.removeprefix('call_')}"
            call = {"type": "function_call", "id": item_id, "call_id": call_id, "status": "completed"}
            items.append({**call, "name": name, "arguments": arguments})
        return items

    def _body(self, status: str, output: list[Json], usage: Json | None) -> Json:
        asked = self.request.parsed
        return {
            "id": self.id,
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "metadata": asked.get("metadata") or {},
            "model": self.request.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": asked.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None},
            "store": asked.get("store") is not False,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": asked.get("tools") or [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
        }

    def whole(self) -> Json:
        return self._body(self.reply.finish or "completed", self._items(), self.usage())

    def events(self) -> Iterator[bytes]:
        for number, (kind, data) in enumerate(self._stream()):
            yield _sse({"type": kind, "sequence_number": number, **data}, kind)

    def _stream(self) -> Iterator[tuple[str, Json]]:
        started = self._body("in_progress", [], None)
        yield "response.created", {"response": started}
        yield "response.in_progress", {"response": started}
        for index, item in enumerate(self._items()):
            yield from self._item_events(index, item)
        yield "response.completed", {"response": self.whole()}

    def _item_events(self, index: int, item: Json) -> Iterator[tuple[str, Json]]:
        place = {"item_id": item["id"], "output_index": index}
        opened = {**item, "status": "in_progress"}
        if item["type"] == "function_call":
            yield "response.output_item.added", {"output_index": index, "item": {**opened, "arguments": ""}}
            for piece in _split(item["arguments"], self.reply.chunks):
                yield "response.function_call_arguments.delta", {**place, "delta": piece}
            yield "response.function_call_arguments.done", {**place, "arguments": item["arguments"]}
        elif item["type"] == "message":
            part, place = item["content"][0], {**place, "content_index": 0}
            yield "response.output_item.added", {"output_index": index, "item": {**opened, "content": []}}
            yield "response.content_part.added", {**place, "part": {**part, "text": ""}}
            for piece in _split(part["text"], self.reply.chunks):
                yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}
            yield "response.output_text.done", {**place, "text": part["text"], "logprobs": []}
            yield "response.content_part.done", {**place, "part": part}
        else:
            yield "response.output_item.added", {"output_index": index, "item": {**item, "summary": []}}
        yield "response.output_item.done", {"output_index": index, "item": item}


_WIRES: dict[str, Callable[[Request, Reply], _Wire]] = {
    "chat": _Chat,
    "messages": _Messages,
    "responses": _Responses,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="A strict fake provider on the loopback interface.")
    parser.add_argument("--port", type=int, default=8900)
    parser.add_argument("--dialect", default="openai")
    parser.add_argument("--gateway", action="store_true", help="refuse with 403 instead of 400")
    given = parser.parse_args()
    provider = FakeProvider(given.dialect, given.gateway, port=given.port)
    print(f"{given.dialect} on {provider.base_url}", flush=True)
    provider.serve()


if __name__ == "__main__":
    main()
