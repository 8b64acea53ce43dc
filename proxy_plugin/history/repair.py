"""Repair: the smallest change that makes ids and pairs valid.

Calls and results are paired by position: a call arms its id, a result uses it up. So a reused id, which
nearly always belongs to a different call, keeps its own result. Then each round is laid out as every
provider wants it (the assistant message, directly after it one result a call), and ids are made unique
and legal: the first use of an id stays as it is, a later one is renamed together with its own result.

Where a result may stand anywhere behind its call (OpenAI's /responses), it stays where it is.

The decisions about a message depend only on what stands before it, but for results that come late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from proxy_plugin.history.dialects import Dialect, IdRule, stem
from proxy_plugin.history.model import ASSISTANT, TOOL, USER, Message, dump, text_of
from proxy_plugin.history.plan import EMPTY_RESULT, NO_RESULT, ORPHAN, TURN_CLOSED, Edit, Plan

Seats = dict[int, list[int | None]]
"""Index of an assistant message with calls -> for each of its calls the index of its result, or None."""


class Ids:
    """The ids that a path has used so far, and the names of their later uses. Two ids that differ only in the
    signature behind them are one.

    `fork` gives a copy-on-write child for the part of the path that may still change."""

    def __init__(self, rule: IdRule, parent: Ids | None = None) -> None:
        self._rule = rule
        self._used: set[str] = set()  # stems
        self._uses: dict[str, int] = {}
        self._parent = parent

    def fork(self) -> Ids:
        return Ids(self._rule, self)

    def __contains__(self, call_id: str) -> bool:
        return self._holds(stem(call_id))

    def _holds(self, name: str) -> bool:
        return name in self._used or (self._parent is not None and self._parent._holds(name))

    def _uses_of(self, call_id: str) -> int:
        if call_id in self._uses or self._parent is None:
            return self._uses.get(call_id, 0)
        return self._parent._uses_of(call_id)

    def assign(self, call_id: str | None) -> str:
        """The id under which this use leaves. The first legal use of an id is itself."""
        wanted = call_id if call_id is not None else "call"
        if call_id is not None and call_id not in self and self._rule.accepts(call_id):
            self._used.add(stem(call_id))
            return call_id
        use = self._uses_of(wanted)
        while True:
            name = self._rule.fit(wanted, use)
            use += 1
            if name not in self:
                break
        self._uses[wanted] = use
        self._used.update((stem(wanted), stem(name)))
        return name

    def name_new(self, call_id: str) -> str:
        """The id under which a call of the reply goes to the client: its own, whatever the provider made,
        unless the path holds it already."""
        if call_id in self:
            return self.assign(call_id)
        self._used.add(stem(call_id))
        return call_id

    def keep(self, call_id: str | None, assigned: str) -> None:
        """Takes over from a fork what it decided for a part that is closed now."""
        wanted = call_id if call_id is not None else "call"
        if assigned != wanted:
            self._uses[wanted] = self._uses_of(wanted) + 1
        self._used.update((stem(wanted), stem(assigned)))


class Pairing(NamedTuple):
    seats: Seats
    orphans: frozenset[int]
    unanswered: bool

    def reach_across(self, boundary: int) -> bool:
        """Whether a call in front of the boundary has its result behind it."""
        return any(
            result is not None and result >= boundary
            for index, row in self.seats.items()
            if index < boundary
            for result in row
        )


def pair(messages: Sequence[Message], start: int = 0) -> Pairing:
    """Which result belongs to which call, for messages[start:]; linear time."""
    seats: Seats = {}
    orphans = []
    armed: dict[str | None, list[list[int]]] = {}  # id -> stack of [assistant index, open call numbers, reversed]
    last = -1  # the newest round, for results without an id
    free = 0  # its first call that may still be open
    for index in range(start, len(messages)):
        message = messages[index]
        if message.calls:
            last, free = index, 0
            seats[index] = [None] * len(message.calls)
            own: dict[str | None, list[int]] = {}
            for number in range(len(message.calls) - 1, -1, -1):
                own.setdefault(message.calls[number].id, []).append(number)
            for call_id, numbers in own.items():
                armed.setdefault(call_id, []).append([index, *numbers])
        elif message.role == TOOL:
            if message.answers is not None:
                seat = _take(armed, message.answers, seats)
                if seat is None and None in armed and armed[None] and armed[None][-1][0] == last:
                    seat = _take(armed, None, seats)  # the call lost its id, the result kept it
            elif last >= 0:
                row = seats[last]
                while free < len(row) and row[free] is not None:
                    free += 1
                seat = (last, free) if free < len(row) else None
            else:
                seat = None
            if seat is None:
                orphans.append(index)
            else:
                seats[seat[0]][seat[1]] = index
    return Pairing(seats, frozenset(orphans), any(None in row for row in seats.values()))


def _take(armed: dict[str | None, list[list[int]]], call_id: str | None, seats: Seats) -> tuple[int, int] | None:
    """Uses up the oldest open call of the newest message that has one under this id."""
    stack = armed.get(call_id)
    while stack:
        entry = stack[-1]
        while len(entry) > 1:
            number = entry.pop()
            if seats[entry[0]][number] is None:
                if len(entry) == 1:
                    stack.pop()
                return entry[0], number
        stack.pop()
    return None


class Repaired(NamedTuple):
    """The repaired part: output messages as the rest of the pipeline sees them, and the plan beside them."""

    messages: list[Message]
    plan: Plan
    assigned: list[tuple[int, str | None, str]]  # every call: (input index, id as it came, id as it leaves)
    repairs: list[tuple[int, str]]  # (position in the output, field name of Report), one entry each


def repair(messages: Sequence[Message], start: int, pairing: Pairing, dialect: Dialect, ids: Ids) -> Repaired:
    """Lays out messages[start:] so that the dialect takes it. `ids` learns every id that leaves."""
    out: list[Message] = []
    plan: Plan = []
    assigned: list[tuple[int, str | None, str]] = []
    repairs: list[tuple[int, str]] = []
    noted: set[bytes] = set()  # what stands in front of an orphan, and may not change with what follows it
    noted_until = start
    staying: dict[int, str] = {}  # results that come late and may, under their ids

    for index in range(start, len(messages)):
        message = messages[index]
        if message.calls:
            new_ids = [ids.assign(call.id) for call in message.calls]
            now = [(index, call.id, new) for new, call in zip(new_ids, message.calls, strict=True)]
            changed = sum(old != new for _, old, new in now)
            assigned += now
            repairs += [(len(out), "ids_renamed")] * changed
            if changed:
                calls = tuple([call._replace(id=new) for new, call in zip(new_ids, message.calls, strict=True)])
                message = message._replace(calls=calls)
            plan.append(Edit(index, call_ids=tuple(new_ids)) if changed else index)
            out.append(message)
            row = pairing.seats[index]
            if len(row) == 1 and row[0] == index + 1:  # the round that most are
                _lay_result(messages, index + 1, new_ids[0], dialect, out, plan, repairs)
            else:
                staying.update(_lay_results(messages, index, row, new_ids, dialect, out, plan, repairs))
        elif message.role != TOOL:
            if message.role == USER and _must_close(dialect, out, plan, own=False):
                _close_turn(out, plan, repairs)
            plan.append(index)
            out.append(message)
        elif index in staying:
            _lay_result(messages, index, staying[index], dialect, out, plan, repairs)
        elif index in pairing.orphans:
            noted |= _paired_contents(messages, noted_until, index, pairing)
            noted_until = index
            _note_orphan(message, index, noted, dialect, out, plan, repairs)
    return Repaired(out, plan, assigned, repairs)


def _lay_results(
    messages: Sequence[Message],
    index: int,
    seats: list[int | None],
    new_ids: list[str],
    dialect: Dialect,
    out: list[Message],
    plan: Plan,
    repairs: list[tuple[int, str]],
) -> list[tuple[int, str]]:
    """The round's results in the order they came, then a neutral one for every call without a result.
    Returns the results that come late and may stay where they are, each with the id of its call."""
    found = sorted((result, new_ids[number]) for number, result in enumerate(seats) if result is not None)
    late = []
    for offset, (result, new_id) in enumerate(found, 1):
        if result != index + offset:
            if dialect.late_results:
                late.append((result, new_id))
                continue
            repairs.append((len(out), "results_moved"))
        _lay_result(messages, result, new_id, dialect, out, plan, repairs)
    for number, seat in enumerate(seats):
        if seat is None:
            neutral = Message(TOOL, NO_RESULT, answers=new_ids[number])
            repairs.append((len(out), "results_added"))
            plan.append(Edit(None, added=neutral))
            out.append(neutral)
    return late


def _lay_result(
    messages: Sequence[Message],
    index: int,
    call_id: str,
    dialect: Dialect,
    out: list[Message],
    plan: Plan,
    repairs: list[tuple[int, str]],
) -> None:
    """A result as it leaves: under the id of its call, and with a text where the target loses it without one."""
    message = messages[index]
    text = None if dialect.empty_results or not _says_nothing(message.content) else EMPTY_RESULT
    if text is not None:
        repairs.append((len(out), "results_added"))
        message = message._replace(content=text)
    answers = None if message.answers == call_id else call_id
    plan.append(index if answers is None and text is None else Edit(index, answers=answers, result=text))
    out.append(message if answers is None else message._replace(answers=call_id))


def _says_nothing(content: Any) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" and not part.get("text") for part in content)
    return content is None or content == ""


def _must_close(dialect: Dialect, out: list[Message], plan: Plan, *, own: bool) -> bool:
    """Whether a user message here (`own`: a note of ours) needs an assistant message in front of it."""
    if not out:
        return False
    if out[-1].role == TOOL:
        return not dialect.user_after_tool
    own = own or not isinstance(plan[-1], int)  # what the client itself put side by side stays
    return dialect.alternates and own and out[-1].role == USER


def _close_turn(out: list[Message], plan: Plan, repairs: list[tuple[int, str]]) -> None:
    closing = Message(ASSISTANT, TURN_CLOSED)
    repairs.append((len(out), "turns_closed"))
    plan.append(Edit(None, added=closing))
    out.append(closing)


def _paired_contents(messages: Sequence[Message], start: int, end: int, pairing: Pairing) -> set[bytes]:
    return {
        dump(text_of(message.content) or message.content)
        for index, message in enumerate(messages[start:end], start)
        if message.role == TOOL and index not in pairing.orphans
    }


def _note_orphan(
    message: Message,
    index: int,
    noted: set[bytes],
    dialect: Dialect,
    out: list[Message],
    plan: Plan,
    repairs: list[tuple[int, str]],
) -> None:
    content = message.content
    seen = dump(text_of(content) or content)
    if not content or seen in noted:
        repairs.append((len(out), "orphans_dropped"))
        return
    noted.add(seen)
    if _must_close(dialect, out, plan, own=True):
        _close_turn(out, plan, repairs)
    head = f"{ORPHAN} ({message.answers}):" if message.answers else f"{ORPHAN}:"
    note = Message(USER, _with_head(head, content))
    repairs.append((len(out), "orphans_moved"))
    plan.append(Edit(None, added=note, instead_of=(index,)))
    out.append(note)


def _with_head(head: str, content: Any) -> Any:
    if isinstance(content, list) and not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        if all(map(_can_be_said, content)):
            return [{"type": "text", "text": head}, *content]
        return f"{head}\n{dump(content).decode()}"
    return f"{head}\n{text_of(content) or dump(content).decode()}"


def _can_be_said(part: Any) -> bool:
    """Whether a part of a result means the same in a user message; a call or a result there is one of its own."""
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and not kind.endswith(("tool_use", "tool_result"))
