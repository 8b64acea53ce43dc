"""Which parts of a path leave collapsed: the policies, decided by going through the path from its start.

Each decision hangs on what stands in front of it alone, so that every later request takes it again. Three
things close a stretch of the path (`Event`): a subtask's end, a step that a plan tool shows as done, and
pressure, when what leaves fills too much of the model's window. A closed stretch waits as it is while
`keep_recent_subtasks` or `verbatim_budget_tokens` keep it. What they let go becomes a `Part`, laid out
with and without its summary; the policy then releases the oldest parts, all that wait or none: `always`
at once, `economical` when it pays for everything that has to be read anew. So what waits is always
behind what has been released, a released part never changes, and the prefix breaks at events only.

Rewriting a rewritten history changes nothing: what has left is smaller and has fewer replies, and no rule is
more willing for that. Only the steps of plan tools are seen no more once the calls that closed them are part
of a summary; rounds that several steps left as they were can then count as those of one.

With `always` the two settings move the break further back, and it comes at every subtask's end: `economical`
counts what they keep among what has to be read anew, and waits until one large step pays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from proxy_plugin.history.collapse import Part, Stretch, amended, in_rounds, lay_out
from proxy_plugin.history.economy import Prices, pays
from proxy_plugin.history.model import ASSISTANT, TOOL, USER, Message
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import TURN_CLOSED, Edit, Plan, source_of
from proxy_plugin.history.plan_tools import PlanCall, Plans, plan_calls
from proxy_plugin.history.repair import Repaired
from proxy_plugin.history.summary import Stated
from proxy_plugin.history.tokens import message_tokens, tokens_of
from proxy_plugin.settings import Collapse, Reset, Running

SUBTASK, PLAN_STEP, PRESSURE = "subtask", "plan_step", "pressure"

_LEAD_STEP = 1024  # tokens


class Rules(NamedTuple):
    """What the decisions follow.

    role    as whose text summaries stand; None: nothing collapses
    refers  whether they say where what they stand for is kept"""

    role: str | None
    collapse: Collapse
    running: Running
    reset: Reset = Reset()
    refers: bool = True

    @property
    def count_tokens(self) -> bool:
        chosen = self.collapse
        counted = chosen.policy == "economical" or chosen.min_tokens or chosen.verbatim_budget_tokens
        return self.role is not None and bool(counted or self.running.window_tokens)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that the decided part of a path leaves behind for what follows it.

    plan     what leaves of the released parts        tokens   how many these are
    pending  parts that the policy has not released   stated   what stands in all of them when they are
    counts   for the report                           replies  assistant messages in all of them
    opening  step of `plan` that can take a summary of the subtask that goes on; None: there is none
    opened   the same, counting the pending parts     begun    whether what follows goes on inside a subtask
    parted   small and counted of the stretch inside which what follows goes on; None: it begins one
    plans    what plan tools have shown               patience tokens below which a step is not tried again
    broke    replies so far and cause of the last decision that changed what had left before"""

    plan: Plan = field(default_factory=list)
    pending: tuple[Part, ...] = ()
    stated: Stated = field(default_factory=Stated)
    tokens: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    replies: int = 0
    opening: int | None = None
    opened: bool = False
    begun: bool = False
    parted: tuple[bool, bool] | None = None
    plans: Plans = field(default_factory=dict)
    patience: int = 0
    broke: tuple[int, str] = (0, "")


class Event(NamedTuple):
    """What closes a stretch: known once `until` messages are there, and all in front of `end` is closed."""

    until: int
    cause: str
    end: int


class Decided(NamedTuple):
    """The decisions of one request.

    start    repaired messages that are released or pending
    replies  assistant messages of the whole path
    last     the newest event that the ledger had not seen; None: nothing is new"""

    ledger: Ledger
    start: int
    replies: int
    last: Event | None


class StaleContents(Exception):
    """Contents are needed of messages that were taken over from a memo."""


@dataclass(slots=True)
class _Closed:
    """A closed stretch that waits as it is."""

    begin: int
    end: int
    small: bool  # too small to collapse
    counted: bool = False  # some of its rounds are collapsed already
    parted: bool = False  # what stood in front is in a part


