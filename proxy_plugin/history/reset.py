"""Auto-reset: a conversation that grew too long, or too old, goes on without most of its past.

It happens where a subtask begins that a user message opens, behind a finished answer. From then on there leaves:
the leading system text, what is kept, a marker if one is set, and everything from that place on. What is kept is
made of whole subtasks, and no call is ever parted from its result, so the shortened history is as valid as the
whole one. The store keeps the whole path.

Going through the path from its start, each reset hangs on what stands in front of it alone: once it has happened
at a message it has happened there in every later request (P4). What is counted are the messages and the estimated
tokens that left since, uncollapsed, with what a reset keeps and without the leading system text, which changes
from request to request. Nothing is reset where nothing would be left out, and summaries of ours count no tokens, so
a history that was reset is not reset again (idempotence; a rewritten history with a marker that is sent back
is larger by it, and under pressure may take a step that the first rewriting did not).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import accumulate

from proxy_plugin.history.collapse import amended
from proxy_plugin.history.dialects import Dialect
from proxy_plugin.history.model import SYSTEM, TOOL, USER, Message
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import Edit, Plan, source_of
from proxy_plugin.history.repair import Repaired
from proxy_plugin.history.subtasks import completed
from proxy_plugin.history.summary import is_summary
from proxy_plugin.history.tokens import message_tokens, tokens_of
from proxy_plugin.settings import Reset


@dataclass(frozen=True, slots=True)
class Tally:
    """What left in front of a place, the leading system text aside. `resets`: how many the path has had."""

    messages: int = 0
    tokens: int = 0
    resets: int = 0


NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class Shortened:
    """A repaired history as it is to leave.

    repaired  its messages and plan; the very same that came in where nothing was reset
    begins    place in the whole where that begins which leaves as it is; 0: no reset
    head      how many messages stand in front of it now
    opens     place in the whole behind the user message at which the newest reset happened
    before    of `head`
    sums      tokens up to each place of the whole, empty where nobody counts"""

    repaired: Repaired
    begins: int
    head: int
    opens: int
    before: Tally
    sums: Sequence[int]

    def whole(self, place: int) -> int | None:
        """A place of what leaves as one of the whole; None for one in the head."""
        return place - self.head + self.begins if place >= self.head else None

    def tally(self, place: int) -> Tally:
        """Up to a place of the whole that is not left out."""
        tokens = self.sums[place] - self.sums[self.begins] if self.sums else 0
        return Tally(self.before.messages + place - self.begins, self.before.tokens + tokens, self.before.resets)


def shorten(path: Path, repaired: Repaired, rules: Reset, dialect: Dialect, asked: Set[int]) -> Shortened:
    """`repaired`: the whole history. `asked`: source indices of messages at which a reset was decided elsewhere, by
    the conversation's age."""
    if not rules.possible or not repaired.plan:
        return Shortened(repaired, 0, 0, 0, NOTHING, ())
    walk = _Walk(path, repaired, rules, dialect, asked, NOTHING, path.lead)
    walk.run()
    return walk.shortened()


def go_on(
    path: Path, repaired: Repaired, rules: Reset, dialect: Dialect, asked: Set[int], before: Tally
) -> Shortened | None:
    """The same for what follows a place up to which `before` left. None where there may be a reset in it: what is
    kept then stands in front."""
    if not rules.possible or not repaired.plan:
        return Shortened(repaired, 0, 0, 0, before, ())
    walk = _Walk(path, repaired, rules, dialect, asked, before, 0)
    return None if any(map(walk.passes, walk.borders)) else walk.shortened()


