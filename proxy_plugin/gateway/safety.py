"""The safety fallback: the plugin can never keep a session stuck.

After three refusals in a row of collapsed histories a session's requests leave with repair alone, until
one of the next subtask is accepted. Kept per worker: a fresh worker tries again, at most three times.
"""

from __future__ import annotations

from collections import OrderedDict

REFUSALS = 3
_SESSIONS = 10_000


class Refusals:
    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[int, str]] = OrderedDict()  # session -> (in a row, subtask)

    def refused(self, session: str, subtask: str) -> None:
        count, _ = self._counts.pop(session, (0, ""))
        self._counts[session] = (count + 1, subtask)
        if len(self._counts) > _SESSIONS:
            self._counts.popitem(last=False)

    def accepted(self, session: str, subtask: str) -> None:
        count, since = self._counts.get(session, (0, ""))
        if count < REFUSALS or since != subtask:
            self._counts.pop(session, None)

    def tripped(self, session: str, subtask: str) -> bool:
        """Whether this request leaves with repair alone."""
        return self._counts.get(session, (0, ""))[0] >= REFUSALS
