"""Collapse: the tool rounds of a stretch of the path become one summary.

User texts and assistant texts without calls stay as they are. The summary stands where the first round
stood, as a message of its own, or at the end of the user message before it where the target keeps no
system message in its place. A stretch whose summary would not be smaller than its rounds stays whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from proxy_plugin.history.model import ASSISTANT, REF_LENGTH, TOOL, USER, Message, Round, dump, text_of
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import NO_RESULT, Edit, Plan, source_of
from proxy_plugin.history.summary import Stated, summarise
from proxy_plugin.history.tokens import message_tokens, tokens_of

_SURROUNDINGS = 96
"""Bytes that a summary costs at most beside its text: the message or text block around it."""


class Stretch(NamedTuple):
    """Consecutive messages of a repaired history: the plan beside them, and the tokens of each (empty where
    nobody counts)."""

    messages: Sequence[Message]
    plan: Plan
    tokens: Sequence[int]


class Amendment(NamedTuple):
    """A summary that belongs at the end of the user message which opened the subtask, further in front."""

    summary: str
    instead_of: tuple[int, ...]


class Part(NamedTuple):
    """A stretch laid out both ways.

    verbatim, collapsed  the plans: as it came, and with a summary; the same where the rounds stay
    rounds, results      tool rounds and tool messages that the summary stands for; 0: they stay
    amendment            the summary, where it goes to a user message in front of the stretch
    user                 place in `collapsed` of the newest user message; None: there is none
    opening              whether a summary can be added to that user message
    begins               whether a subtask begins with the stretch
    subtasks             completed subtasks that count as collapsed with it: 0 or 1
    lead, before, after  tokens up to the summary's place, and behind it as it came and with the summary"""

    verbatim: Plan
    collapsed: Plan
    rounds: int = 0
    results: int = 0
    amendment: Amendment | None = None
    user: int | None = None
    opening: bool = False
    begins: bool = False
    subtasks: int = 0
    lead: int = 0
    before: int = 0
    after: int = 0

    @property
    def saved(self) -> int:
        """Tokens."""
        return self.before - self.after


def texts_of(message: Message) -> Iterator[str]:
    """The texts of a message, part by part."""
    content: Any = message.content
    for part in content if isinstance(content, list) else [content]:
        text = text_of(part if isinstance(part, str) else [part])
        if text:
            yield text


def lay_out(
    path: Path,
    stretch: Stretch,
    role: str | None,
    stated: Stated,
    *,
    opened: bool = False,
    exclude: Collection[str] = (),
    refers: bool = True,
) -> Part:
    """A stretch that ends where no tool round is torn. `stated` learns what leaves if it collapses.

    role     SYSTEM, ASSISTANT or USER, as whose text the summary stands; None: the rounds stay
    opened   whether a user message further in front in the same subtask can take a summary
    exclude  tools whose rounds stay
    refers   whether the summary says where its rounds are kept"""
    messages, plan, tokens = stretch
    rounds, in_round = _rounds(messages, exclude) if role is not None else ([], [])
    place = _place(messages, in_round.index(True), role, opened) if rounds and role is not None else None
    if role is None or place is None:
        return _as_it_is(path, stretch, stated, 0)

    _learn(stated, path, messages, plan, range(place))
    kept = [index for index in range(place, len(messages)) if not in_round[index]]
    following = [text for index in kept for text in texts_of(messages[index])]
    held = [step for step, inside in zip(plan, in_round, strict=True) if inside]
    sources = tuple([source for step in held if (source := source_of(step)) is not None])
    ref = path.node_ids[max(sources)][:REF_LENGTH] if refers else ""
    summary = summarise(rounds, stated, following, ref)
    if len(dump(summary)) + _SURROUNDINGS >= path.weight(held):
        return _as_it_is(path, stretch, stated, place)

    stated.add(summary)
    _learn(stated, path, messages, plan, kept)
    steps = plan[:place]
    amendment = None
    if role != USER:
        steps.append(Edit(None, added=Message(role, summary), instead_of=sources))
    elif place:
        steps[-1] = amended(steps[-1], summary, sources)
    else:
        amendment = Amendment(summary, sources)
    user = _newest_user(messages)
    at = len(steps) + kept.index(user) if user is not None and user >= place else user
    steps += [plan[index] for index in kept]
    lead = before = after = 0
    if tokens:
        lead, before = sum(tokens[:place]), sum(tokens[place:])
        after = sum([tokens[index] for index in kept])
        counted = summary.replace(ref, "0" * len(ref), 1)  # the reference must not sway a decision
        after += tokens_of(counted) if role == USER else message_tokens(Message(role, counted))
    results = sum(messages[index].role == TOOL for index, inside in enumerate(in_round) if inside)
    opening = user is not None and _takes_text(messages[user])
    return Part(plan, steps, len(rounds), results, amendment, at, opening, lead=lead, before=before, after=after)