class _Walk:
    """Goes from border to border: places where a subtask ended and a user message opens the next one."""

    def __init__(
        self,
        path: Path,
        repaired: Repaired,
        rules: Reset,
        dialect: Dialect,
        asked: Set[int],
        before: Tally,
        lead: int,
    ) -> None:
        self.repaired, self.messages, self.plan = repaired, repaired.messages, repaired.plan
        self.rules, self.dialect, self.asked = rules, dialect, asked
        self.lead = lead
        self.borders = _borders(self.messages, self.lead)
        tokens = _tokens(path, repaired, rules.marker) if rules.max_tokens else []
        self.sums = [0, *accumulate(tokens)] if tokens else []
        self.kept: list[int] = []
        self.begins, self.opens = 0, 0
        self.start = self.lead  # since when is counted
        self.before = before

    def run(self) -> None:
        for border in self.borders:
            if self.passes(border):
                kept = self._keep(border)
                if len(kept) < len(self.kept) + border - self.start:
                    self._reset(border, kept)

    def passes(self, border: int) -> bool:
        rules, messages = self.rules, self.before.messages + border - self.start
        if rules.max_messages and messages >= rules.max_messages:  # with the user's new one it is more
            return True
        if rules.max_tokens and self.before.tokens + self.sums[border] - self.sums[self.start] > rules.max_tokens:
            return True
        return bool(rules.max_age_s and self.asked) and source_of(self.plan[border]) in self.asked

    def _keep(self, border: int) -> list[int]:
        """The messages in front of the border that stay."""
        kind, number = self.rules.kept
        if kind == "first":
            fitting = bisect_right(self.borders, min(self.lead + number, border)) - 1
            return list(range(self.lead, self.borders[fitting])) if fitting >= 0 else []
        if kind == "last":
            # Since the newest reset: what that left out does not come back.
            since, until = bisect_right(self.borders, self.start), bisect_right(self.borders, border)
            begins = [self.start, *self.borders[since:until]]
            return list(range(begins[bisect_left(begins, border - number)], border))
        if kind == "system" and self.dialect.system_role:
            return [at for at in range(self.lead, border) if self.messages[at].role == SYSTEM]
        return []

    def _reset(self, border: int, kept: list[int]) -> None:
        marker = self._marker()
        tokens = sum(self.sums[at + 1] - self.sums[at] for at in kept) if self.sums else 0
        if self.rules.marker and self.sums:
            tokens += message_tokens(marker) if marker is not None else tokens_of(self.rules.marker)
        self.before = Tally(len(kept) + (marker is not None), tokens, self.before.resets + 1)
        self.kept, self.begins, self.start = kept, border, border
        self.opens = next(at for at in range(border, len(self.messages)) if self.messages[at].role == USER) + 1

    def _marker(self) -> Message | None:
        """A message of its own where the target keeps system text in its place; else the user's takes it."""
        return Message(SYSTEM, self.rules.marker) if self.rules.marker and self.dialect.system_anywhere else None

    def shortened(self) -> Shortened:
        if not self.begins:
            return Shortened(self.repaired, 0, 0, 0, self._since_start(), self.sums)
        marker = self._marker()
        head = [*range(self.lead), *self.kept]
        messages = [self.messages[at] for at in head]
        plan: Plan = [self.plan[at] for at in head]
        if marker is not None:
            messages.append(marker)
            plan.append(Edit(None, added=marker))
        rest = self.plan[self.begins :]
        if self.rules.marker and marker is None:
            asks = self.opens - 1 - self.begins
            if isinstance(self.messages[self.opens - 1].content, str | list):
                rest[asks] = amended(rest[asks], self.rules.marker, ())
        leaves = {*head}
        left = self.repaired._replace(
            messages=[*messages, *self.messages[self.begins :]],
            plan=[*plan, *rest],
            repairs=[(at, kind) for at, kind in self.repaired.repairs if at >= self.begins or at in leaves],
        )
        return Shortened(left, self.begins, len(plan), self.opens, self.before, self.sums)

    def _since_start(self) -> Tally:
        """Such that the leading system text is not counted."""
        lead = self.sums[self.lead] if self.sums else 0
        before = self.before
        return Tally(before.messages - self.lead, before.tokens - lead, before.resets)


def _borders(messages: Sequence[Message], lead: int) -> list[int]:
    """Where a subtask ended, a user message follows, and no result of what stands in front is still to come."""
    answers = {message.answers: at for at, message in enumerate(messages) if message.role == TOOL}
    reach, open_until = [0], 0
    for message in messages:
        open_until = max([open_until, *[answers.get(call.id, 0) for call in message.calls]])
        reach.append(open_until)
    return [end for end in completed(messages) if end > lead and reach[end] < end]


def _tokens(path: Path, repaired: Repaired, marker: str) -> list[int]:
    """Of each message; ids do not count, nor do summaries of ours."""
    counted = []
    for message, step in zip(repaired.messages, repaired.plan, strict=True):
        source = source_of(step)
        changed = source is None or (isinstance(step, Edit) and step.result is not None)
        size = message_tokens(message) if changed else path.tokens[source or 0]
        counted.append(size - _summed_up(message, size, marker))
    return counted


def _summed_up(message: Message, size: int, marker: str) -> int:
    """Tokens of the summaries in a message."""
    if isinstance(message.content, str):
        return size if is_summary(message.content) else 0
    parts = message.content if isinstance(message.content, list) else ()
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    total = 0
    for text in texts:
        if isinstance(text, str):
            behind = text[len(marker) + 1 :] if marker and text.startswith(marker + "\n") else text
            if is_summary(behind):
                total += tokens_of(text) - (tokens_of(marker) if behind is not text else 0)
    return total
