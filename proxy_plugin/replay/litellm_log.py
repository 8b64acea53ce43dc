"""What LiteLLM's loggers write: one StandardLoggingPayload a line (litellm/types/utils.py).

A line is one request with its whole history. Requests belong to one conversation if they are of one session,
begin with the same user message and carry the same first answer: so the side requests of a session (titles,
summaries) and what several users ask alike keep apart. A first request has no answer in it; the logged
response, else the request that follows, says which it was. The session is `session_id` or, where the client
named one, `trace_id`; else that is made up anew for each request, and the rest has to do.
Histories are not held for this: a file is read once to sort its lines and again to replay them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from proxy_plugin.replay.conversations import Conversation, Exchange, decode, encode, is_reply, provider_of

_APIS = {
    "completion": "chat",
    "acompletion": "chat",
    "anthropic_messages": "messages",
    "aanthropic_messages": "messages",
    "responses": "responses",
    "aresponses": "responses",
}


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and "messages" in value and "call_type" in value


class _Group(NamedTuple):
    id: str
    api: str
    provider: str
    offsets: list[int]  # of its lines, in bytes


class Log:
    """The requests of one file, by where their lines begin. `api` and `provider` override what lines say."""

    def __init__(self, api: str | None, provider: str | None) -> None:
        self._api = api
        self._provider = provider
        self._groups: list[_Group] = []
        self._names: Counter[str] = Counter()
        self._known: dict[Any, _Group] = {}  # by session, opening and first answer
        self._open: dict[Any, _Group] = {}  # by session and opening alone: the newest

    def add(self, value: dict[str, Any], offset: int) -> None:
        """Raises ValueError for a request whose messages were not logged. What is no conversation (an
        embedding, say) does not count."""
        api = self._api or _APIS.get(value["call_type"])
        if api is None:
            return
        wire = _wire(value)
        opening = sha256(encode(next((item for item in wire if item.get("role") == "user"), wire[0]))).digest()
        session, trace = (
            value.get(key) if isinstance(value.get(key), str) else "" for key in ("session_id", "trace_id")
        )
        places = [(session, trace, api, opening), (session, "", api, opening)]  # the first is the surer one
        answer = _said(_first_answer(wire, api))
        group = self._found(places, answer) if answer else None
        if group is None:
            provider = self._provider or provider_of(value, api)
            group = self._new(session or trace or str(value.get("id") or ""), api, provider)
        answer = answer or _said(_reply(value))
        for place in places:
            if answer:
                self._known[place, answer] = group
            if len(group.offsets) == 0:
                self._open[place] = group
        group.offsets.append(offset)

    def _found(self, places: Sequence[Any], answer: bytes) -> _Group | None:
        for place in places:
            if group := self._known.get((place, answer)):
                return group
        return next((group for place in places if (group := self._open.get(place)) and len(group.offsets) == 1), None)

    def _new(self, name: str, api: str, provider: str) -> _Group:
        self._names[name] += 1
        group = _Group(f"{name}#{self._names[name]}" if self._names[name] > 1 else name, api, provider, [])
        self._groups.append(group)
        return group

    def conversations(self, path: Path) -> Iterator[Conversation]:
        for group in self._groups:
            yield Conversation(group.id, group.api, group.provider, _exchanges(path, group.offsets))


def _exchanges(path: Path, offsets: Sequence[int]) -> Iterator[Exchange]:
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            value = decode(file.readline())
            given = value.get("model_parameters")
            continued = isinstance(given, dict) and bool(given.get("previous_response_id") or given.get("conversation"))
            yield Exchange([encode(item) for item in _wire(value)], _reply(value), continued)


def _wire(value: dict[str, Any]) -> list[Any]:
    messages = value["messages"]
    if isinstance(messages, str) and messages and "responses" in value["call_type"]:
        return [{"role": "user", "content": messages}]  # what a plain string as `input` means
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise ValueError("the request's messages were not logged")
    return messages


def _reply(value: dict[str, Any]) -> list[Any]:
    """Items of the logged answer, in the form that LiteLLM logged it in."""
    response = value.get("response")
    if not isinstance(response, dict):
        return []
    for choice in response.get("choices") or ():
        message = choice.get("message") if isinstance(choice, dict) else None
        return [message] if isinstance(message, dict) else []
    if isinstance(response.get("output"), list):
        return [item for item in response["output"] if isinstance(item, dict)]
    return [response] if response.get("role") == "assistant" else []


def _first_answer(wire: Sequence[Any], api: str) -> list[Any]:
    """The items of the first answer in a history: one, or for `responses` all in a row."""
    rest = dropwhile(lambda item: not is_reply(item, api), wire)
    return list(takewhile(lambda item: is_reply(item, api), rest))[: None if api == "responses" else 1]


def _said(items: Sequence[Any]) -> bytes:
    """Hash of the ids of an answer's calls, else its text: what is the same in whatever form it was logged, with or
    without the reasoning before it. Empty if there is nothing of either."""
    ids: list[str] = []
    texts: list[str] = []
    for item in items:
        content = item.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        calls = item.get("tool_calls")
        for part in [item, *parts, *(calls if isinstance(calls, list) else ())]:
            if not isinstance(part, dict):
                continue
            if part.get("type") in ("tool_use", "function", "function_call", "custom_tool_call"):
                ids.append(str(part.get("call_id") or part.get("id")))
            elif part.get("type") in ("text", "output_text") and isinstance(part.get("text"), str):
                texts.append(part["text"].strip())
    said = " ".join(ids or texts)
    return sha256(said.encode("utf-8", "surrogatepass")).digest() if said else b""
