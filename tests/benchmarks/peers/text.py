"""The text of a chat message, and its tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.benchmarks.peers.peer import Message, offline

FRAME_TOKENS = 4  # role and separators of one message


def content_text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def calls_of(message: Message) -> list[tuple[str, str]]:
    """(name, arguments) of each call."""
    functions = [call.get("function") or {} for call in message.get("tool_calls") or []]
    return [(str(function.get("name") or ""), str(function.get("arguments") or "")) for function in functions]


def full_text(message: Message) -> str:
    """Everything a model reads of the message."""
    return "\n".join([content_text(message), *(part for call in calls_of(message) for part in call)])


@cache
def _encoding() -> Any:
    offline()
    import tiktoken

    return tiktoken.get_encoding("o200k_base")


@cache
def text_tokens(text: str) -> int:
    return len(_encoding().encode(text, disallowed_special=()))


def tokens(message: Message) -> int:
    return FRAME_TOKENS + text_tokens(full_text(message))
