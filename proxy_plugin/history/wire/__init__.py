"""Wire forms: lossless between what clients send and the neutral messages.

A codec is a module over the wire list of its API. What it knows of a message's place on the wire is in
`Message.source`: the index of its wire item, or a tuple (first item, the one behind the last, …).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from proxy_plugin.history.model import Message
from proxy_plugin.history.plan import Plan
from proxy_plugin.history.wire import chat, responses
from proxy_plugin.history.wire import messages as anthropic_messages


class Codec(Protocol):
    def parse(self, wire: Sequence[Any], start: int = 0, *, continued: bool = False) -> list[Message]:
        """Neutral messages of wire[start:], which begins with one. Never raises for a list of objects."""

    def settled(self, wire: Sequence[Any], end: int) -> int:
        """How many of the first items are read alike whatever stands from `end` on."""

    def render(self, wire: Sequence[Any], messages: Sequence[Message], plan: Plan) -> list[Any]:
        """The wire list that the plan describes. Items that no edit touches are the objects of `wire`, so
        that the plan of all messages in their order gives `wire` back."""

    def weight(self, items: Sequence[Any], sizes: Mapping[int, int]) -> int:
        """Bytes that a list gets shorter by at least when these rendered items go."""

    def mend(self, wire: list[Any]) -> tuple[list[Any], dict[str, int]]:
        """What is wrong with ids that no neutral message shows, put right: the list (itself if all is well)
        and how many of which repair, by the field names of Report."""

    def fragment(self, wire: Sequence[Any], message: Message) -> bytes:
        """JSON of what one message occupies on the wire."""

    def join(self, fragments: Sequence[Any]) -> list[Any]:
        """The wire list of a path: the parsed fragments of its messages, put together again."""


CODECS: dict[str, Codec] = {"chat": chat, "messages": anthropic_messages, "responses": responses}