def lead_tokens(path: Path) -> int:
    """Tokens that the leading system text counts: in steps, since it changes from request to request."""
    return -(-sum(path.tokens[: path.lead]) // _LEAD_STEP) * _LEAD_STEP


def decide(
    path: Path,
    repaired: Repaired,
    ends: Sequence[int],
    rules: Rules,
    ledger: Ledger,
    seen: int = 0,
    *,
    stale: bool = False,
) -> Decided:
    """Goes through the repaired messages behind a ledger.

    ends   where subtasks end in them     seen   the first ones, on which decisions of the ledger hang already
    stale  contents may not be looked at: raises StaleContents where that is needed"""
    return _Book(path, repaired, ends, rules, ledger, seen, stale).run()


class _Book:
    """A ledger while it is written. Positions are those of the repaired messages."""

    def __init__(
        self,
        path: Path,
        repaired: Repaired,
        ends: Sequence[int],
        rules: Rules,
        ledger: Ledger,
        seen: int,
        stale: bool,
    ) -> None:
        self.path, self.messages, self.steps = path, repaired.messages, repaired.plan
        self.rules, self.known = rules, ledger
        self.seen, self.stale = seen, stale
        self.ends = ends
        self.begins: Set[int] = {*ends} if ledger.begun else {0, *ends}  # where subtasks begin
        self.plan_calls: list[PlanCall] = []
        if rules.role is not None and rules.collapse.plan_tools:
            self.plan_calls = plan_calls(self.messages, rules.collapse.plan_tools, ledger.plans)
        self.tokens: list[int] = []
        if rules.count_tokens:
            self._count()

        self.plan = list(ledger.plan)
        self.total = ledger.tokens
        self.counts = ledger.counts.copy()
        self.opening = ledger.opening
        self.broke = ledger.broke
        self.patience = ledger.patience
        self.pending = list(ledger.pending)
        self.stated = ledger.stated.copy()
        self.opened = ledger.opened
        self.parted = 0  # all in front is released or pending
        self.waiting: list[_Closed] = []  # what is closed behind that
        self.closed = 0  # all in front is closed
        self.said = [0, *accumulate(map(_by_model, self.messages))]
        self.reach: list[int] = []  # for each message, the last result of the calls up to it

    def run(self) -> Decided:
        last = None
        for event in self._events():
            if event.cause == PRESSURE:
                if event.until > self.seen and self._relieve(event):
                    last = event
                continue
            self._close(event.end)
            if event.until > self.seen:
                self._ripen(self._kept_from())
                self._release(event)
                last = event
        return Decided(self._written(), self.parted, self._replies(len(self.messages)), last)

    def _written(self) -> Ledger:
        known = [call.known for call in self.plan_calls if call.at < self.parted]
        first = self.waiting[0] if self.waiting else None
        return Ledger(
            plan=self.plan,
            pending=tuple(self.pending),
            stated=self.stated,
            tokens=self.total,
            counts=self.counts,
            replies=self._replies(self.parted),
            opening=self.opening,
            opened=self.opened,
            begun=self.parted not in self.begins,
            parted=(first.small, first.counted) if first is not None and first.parted else None,
            plans=known[-1] if known else self.known.plans,
            patience=self.patience,
            broke=self.broke,
        )

    def _events(self) -> list[Event]:
        events = [Event(end, SUBTASK, end) for end in self.ends]
        events += [
            Event(call.at + 1, PLAN_STEP, call.at)
            for call in self.plan_calls
            if call.closes and self._works_before(call.at)
        ]
        if self.rules.role is not None and self.rules.running.window_tokens:
            events += [Event(at, PRESSURE, at) for at in self._requests()]
            events.sort(key=lambda event: (event.until, event.cause == PRESSURE))
        elif self.plan_calls:
            events.sort()
        return events

    def _works_before(self, index: int) -> bool:
        """Whether a tool round stands in front of the message in the same subtask."""
        for before in range(index - 1, -1, -1):
            if before + 1 in self.begins:
                return False
            if self.messages[before].calls:
                return True
        return False

    def _requests(self) -> list[int]:
        """How many messages stand in front of each place where the model may be asked."""
        messages = self.messages
        return [
            index + 1
            for index, message in enumerate(messages)
            if message.role == USER
            or (message.role == TOOL and (index + 1 == len(messages) or messages[index + 1].role != TOOL))
        ]

    # Closing, keeping, releasing

    def _close(self, end: int) -> None:
        begin, self.closed = self.closed, max(self.closed, end)
        if begin < self.closed:
            smallest = self.rules.collapse.min_tokens
            small = bool(self.tokens and smallest) and self._round_tokens(begin, end) < smallest
            if begin == 0 and self.known.parted is not None:
                self.waiting.append(_Closed(begin, end, *self.known.parted, True))
            else:
                self.waiting.append(_Closed(begin, end, small))

    def _kept_from(self) -> int:
        """Where that begins which stays as it is: the newest closed stretches, the newest rounds of the budget."""
        chosen = self.rules.collapse
        kept = self.closed
        if self.rules.role is None:
            return kept
        if chosen.keep_recent_subtasks and self.waiting:
            kept = self.waiting[-min(chosen.keep_recent_subtasks, len(self.waiting))].begin
        if chosen.verbatim_budget_tokens:
            kept = min(kept, self._budget_from(chosen.verbatim_budget_tokens))
        return kept

    def _budget_from(self, budget: int) -> int:
        kept, size = self.closed, 0
        for index in range(self.closed - 1, self.parted - 1, -1):
            message = self.messages[index]
            if message.role == TOOL or message.calls:
                size += self.tokens[index]
            if message.calls:
                if size > budget:
                    break
                kept = index
        return self._whole(kept)

    def _whole(self, cut: int) -> int:
        """The place itself, or the next one in front of it where no call is parted from its result."""
        if not self.reach:
            answers = {message.answers: index for index, message in enumerate(self.messages) if message.role == TOOL}
            ends = [max([answers.get(call.id, 0) for call in message.calls], default=0) for message in self.messages]
            self.reach = list(accumulate(ends, max))
        while cut > self.parted and self.reach[cut - 1] >= cut:
            cut -= 1
        return cut

    def _ripen(self, until: int) -> None:
        """Lays out the closed stretches up to there, and of the one that goes on what stands in front."""
        while self.waiting and self.waiting[0].begin < until:
            stretch = self.waiting[0]
            end = min(stretch.end, until)
            part = self._lay_out(end, small=stretch.small)
            counts = bool(part.rounds) and not stretch.counted
            self._add(part._replace(subtasks=int(counts)))
            if end == stretch.end:
                self.waiting.pop(0)
            else:
                self.waiting[0] = _Closed(end, stretch.end, stretch.small, stretch.counted or counts, True)

    def _lay_out(self, end: int, *, small: bool = False) -> Part:
        """The stretch from where the parts end."""
        begin, rules = self.parted, self.rules
        steps = self.steps[begin:end]
        if rules.role is None:
            return Part(steps, steps)
        if self.stale:
            raise StaleContents
        stretch = Stretch(self.messages[begin:end], steps, self.tokens[begin:end])
        role = None if small else rules.role
        opened = self.opened and begin not in self.begins
        exclude = rules.collapse.exclude_tools
        return lay_out(self.path, stretch, role, self.stated, opened=opened, exclude=exclude, refers=rules.refers)

    def _add(self, part: Part) -> None:
        begins = self.parted in self.begins
        self.opened = part.opening if part.user is not None else self.opened and not begins
        self.parted += len(part.verbatim)
        self.pending.append(part._replace(begins=begins))

    def _release(self, event: Event) -> None:
        """Lets the pending parts leave collapsed, or as long as the policy waits those that stay anyway."""
        while self.pending and not self.pending[0].rounds:
            self._send(self.pending.pop(0), event)
        economical = self.rules.collapse.policy == "economical" and event.cause != PRESSURE
        if self.pending and (not economical or self._pays(event.until)):
            for part in self.pending:
                self._send(part, event)
            self.pending = []

    def _pays(self, end: int) -> bool:
        rest = sum(self.tokens[self.parted : end]) - self.pending[0].lead
        before = rest + sum([part.lead + part.before for part in self.pending])
        after = rest + sum([part.lead + part.after for part in self.pending])
        prices = Prices(self.rules.collapse.price_cached, self.rules.collapse.price_write)
        return pays(before, after, self._replies(end), prices)

    def _send(self, part: Part, event: Event) -> None:
        """What leaves of a part, for good."""
        if part.begins:
            self.opening = None
        if part.amendment is not None and self.opening is not None:
            self._amend(self.opening, *part.amendment)
        if part.user is not None:
            self.opening = len(self.plan) + part.user if part.opening else None
        self.plan += part.collapsed
        self.total += part.lead + part.after
        if part.rounds:
            self.counts["subtasks_collapsed"] += part.subtasks
            self.counts["tool_messages_cleared"] += part.results
            self.broke = self._replies(event.until), event.cause

    def _amend(self, at: int, summary: str, instead_of: tuple[int, ...]) -> None:
        step = self.plan[at]
        self.plan[at] = edit = amended(step, summary, instead_of)
        if self.tokens and isinstance(step, Edit) and step.summary is not None and edit.summary is not None:
            self.total += tokens_of(edit.summary) - tokens_of(step.summary) - tokens_of(summary)

    # Pressure

    def _relieve(self, event: Event) -> bool:
        """Takes a step if what leaves up to here fills too much of the window: all that is closed collapses, and
        the rounds of the running subtask but the newest. False: nothing has changed.

        A step that frees little only brings the next one nearer, and each has what is behind it read anew. So
        it waits until it frees half of what is left above the trigger, or the window is full. One that turned out
        to free nothing is tried again when it could hold twice as much."""
        running = self.rules.running
        window, at = running.window_tokens, event.until
        size = self.total + sum([part.lead + part.before for part in self.pending])
        size += self._sums[at] - self._sums[self.parted]
        if size <= running.trigger_fraction * window:
            return False
        cut = self._whole(self._oldest_kept(at, running.keep_rounds))
        before = self.stated.copy(), self.opened, self.parted, list(self.pending), list(self.waiting)
        self._ripen(self.closed)
        own = self._round_tokens(self.closed, cut)
        free = own + sum([part.before - part.after for part in self.pending])
        least = 0 if size > window else (1 - running.trigger_fraction) / 2 * window
        tried = free > self.patience and free >= least
        if tried:
            stated = self.stated.copy()
            part = self._lay_out(cut) if own else Part([], [])
            if part.rounds:
                self._add(part)
                self.closed = cut
            else:
                self.stated = stated
            if any(part.rounds for part in self.pending):
                self._release(event)
                self.counts["pressure_steps"] += 1
                self.patience = 0
                return True
            self.patience = 2 * free
        self.stated, self.opened, self.parted, self.pending, self.waiting = before
        return tried

    def _oldest_kept(self, at: int, rounds: int) -> int:
        """Where the newest rounds of the running subtask begin; where it begins itself if it has no more."""
        for index in range(at - 1, self.closed - 1, -1):
            if self.messages[index].calls:
                rounds -= 1
                if not rounds:
                    return index
        return self.closed

    # Counting

    def _count(self) -> None:
        lead, tokens = self.path.lead, self.path.tokens
        for message, step in zip(self.messages, self.steps, strict=True):
            source = source_of(step)
            if source is None or (isinstance(step, Edit) and step.result is not None):
                self.tokens.append(message_tokens(message))  # it says something else than what came
            else:
                self.tokens.append(tokens[source] if source >= lead else 0)
        flags = in_rounds(self.messages, self.rules.collapse.exclude_tools)
        self._sums = [0, *accumulate(self.tokens)]
        self._round_sums = [0, *accumulate([size * flag for size, flag in zip(self.tokens, flags, strict=True)])]

    def _round_tokens(self, begin: int, end: int) -> int:
        """Tokens of the tool rounds between that may collapse."""
        return self._round_sums[end] - self._round_sums[begin]

    def _replies(self, end: int) -> int:
        """Replies of the model up to there."""
        return self.known.replies + self.said[end]


def _by_model(message: Message) -> bool:
    return message.role == ASSISTANT and message.content != TURN_CLOSED