def amended(step: int | Edit, summary: str, instead_of: tuple[int, ...]) -> Edit:
    """The user message of a step with a summary at its end, behind one that stands there already."""
    edit = Edit(step) if isinstance(step, int) else step
    if edit.summary is not None:
        summary = f"{edit.summary}\n{summary}"
    return edit._replace(summary=summary, instead_of=(*edit.instead_of, *instead_of))


def in_rounds(messages: Sequence[Message], exclude: Collection[str]) -> list[bool]:
    """Which messages are part of a tool round that may collapse, by what stands in each of them and before."""
    inside, flags = False, []
    for message in messages:
        if message.role == ASSISTANT:
            inside = _may_collapse(message, exclude)
        flags.append(inside and (message.role == TOOL or message.role == ASSISTANT))
    return flags


def _may_collapse(message: Message, exclude: Collection[str]) -> bool:
    return bool(message.calls) and not (exclude and any(call.name in exclude for call in message.calls))


def _as_it_is(path: Path, stretch: Stretch, stated: Stated, learnt: int) -> Part:
    """The stretch with its rounds; `stated` has learnt that many of its messages already."""
    messages, plan, tokens = stretch
    _learn(stated, path, messages, plan, range(learnt, len(messages)))
    user = _newest_user(messages)
    opening = user is not None and _takes_text(messages[user])
    return Part(plan, plan, user=user, opening=opening, lead=sum(tokens))


def _newest_user(messages: Sequence[Message]) -> int | None:
    return next((index for index in range(len(messages) - 1, -1, -1) if messages[index].role == USER), None)


def _takes_text(message: Message) -> bool:
    return isinstance(message.content, str | list)


def _place(messages: Sequence[Message], first: int, role: str, opened: bool) -> int | None:
    """Where the summary goes: behind how many messages, none of which is part of a round. As text of the
    user it needs a user message in front that a block can be added to; None if there is none. 0 can mean
    the one that opened the subtask, further in front."""
    if role != USER:
        return first
    user = _newest_user(messages[:first])
    if user is None:
        return 0 if opened else None
    return user + 1 if _takes_text(messages[user]) else None


def _rounds(messages: Sequence[Message], exclude: Collection[str]) -> tuple[list[Round], list[bool]]:
    """The tool rounds that may collapse, and which messages belong to one. None at all if half of a pair is
    elsewhere."""
    results = {message.answers: index for index, message in enumerate(messages) if message.role == TOOL}
    rounds = []
    in_round = [False] * len(messages)
    for index, message in enumerate(messages):
        if message.sealed:
            return [], [False] * len(messages)
        if message.calls:
            seats = [results.get(call.id) for call in message.calls]
            if None in seats:
                return [], [False] * len(messages)
            if not _may_collapse(message, exclude):
                continue
            for seat in (index, *seats):
                in_round[seat] = True  # type: ignore[index]
            found = [messages[seat] for seat in seats]  # type: ignore[index]
            rounds.append(Round(message, tuple([None if m.content == NO_RESULT else m for m in found])))
    return rounds, in_round


def _learn(stated: Stated, path: Path, messages: Sequence[Message], plan: Plan, indices: Sequence[int] | range) -> None:
    for index in indices:
        source = source_of(plan[index])
        if source is not None and source < path.lead:
            continue  # leading system text may change from request to request
        message = messages[index]
        for text in texts_of(message):
            stated.add(text)
        for call in message.calls:
            stated.add(call.arguments)
