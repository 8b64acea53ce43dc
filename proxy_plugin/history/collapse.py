"""Collapse: the tool rounds of a completed subtask become one summary.

User texts and the final assistant text stay as they are. The summary stands where the first round
stood, as a message of its own, or at the end of the user message before it where the target keeps no
system message in its place. A subtask whose summary would not be smaller than its rounds stays whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from proxy_plugin.history.model import REF_LENGTH, TOOL, USER, Message, Round, dump, text_of
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import NO_RESULT, Edit, Plan, source_of
from proxy_plugin.history.summary import Stated, summarise

_SURROUNDINGS = 96
"""Bytes that a summary costs at most beside its text: the message or text block around it."""


class Collapsed(NamedTuple):
    plan: Plan
    rounds: int  # 0: the subtask stays as it is
    results: int


def texts_of(message: Message) -> Iterator[str]:
    """The texts of a message, part by part."""
    content: Any = message.content
    for part in content if isinstance(content, list) else [content]:
        text = text_of(part if isinstance(part, str) else [part])
        if text:
            yield text


def collapse(path: Path, messages: Sequence[Message], plan: Plan, role: str, stated: Stated) -> Collapsed:
    """One completed subtask: its repaired messages and their plan. `stated` learns what leaves.

    role: SYSTEM, ASSISTANT or USER, as whose text the summary stands."""
    rounds, in_round = _rounds(messages)
    place = _place(messages, in_round.index(True), role) if rounds else None
    if place is None:
        _learn(stated, path, messages, plan, range(len(messages)))
        return Collapsed(plan, 0, 0)

    _learn(stated, path, messages, plan, range(place))
    kept = [index for index in range(place, len(messages)) if not in_round[index]]
    following = [text for index in kept for text in texts_of(messages[index])]
    held = [step for step, inside in zip(plan, in_round, strict=True) if inside]
    sources = [source for step in held if (source := source_of(step)) is not None]
    summary = summarise(rounds, stated, following, path.node_ids[max(sources)][:REF_LENGTH])
    if len(dump(summary)) + _SURROUNDINGS >= path.weight(held):
        _learn(stated, path, messages, plan, range(place, len(messages)))
        return Collapsed(plan, 0, 0)

    stated.add(summary)
    _learn(stated, path, messages, plan, kept)
    steps = plan[:place]
    if role == USER:
        opening = steps[-1]
        opening = Edit(opening) if isinstance(opening, int) else opening
        steps[-1] = opening._replace(summary=summary, instead_of=tuple(sources))
    else:
        steps.append(Edit(None, added=Message(role, summary), instead_of=tuple(sources)))
    steps += [plan[index] for index in kept]
    results = sum(messages[index].role is TOOL for index, inside in enumerate(in_round) if inside)
    return Collapsed(steps, len(rounds), results)


def _place(messages: Sequence[Message], first: int, role: str) -> int | None:
    """Where the summary goes: behind how many messages, none of which is part of a round. As text of the
    user it needs a user message directly in front that a block can be added to; None if there is none."""
    if role != USER:
        return first
    for index in range(first - 1, -1, -1):
        if messages[index].role is USER:
            return index + 1 if isinstance(messages[index].content, str | list) else None
    return None


def _rounds(messages: Sequence[Message]) -> tuple[list[Round], list[bool]]:
    """The tool rounds, and which messages belong to one. None at all if half of a pair is elsewhere."""
    results = {message.answers: index for index, message in enumerate(messages) if message.role is TOOL}
    rounds = []
    in_round = [False] * len(messages)
    for index, message in enumerate(messages):
        if message.sealed:
            return [], in_round
        if message.calls:
            seats = [results.get(call.id) for call in message.calls]
            if None in seats:
                return [], in_round
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
