"""Wire forms: lossless between what clients send and the neutral messages.

A codec is a module with two functions over the wire list of its API:

    parse(wire, start) -> list[Message]      neutral messages of wire[start:]; never raises
    render(wire, messages, plan) -> list     the wire list that the plan describes; items that no edit
                                             touches are the very objects of `wire`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from proxy_plugin.history.model import Message
from proxy_plugin.history.plan import Plan
from proxy_plugin.history.wire import chat


class Codec(Protocol):
    def parse(self, wire: Sequence[Any], start: int) -> list[Message]: ...

    def render(self, wire: Sequence[Any], messages: Sequence[Message], plan: Plan) -> list[Any]: ...


CODECS: dict[str, Codec] = {"chat": chat}
