"""A recorded conversation as the requests that its agent made.

A history of N messages was not sent once: there was one request before each answer of the model, and each
carried everything up to there. The last answer was not sent any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from proxy_plugin.history.dialects import ALIASES, DIALECTS

PROVIDERS = {"chat": "openai", "messages": "anthropic", "responses": "openai"}
"""Whose rules are taken where a recording does not say which provider it went to."""

_GIVEN = frozenset({"mcp_approval_response"})  # Responses items from the client that are no output


class Exchange(NamedTuple):
    """One request and its answer."""

    items: Sequence[bytes]  # JSON of each item of the wire list
    reply: Sequence[Any]  # items of the answer, in any wire form; empty if it was not recorded
    continued: bool = False  # the request goes on from a response that the provider keeps


@dataclass(frozen=True, slots=True)
class Conversation:
    """`exchanges` can be iterated once, and is read or built only then."""

    id: str
    api: str
    provider: str
    exchanges: Iterable[Exchange]


def decode(text: bytes) -> Any:
    """JSON; ValueError for anything else. What orjson refuses but Python's own reader takes (lone
    surrogates) is read as LiteLLM reads it."""
    try:
        return orjson.loads(text)
    except ValueError:
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("nested too deep") from None


def encode(value: Any) -> bytes:
    """The inverse of `decode`."""
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):
        return json.dumps(value).encode()


def parsed(items: Sequence[bytes]) -> list[Any]:
    """The wire list as a request's body is parsed: objects of its own for each request."""
    wire: list[Any] = decode(b"[" + b",".join(items) + b"]")
    return wire


def requests_of(wire: Sequence[Any], api: str) -> Iterator[Exchange]:
    """One request before each assistant message; for `responses`, whose answers have several items, before
    each run of items that the model made."""
    items = [encode(item) for item in wire]
    made = [is_reply(item, api) for item in wire]
    for index in range(1, len(wire)):
        if not made[index] or (api == "responses" and made[index - 1]):
            continue
        end = index + 1
        while api == "responses" and end < len(wire) and made[end]:
            end += 1
        yield Exchange(items[:index], wire[index:end])


def is_reply(item: Any, api: str) -> bool:
    """Whether the model made this item."""
    if not isinstance(item, dict):
        return False
    kind = item.get("type", "message") if api == "responses" else "message"
    if kind == "message":
        return item.get("role") == "assistant"
    return isinstance(kind, str) and kind not in _GIVEN and not kind.endswith("_output")


def provider_of(fields: Mapping[str, Any], api: str) -> str:
    """Where a recording says that it went: in so many words, or by its model's prefix."""
    for key in ("custom_llm_provider", "provider"):
        if isinstance(fields.get(key), str) and fields[key]:
            return str(fields[key])
    prefix = str(fields.get("model")).partition("/")[0]
    return prefix if prefix in DIALECTS or prefix in ALIASES else PROVIDERS[api]


def api_of(wire: Sequence[Any]) -> str:
    """The wire form of a list. Lists of plain text, which are the same in every form, count as `chat`."""
    for item in wire:
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if isinstance(kind, str) and ("role" not in item or kind == "message"):
            return "responses"
        if item.get("tool_calls") or item.get("role") == "tool":
            return "chat"
        content = item.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in ("input_text", "output_text", "input_image", "input_file"):
                return "responses"
            if kind in ("tool_use", "tool_result", "thinking", "redacted_thinking"):
                return "messages"
    return "chat"
