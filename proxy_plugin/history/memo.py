"""What one request of a conversation leaves for the next one.

It saves time and changes no answer: everything in it was worked out from the history alone, and is used
only where the next request begins with the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy_plugin.history.model import Message
from proxy_plugin.history.repair import Ids

if TYPE_CHECKING:
    from proxy_plugin.history.ledger import Ledger
    from proxy_plugin.history.reset import Tally

_MEMO_KEY = "litellm-session-plugin"
_MESSAGE_BYTES = 300  # of what is held of a message besides its text
_STATED_BYTES = 150  # of a value in the index of what summaries state


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything that the decided part of a path leaves behind for what follows it. It holds for a list that
    begins with the same bytes up to `until`, where a subtask ended if `subtask`."""

    key: Any  # dialect, settings, what the client said of this part: what the decisions hang on
    start: int  # messages (and wire items) of the decided part
    wire_start: int
    until: int  # messages (and wire items) on which the decisions hang
    wire_until: int
    subtask: bool
    ids: Ids
    ledger: Ledger
    repairs: Counter[str]
    tally: Tally


class Memo:
    """What the previous request of a conversation left for the next one. Saves time, changes no answer."""

    __slots__ = ("closed", "dumps", "form", "messages", "node_ids", "tokens")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.form: Any = None
        self.dumps: list[bytes] = []
        self.messages: list[Message] = []
        self.node_ids: list[str] = []
        self.tokens: list[int] = []  # of the first messages, as far as anybody asked
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
        """Bytes of memory, about: each text is held as JSON and in its message, each value that a summary states in
        an index too."""
        stated = len(self.closed.ledger.stated) if self.closed is not None else 0
        return 2 * sum(map(len, self.dumps)) + _MESSAGE_BYTES * len(self.dumps) + _STATED_BYTES * stated
