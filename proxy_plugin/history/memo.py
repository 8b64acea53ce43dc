"""What one request of a conversation leaves for the next one.

It saves time and changes no answer: everything in it was worked out from the history alone, and is used
only where the next request begins with the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from proxy_plugin.history.model import Message
from proxy_plugin.history.plan import Plan
from proxy_plugin.history.repair import Ids
from proxy_plugin.history.summary import Stated

_MEMO_KEY = "litellm-session-plugin"


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything that the completed subtasks of a path leave behind for what follows them."""

    key: Any  # dialect, settings, what the client said of this part: what the decisions hang on
    start: int  # messages (and wire items) of the closed part
    wire_start: int
    ids: Ids
    stated: Stated
    plan: Plan
    counts: Counter[str]


class Memo:
    """What the previous request of a conversation left for the next one. Saves time, changes no answer."""

    __slots__ = ("closed", "dumps", "form", "messages", "node_ids")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.form: Any = None
        self.dumps: list[bytes] = []
        self.messages: list[Message] = []
        self.node_ids: list[str] = []
        self.closed: Closed | None = None

    @classmethod
    def of(cls, holder: Any) -> Memo | None:
        """The memo kept in a plain dict (the public form), or None."""
        if isinstance(holder, cls) or not isinstance(holder, dict):
            return holder if isinstance(holder, cls) else None
        memo = holder.get(_MEMO_KEY)
        if not isinstance(memo, cls):
            memo = holder[_MEMO_KEY] = cls()
        return memo

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.dumps))
