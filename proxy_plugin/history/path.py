"""A request's history, read: wire list, neutral messages, node ids.

Reading is linear. With a `Memo` of the conversation's previous request, only what differs from it is
parsed and hashed again; what is alike is found by comparing the bytes of each wire item, never by
identity, so that a client object that was changed in place is noticed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import orjson

from proxy_plugin.history.chain import common
from proxy_plugin.history.memo import Memo
from proxy_plugin.history.model import ROOT, Message, dump, lead_length, node_id
from proxy_plugin.history.plan import Plan
from proxy_plugin.history.tokens import message_tokens
from proxy_plugin.history.wire import CODECS


class Path:
    """A history as read from one request.

    wire      the list as it came                 dumps     orjson bytes of each wire item
    messages  neutral messages                    lead      how many of them are leading system text
    alike     wire items equal to the memo's previous request
    taken     messages taken over from the memo   settled   those of them that its closed part holds
    size      bytes of the orjson dump of the whole list
    continued whether the list goes on from a response that the provider keeps"""

    __slots__ = (
        "_alike_ids",
        "_node_ids",
        "_sizes",
        "_tokens",
        "alike",
        "api",
        "codec",
        "continued",
        "dumps",
        "lead",
        "messages",
        "settled",
        "size",
        "taken",
        "wire",
    )

    def __init__(self, wire: list[Any], api: str, memo: Memo | None, *, continued: bool = False) -> None:
        self.wire = wire
        self.api = api
        self.continued = continued
        self.codec = CODECS[api]
        try:
            # Copied, because what orjson gives may keep the whole page that it was written in: that is faster too.
            self.dumps = [bytes(memoryview(orjson.dumps(item))) for item in wire]
        except (TypeError, ValueError, RecursionError):
            self.dumps = [dump(item) for item in wire]
        self.size = sum(map(len, self.dumps)) + max(len(wire) - 1, 0) + 2
        self.alike = common(self.dumps, memo.dumps) if memo is not None and memo.form == self._form else 0
        self._sizes: dict[int, int] | None = None
        self._alike_ids: list[str] = []
        self._tokens: list[int] = []
        self._node_ids: list[str] | None = None
        self.messages: list[Message] = []
        self.settled = self.taken = begin = 0
        if memo is not None and self.alike:
            known = self.codec.settled(wire, self.alike)
            self._alike_ids = memo.node_ids[: _within(memo.messages, known)]
            self._tokens = memo.tokens[: len(self._alike_ids)]
            closed = memo.closed
            if closed is not None and closed.wire_start <= known:
                self.settled, begin = closed.start, closed.wire_start
            self.taken = self.settled
            if known == self.alike:  # each item is read by itself: reading can go on anywhere
                self.taken, begin = len(self._alike_ids), known
            self.messages = memo.messages[: self.taken]
        self.messages += self._parse(begin)
        self.lead = lead_length(self.messages)

    def parse_again(self, start: int = 0, wire_start: int = 0) -> None:
        """Reads the messages from `start` on anew, where their contents count: what was taken over from a memo
        may hold objects that have changed since."""
        self.taken = min(self.taken, start)
        self.messages = self.messages[:start] + self._parse(wire_start)

    def _parse(self, start: int) -> list[Message]:
        return self.codec.parse(self.wire, start, continued=self.continued)

    @property
    def _form(self) -> Any:
        return self.api, self.continued

    @property
    def sizes(self) -> dict[int, int]:
        """Bytes of each wire item, by the identity of the object."""
        if self._sizes is None:
            self._sizes = dict(zip(map(id, self.wire), map(len, self.dumps), strict=True))
        return self._sizes

    def dumped(self, items: Sequence[Any]) -> list[bytes]:
        """orjson bytes of each item of a list, which are mostly those of this one."""
        known = dict(zip(map(id, self.wire), self.dumps, strict=True))
        return [known.get(id(item)) or dump(item) for item in items]

    def alike_messages(self, items: int) -> int:
        """How many messages it shares with every list that has the same first wire items."""
        return _within(self.messages, self.codec.settled(self.wire, items))

    def weight(self, plan: Plan) -> int:
        """Bytes that the messages of a plan take on the wire at least."""
        return self.codec.weight(self.codec.render(self.wire, self.messages, plan), self.sizes)

    def fragment(self, index: int) -> bytes:
        """JSON of what the message occupies on the wire; the codec's `join` makes the list of it again."""
        source = self.messages[index].source
        return self.dumps[source] if isinstance(source, int) else self.codec.fragment(self.wire, self.messages[index])

    def wire_start(self, index: int) -> int | None:
        """The wire item that begins with message `index`; None if it begins inside one."""
        if index == len(self.messages):
            return len(self.wire)
        source = self.messages[index].source
        at: int = source if isinstance(source, int) else source[0]
        return at if index == 0 or _wire_end(self.messages[index - 1]) <= at else None

    @property
    def node_ids(self) -> Sequence[str]:
        """Node id of each message, "" for the leading system text, which is no node of the tree."""
        if self._node_ids is None:
            ids = self._alike_ids
            parent = ids[-1] if ids else ROOT
            for message in self.messages[len(ids) :]:
                if len(ids) < self.lead:
                    ids.append("")
                else:
                    parent = node_id(parent, message)
                    ids.append(parent)
            self._node_ids = ids
        return self._node_ids

    def stands_for(self, nodes: Sequence[str]) -> None:
        """The messages are these nodes of a path that holds more than them; "" for one that is none of it."""
        self._node_ids = list(nodes)

    @property
    def tokens(self) -> Sequence[int]:
        """Estimated tokens of each message."""
        known = len(self._tokens)
        if known < len(self.messages):
            messages = self.messages if self.taken <= known else self._parse(0)
            self._tokens += [message_tokens(message) for message in messages[known:]]
        return self._tokens

    def remember(self, memo: Memo) -> None:
        memo.form = self._form
        memo.dumps = self.dumps
        memo.messages = self.messages
        memo.node_ids = list(self.node_ids)
        memo.tokens = self._tokens


def _within(messages: Sequence[Message], items: int) -> int:
    """How many messages end within the first wire items."""
    return bisect_right(messages, items, key=_wire_end)


def _wire_end(message: Message) -> int:
    """The wire item behind the message."""
    source = message.source
    return source + 1 if isinstance(source, int) else source[1]
