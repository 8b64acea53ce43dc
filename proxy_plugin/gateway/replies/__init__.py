"""Replies on their way back: ids that the path already holds are renamed, and the message is collected.

One module an endpoint, over LiteLLM's objects as they are: handled by their attributes and changed in place,
an id and nothing else. What is collected are the wire items that the client sends again next time.

Streams go on at once; only the bytes of a line that opens a tool call wait for the end of that line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy_plugin.gateway.replies import chat, messages, responses
from proxy_plugin.gateway.replies.reply import Names, Reply, StreamedReply

__all__ = ["Names", "Reply", "StreamedReply", "streamed_reply", "take_reply"]

_WHOLE: dict[str, Callable[[Any, Names], Reply | None]] = {
    "chat": chat.take_reply,
    "messages": messages.take_reply,
    "responses": responses.take_reply,
}
_STREAMED: dict[str, Callable[[Names], StreamedReply]] = {
    "chat": chat.StreamedChat,
    "messages": messages.StreamedMessage,
    "responses": responses.StreamedResponse,
}


def take_reply(api: str, response: Any, names: Names) -> Reply | None:
    """Renames the ids of a whole reply and collects it; None where it says nothing. KeyError for another API."""
    return _WHOLE[api](response, names)


def streamed_reply(api: str, names: Names) -> StreamedReply:
    """Does the same with a stream, chunk by chunk. KeyError for another API."""
    return _STREAMED[api](names)
