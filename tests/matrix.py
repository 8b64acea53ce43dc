"""Every client wire form against every provider dialect, streamed and not, through one real proxy.

    python -m tests.matrix

prints the Markdown table. A cell is one conversation: the plan of `agent.PLAN` on a model that gives the same
call ids in every turn, played by a client that knows nothing of the plugin. It is `ok` if the strict provider
refused nothing, closed subtasks were collapsed, inside a subtask each list that reached the provider is the
beginning of the next one, and the client never saw an id twice.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from tests.agent import PLAN, TOOLS, rows
from tests.fake_provider import FakeProvider, Request
from tests.proxy import Proxy

Json = dict[str, Any]
Call = tuple[str, str, str]
"""id, name, arguments"""

CALLS_OF_PLAN = 5
FUNCTIONS: list[Json] = [function for tool in TOOLS if isinstance(function := tool["function"], dict)]


class AzureProvider(FakeProvider):
    """Azure's paths: the deployment's in front of chat completions, /openai in front of the rest."""

    def _routes(self) -> list[Any]:
        own: list[Route] = super()._routes()
        return [Mount("/openai/deployments/{deployment}", routes=own), Mount("/openai", routes=own), *own]


class DeepSeekProvider(FakeProvider):
    """DeepSeek's own Messages API is below /anthropic."""

    def _routes(self) -> list[Any]:
        own: list[Route] = super()._routes()
        return [Mount("/anthropic", routes=own), *own]


class Translator(FakeProvider):
    """A provider with a wire form of its own: its lists are judged, and its replies made, in a related form.

    `parsed["received"]` of a request is the list as it came."""

    async def _answer(self, http: HttpRequest, api: str, received: list[Json], messages: list[Json]) -> Json | Response:
        """The reply in the form `api`; a refusal as the response that it is."""
        body = json.dumps({"messages": messages, "received": received}).encode()

        async def receive() -> Json:
            return {"type": "http.request", "body": body}

        answer = await self._generate(HttpRequest(http.scope, receive), api)
        return answer if answer.status_code != 200 else dict(json.loads(bytes(answer.body)))


class GeminiProvider(Translator):
    """generateContent, judged as chat. The first call of a turn carries a signature, as Gemini 3 makes them, and
    has to carry it when it comes back."""

    def __init__(self, dialect: str) -> None:
        super().__init__(dialect)
        self.signatures: list[str] = []

    def lost_signatures(self) -> list[str]:
        """The calls that came back without the signature that this provider gave them, in words."""
        lost = []
        for request in self.requests:
            for content in request.parsed.get("received", ()):
                calls = [part for part in content["parts"] if "function_call" in part or "functionCall" in part]
                signed = [part.get("thoughtSignature") in self.signatures for part in calls[:1]]
                if not all(signed):
                    lost.append(f"signature lost: {calls[0]}")
        return lost

    def _routes(self) -> list[Any]:
        return [Route("/v1beta/models/{call}", self._content, methods=["POST"])]

    async def _content(self, http: HttpRequest) -> Response:
        received = (await http.json())["contents"]
        reply = await self._answer(http, "chat", received, list(_chat_of_contents(received)))
        if isinstance(reply, Response):
            return reply
        message = reply["choices"][0]["message"]
        parts: list[Json] = [{"text": message["content"]}] if message.get("content") else []
        for number, call in enumerate(message.get("tool_calls") or []):
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            parts.append({"functionCall": {"id": call["id"], "name": name, "args": arguments}})
            if number == 0:
                signature = b64encode(sha256(str(len(self.signatures)).encode()).digest() * 3).decode()
                self.signatures.append(signature)
                parts[-1]["thoughtSignature"] = signature
        usage = {"promptTokenCount": 9, "candidatesTokenCount": 9, "totalTokenCount": 18}
        stream = "stream" in http.path_params["call"]
        chunks = [[part] for part in parts] if stream else [parts]
        bodies: list[Json] = [
            {"candidates": [{"content": {"role": "model", "parts": chunk}, "index": 0}], "usageMetadata": usage}
            for chunk in chunks
        ]
        bodies[-1]["candidates"][0]["finishReason"] = "STOP"
        if not stream:
            return JSONResponse(bodies[0])
        events = "".join(f"data: {json.dumps(body)}\n\n" for body in bodies)
        return Response(events, media_type="text/event-stream")


def _chat_of_contents(contents: list[Json]) -> Iterator[Json]:
    """Gemini matches calls and responses by their ids, and by their places where there are none."""
    places: list[str] = []
    for number, content in enumerate(contents):
        text, calls, results = "", list[Json](), list[Json]()
        for part in content["parts"]:
            text += part.get("text", "")
            if call := part.get("functionCall") or part.get("function_call"):
                function = {"name": call["name"], "arguments": json.dumps(call["args"])}
                call_id = call.get("id") or f"{number}-{len(calls)}"
                calls.append({"id": call_id, "type": "function", "function": function})
            if result := part.get("functionResponse") or part.get("function_response"):
                place = places[len(results)] if len(results) < len(places) else "none"
                result_id = result.get("id") or place
                results.append({"role": "tool", "tool_call_id": result_id, "content": json.dumps(result["response"])})
        places = [call["id"] for call in calls]
        yield from results
        if content["role"] == "model":
            yield {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
        elif text:
            yield {"role": "user", "content": text}


class BedrockProvider(Translator):
    """The Converse API, judged as Messages with Bedrock's rules; streams are AWS event streams."""

    def _routes(self) -> list[Any]:
        return [Route("/model/{model}/{call}", self._converse, methods=["POST"])]

    async def _converse(self, http: HttpRequest) -> Response:
        received = (await http.json())["messages"]
        turns = [{**turn, "content": [_block_of_converse(block) for block in turn["content"]]} for turn in received]
        reply = await self._answer(http, "messages", received, turns)
        if isinstance(reply, Response):
            return reply
        usage = {"inputTokens": 9, "outputTokens": 9, "totalTokens": 18}
        end: Json = {"usage": usage, "metrics": {"latencyMs": 1}}
        stop = {"stopReason": reply["stop_reason"]}
        if http.path_params["call"] == "converse":
            content = [
                {"toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}}
                if block["type"] == "tool_use"
                else {"text": block["text"]}
                for block in reply["content"]
            ]
            return JSONResponse({"output": {"message": {"role": "assistant", "content": content}}, **stop, **end})
        events: list[tuple[str, Json]] = [("messageStart", {"role": "assistant"})]
        for index, block in enumerate(reply["content"]):
            place: Json = {"contentBlockIndex": index}
            delta: Json = {"text": block.get("text")}
            if block["type"] == "tool_use":
                start: Json = {"toolUse": {"toolUseId": block["id"], "name": block["name"]}}
                events.append(("contentBlockStart", {**place, "start": start}))
                delta = {"toolUse": {"input": json.dumps(block["input"])}}
            events += [("contentBlockDelta", {**place, "delta": delta}), ("contentBlockStop", place)]
        events += [("messageStop", stop), ("metadata", end)]
        stream = b"".join(_aws_event(kind, data) for kind, data in events)
        return Response(stream, media_type="application/vnd.amazon.eventstream")


class InvokeProvider(FakeProvider):
    """Claude on Bedrock's Invoke API: Messages in an envelope of its own."""

    def __init__(self, dialect: str) -> None:
        super().__init__("anthropic")

    def _routes(self) -> list[Any]:
        return [Route("/model/{model}/{call}", self._invoke, methods=["POST"])]

    async def _invoke(self, http: HttpRequest) -> Response:
        stream = http.path_params["call"] != "invoke"
        body = json.dumps({**await http.json(), "stream": stream}).encode()

        async def receive() -> Json:
            return {"type": "http.request", "body": body}

        answer = await self._generate(HttpRequest(http.scope, receive), "messages")
        if not isinstance(answer, StreamingResponse):
            return answer
        lines = b"".join([bytes(chunk) async for chunk in answer.body_iterator]).splitlines()
        events = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
        chunks = [_aws_event("chunk", {"bytes": b64encode(event).decode()}) for event in events]
        return Response(b"".join(chunks), media_type="application/vnd.amazon.eventstream")


def _block_of_converse(block: Json) -> Json:
    if use := block.get("toolUse"):
        return {"type": "tool_use", "id": use["toolUseId"], "name": use["name"], "input": use["input"]}
    if result := block.get("toolResult"):
        text = "".join(part.get("text") or json.dumps(part.get("json")) for part in result["content"])
        return {"type": "tool_result", "tool_use_id": result["toolUseId"], "content": text}
    return {"type": "text", "text": block["text"]}


def _aws_event(kind: str, data: Json) -> bytes:
    """One message of an AWS event stream: lengths, their checksum, headers, payload, checksum of it all."""
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += struct.pack(f">B{len(name)}sBH", len(name), name.encode(), 7, len(value)) + value.encode()
    payload = json.dumps(data).encode()
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", crc32(lengths)) + headers + payload
    return message + struct.pack(">I", crc32(message))


@dataclass(frozen=True)
class Column:
    """How LiteLLM is pointed at the fake of one dialect: its model, the path of `api_base`, further parameters."""

    model: str
    path: str = "/v1"
    params: Json = field(default_factory=dict)
    provider: Callable[[str], FakeProvider] = FakeProvider


AWS = {
    "aws_access_key_id": "AKIAFAKE",
    "aws_secret_access_key": "fake",
    "aws_region_name": "us-east-1",
}
"""What a signature is made of; the fake does not check it."""

COLUMNS: dict[str, Column] = {
    "openai": Column("openai/gpt-4o"),
    "azure": Column("azure/gpt-4o", "", {"api_version": "2025-03-01-preview"}, AzureProvider),
    "deepseek": Column("deepseek/deepseek-chat", "", provider=DeepSeekProvider),
    "xai": Column("xai/grok-4"),
    "anthropic": Column("anthropic/claude-3-5-haiku-20241022", ""),
    "mistral": Column("mistral/mistral-large-latest"),
    "hosted_vllm": Column("hosted_vllm/qwen3"),
    "gemini": Column("gemini/gemini-3.5-flash", "/v1beta", provider=GeminiProvider),
    "bedrock": Column("bedrock/converse/amazon.nova-pro-v1:0", "", AWS, BedrockProvider),
    "bedrock invoke": Column("bedrock/invoke/anthropic.claude-3-5-sonnet-20240620-v1:0", "", AWS, InvokeProvider),
}


@dataclass
class Client:
    """One conversation on one endpoint, as a plain HTTP client holds it. `models`: whom it asks, in turn;
    `ids`: every call id it saw, in order."""

    http: httpx.Client
    models: list[str]
    stream: bool
    wire: list[Json] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    collapsed: int = 0

    path = ""

    def run(self, task: str) -> None:
        """One subtask."""
        self.wire.append({"role": "user", "content": task})
        self.go_on()

    def go_on(self) -> None:
        """Asks and executes tools until the model has nothing to call."""
        while calls := self._ask():
            self.ids += [call_id for call_id, _, _ in calls]
            self.wire += self.results([(call_id, rows(name, arguments)) for call_id, name, arguments in calls])

    def _ask(self) -> list[Call]:
        self.models.append(self.models.pop(0))
        body = {"model": self.models[-1], "stream": self.stream, **self.body()}
        answer = self.http.post(self.path, json=body)
        if answer.status_code == 500:
            # Seldom and under load a request fails inside LiteLLM ("dictionary changed size during iteration"), before
            # or after the provider; clients try such a one again. A refusal is a 400.
            answer = self.http.post(self.path, json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:300]}")
        self.collapsed = int(answer.headers.get("x-proxy-plugin-collapsed", 0))
        items, calls = self.read(self.joined(list(_events(answer.text))) if self.stream else answer.json())
        self.wire += items
        return calls

    def body(self) -> Json:
        """The request's fields that this endpoint names in its own way."""
        raise NotImplementedError

    def calls(self, made: Sequence[Call]) -> list[Json]:
        """The items of a reply that makes calls."""
        raise NotImplementedError

    def results(self, given: Sequence[tuple[str, str]]) -> list[Json]:
        """The items that answer calls: pairs of call id and text."""
        raise NotImplementedError

    def joined(self, events: list[Json]) -> Json:
        """The whole reply that a stream's events make up."""
        raise NotImplementedError

    def read(self, reply: Json) -> tuple[list[Json], list[Call]]:
        """The reply as the history holds it, and its calls."""
        raise NotImplementedError


class Chat(Client):
    path = "/v1/chat/completions"

    def body(self) -> Json:
        return {"messages": self.wire, "tools": TOOLS}

    def calls(self, made: Sequence[Call]) -> list[Json]:
        calls = [{"id": i, "type": "function", "function": {"name": name, "arguments": a}} for i, name, a in made]
        return [{"role": "assistant", "content": None, "tool_calls": calls}]

    def results(self, given: Sequence[tuple[str, str]]) -> list[Json]:
        return [{"role": "tool", "tool_call_id": call_id, "content": text} for call_id, text in given]

    def joined(self, events: list[Json]) -> Json:
        text = ""
        calls: dict[int, Json] = {}
        for delta in (choice["delta"] for event in events for choice in event["choices"]):
            text += delta.get("content") or ""
            for part in delta.get("tool_calls") or []:
                empty: Json = {"type": "function", "id": "", "function": {"name": "", "arguments": ""}}
                call = calls.setdefault(part["index"], empty)
                call["id"] = part.get("id") or call["id"]
                for key in ("name", "arguments"):
                    call["function"][key] += part["function"].get(key) or ""
        message = {"role": "assistant", "content": text or None, "tool_calls": list(calls.values())}
        return {"choices": [{"message": message}]}

    def read(self, reply: Json) -> tuple[list[Json], list[Call]]:
        message = reply["choices"][0]["message"]
        message = {key: message[key] for key in ("role", "content", "tool_calls") if message.get(key)}
        calls = message.get("tool_calls", [])
        return [message], [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls]


class Messages(Client):
    path = "/v1/messages"

    def body(self) -> Json:
        tools = [{"name": function["name"], "input_schema": {"type": "object"}} for function in FUNCTIONS]
        return {"messages": self.wire, "tools": tools, "max_tokens": 500}

    def calls(self, made: Sequence[Call]) -> list[Json]:
        blocks = [{"type": "tool_use", "id": i, "name": name, "input": json.loads(a)} for i, name, a in made]
        return [{"role": "assistant", "content": blocks}]

    def results(self, given: Sequence[tuple[str, str]]) -> list[Json]:
        blocks = [{"type": "tool_result", "tool_use_id": call_id, "content": text} for call_id, text in given]
        return [{"role": "user", "content": blocks}]

    def joined(self, events: list[Json]) -> Json:
        blocks: dict[int, Json] = {}
        for event in events:
            if event["type"] == "content_block_start":
                blocks[event["index"]] = {**event["content_block"]}
            elif event["type"] == "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
                if delta["type"] == "text_delta":
                    block["text"] += delta["text"]
                elif delta["type"] == "input_json_delta":
                    block["input"] = (block["input"] or "") + delta["partial_json"]
        for block in blocks.values():
            if isinstance(block.get("input"), str):
                block["input"] = json.loads(block["input"])
        return {"content": list(blocks.values())}

    def read(self, reply: Json) -> tuple[list[Json], list[Call]]:
        """What LiteLLM adds to a call (Gemini's signature) is echoed, as the official library does."""
        fields = {"text": ("type", "text"), "tool_use": ("type", "id", "name", "input", "provider_specific_fields")}
        content = [
            {key: block[key] for key in fields[block["type"]] if block.get(key) is not None}
            for block in reply["content"]
        ]
        content = [block for block in content if block.get("text") != ""]
        calls = [(b["id"], b["name"], json.dumps(b["input"])) for b in content if b["type"] == "tool_use"]
        return [{"role": "assistant", "content": content}], calls


class Responses(Client):
    path = "/v1/responses"

    def body(self) -> Json:
        return {
            "input": self.wire,
            "tools": [{"type": "function", "strict": False, **function} for function in FUNCTIONS],
        }

    def calls(self, made: Sequence[Call]) -> list[Json]:
        return [{"type": "function_call", "call_id": i, "name": name, "arguments": a} for i, name, a in made]

    def results(self, given: Sequence[tuple[str, str]]) -> list[Json]:
        return [{"type": "function_call_output", "call_id": call_id, "output": text} for call_id, text in given]

    def joined(self, events: list[Json]) -> Json:
        response: Json = events[-1]["response"]
        return response

    def read(self, reply: Json) -> tuple[list[Json], list[Call]]:
        output = [{key: value for key, value in item.items() if value is not None} for item in reply["output"]]
        calls = [item for item in output if item["type"] == "function_call"]
        return output, [(call["call_id"], call["name"], call["arguments"]) for call in calls]


FORMS: dict[str, type[Client]] = {"chat": Chat, "messages": Messages, "responses": Responses}


def _events(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        if line.startswith("data:") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data:"))


@dataclass
class Bench:
    """The proxy, and behind it a provider for each dialect; the model's name is the dialect."""

    proxy: Proxy
    providers: Mapping[str, FakeProvider]
    http: httpx.Client

    def play(self, form: str, dialect: str, stream: bool) -> list[str]:
        """What went wrong in one cell; nothing if it is as promised."""
        provider = self.providers[dialect]
        provider.requests.clear()
        client = FORMS[form](self.http, [dialect], stream)
        subtasks: list[list[Request]] = []
        for number, task in enumerate(PLAN):
            before = len(provider.requests)
            try:
                client.run(f"{number} {form} {dialect} {stream}\n\n{task}")
            except RuntimeError as error:
                return [*_refusals(provider), str(error)]
            subtasks.append([request for request in provider.requests[before:] if request.api])
        faults = _refusals(provider)
        if client.collapsed < 1:
            faults.append("not collapsed")
        if any(not _begins(left, right) for asked in subtasks for left, right in pairwise(asked)):
            faults.append("prefix changed")
        if len(client.ids) != CALLS_OF_PLAN:
            faults.append(f"{len(client.ids)} calls instead of {CALLS_OF_PLAN}")
        if len(set(client.ids)) != len(client.ids):
            faults.append("an id twice")
        if isinstance(provider, GeminiProvider):
            faults += provider.lost_signatures()
        return faults

    def carry(self, form: str, dialect: str, ids: Sequence[str]) -> list[str]:
        """What goes wrong when a subtask that began elsewhere, with these ids, goes on with this provider."""
        self.providers[dialect].requests.clear()
        client = FORMS[form](self.http, [dialect], False)
        rounds = [ids[:2], *([call_id] for call_id in ids[2:])]
        plan = "\n\n".join('call find {"n": 1}' for _ in [*rounds, "one more"])
        client.wire.append({"role": "user", "content": f"{form} {dialect} {ids}\n\n{plan}"})
        for made in rounds:
            client.wire += client.calls([(call_id, "find", '{"n": 1}') for call_id in made])
            client.wire += client.results([(call_id, f"found by {call_id}") for call_id in made])
        return self._outcome(client, [dialect], ids, calls=1)

    def switch(self, form: str, stream: bool, first: str) -> list[str]:
        """What goes wrong when every request of a conversation goes to another provider than the one before."""
        names = list(self.providers)
        names = names[names.index(first) :] + names[: names.index(first)]
        for provider in self.providers.values():
            provider.requests.clear()
        client = FORMS[form](self.http, names, stream)
        plan = "\n\n".join(f'call find {{"n": {n}}}\ncall a {{"n": {n}}}' for n in range(len(names)))
        client.wire.append({"role": "user", "content": f"{form} {stream} from {first}\n\n{plan}"})
        return self._outcome(client, list(self.providers), [], calls=2 * len(self.providers))

    def _outcome(self, client: Client, dialects: Sequence[str], taken: Sequence[str], *, calls: int) -> list[str]:
        try:
            client.go_on()
        except RuntimeError as error:
            return [*(fault for name in dialects for fault in _refusals(self.providers[name])), str(error)]
        faults = [fault for name in dialects for fault in _refusals(self.providers[name])]
        if len(client.ids) != calls or len({*client.ids, *taken}) != len(client.ids) + len(taken):
            faults.append(f"calls: {client.ids}")
        return faults


def _refusals(provider: FakeProvider) -> list[str]:
    return [f"refused: {request.violations}" for request in provider.refused()]


def _begins(left: Request, right: Request) -> bool:
    before, after = (request.parsed.get("received") or request.messages for request in (left, right))
    return bool(after[: len(before)] == before)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Starts providers and proxy; `folder` gets the proxy's files."""
    with ExitStack() as stack:
        providers = {name: stack.enter_context(column.provider(name)) for name, column in COLUMNS.items()}
        models = {
            name: {
                "model": column.model,
                "api_base": providers[name].url + column.path,
                "api_key": "sk-upstream",
                **column.params,
            }
            for name, column in COLUMNS.items()
        }
        proxy = stack.enter_context(Proxy(folder, models, router_settings={"disable_cooldowns": True}))
        headers = {"authorization": f"Bearer {proxy.key}"}
        http = stack.enter_context(httpx.Client(base_url=proxy.root, headers=headers, timeout=60))
        yield Bench(proxy, providers, http)


def table(results: Mapping[tuple[str, str, bool], list[str]]) -> str:
    """Markdown: a row for each wire form, streamed and not, a column for each dialect."""
    lines = ["| client \\ provider | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for form in FORMS:
        for stream in (False, True):
            cells = ["; ".join(results[form, dialect, stream]) or "ok" for dialect in COLUMNS]
            lines.append(f"| {form}{', streamed' if stream else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as running:
        results = {
            (form, dialect, stream): running.play(form, dialect, stream)
            for form in FORMS
            for dialect in COLUMNS
            for stream in (False, True)
        }
    print(table(results))
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
