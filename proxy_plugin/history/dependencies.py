"""The context of a subtask that needs the results of others: its past without tool messages, and one note.

What comes before the subtask keeps its user messages and assistant texts; its tool rounds are left out, because what
came of them is in the note. The note is a system message between that past and the subtask where the target keeps it
in its place, else a text at the start of the subtask's first user message. All of it depends only on the past, the
results and the target, so that each request of a subtask begins with the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy_plugin.history.dialects import Dialect
from proxy_plugin.history.model import ASSISTANT, SYSTEM, TOOL, USER, Message, text_of
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import Edit, Plan, source_of
from proxy_plugin.history.summary.quoting import defused
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import parsed, unwrap

TITLE = "Previous subtask results:"
NO_TEXT = "(It ended without a text.)"
LEFT_OUT = "(Tool calls were made here.)"
"""Stands between two user messages where a target wants them in turn with the assistant's."""
_OWN_LINE = re.compile(r"(?<=\n)(?=Previous subtask results:|Subtask |Agent:|Result:)")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a subtask."""

    id: str
    description: str | None
    agent: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Dependent:
    """A list as it is to be rewritten and sent. `nodes`: of each of its messages the node id, "" for one of the
    plugin's own. `cleared`: tool messages that were left out."""

    wire: list[Any]
    nodes: tuple[str, ...]
    cleared: int


def note(results: Sequence[Result]) -> str:
    """The results as one text, in the order in which they are given; "" for none."""
    if not results:
        return ""
    return "\n\n".join([TITLE, *map(_said, results)])


def _said(result: Result) -> str:
    lines = [f"Subtask {result.id}: {result.description}" if result.description else f"Subtask {result.id}"]
    if result.agent:
        lines.append(f"Agent: {result.agent}")
    return "\n".join([*lines, f"Result: {_quoted(result.text) or NO_TEXT}"])


def _quoted(text: str) -> str:
    """A result as it is, but for what would pass for words of the note's own or for another role's: it may repeat
    what a tool said, and stands in a system message now."""
    return _OWN_LINE.sub(" ", defused(text))


def text_of_stored(body: bytes | None) -> str:
    """The text of a message as the store holds it; "" where it is damaged or has none."""
    wire = unwrap([parsed(body)])
    return "\n".join(filter(None, (text_of(message.content) for message in CODECS[wire.api].parse(wire.messages))))


def dependent(path: Path, begins: int, results: Sequence[Result], dialect: Dialect) -> Dependent:
    """`begins`: index of the message with which the subtask begins; those before it are its past."""
    messages = path.messages
    past: Plan = [index for index in range(begins) if not _of_a_round(messages[index])]
    own: Plan = list(range(begins, len(messages)))
    asks = next((place for place, step in enumerate(own) if _role(messages, step) == USER), None)
    text = note(results)
    apart = text if dialect.system_anywhere or asks is None else ""
    if apart:
        own.insert(0, Edit(None, added=Message(SYSTEM if dialect.system_anywhere else USER, text)))
    plan = _in_turn(messages, [*past, *own]) if dialect.alternates else [*past, *own]
    wire = path.codec.render(path.wire, messages, plan)
    if text and not apart and asks is not None:
        until = plan.index(begins + asks) + 1
        wire = _noted(wire, len(path.codec.render(path.wire, messages, plan[:until])) - 1, text, path.api)
    nodes = ["" if (source := source_of(step)) is None else path.node_ids[source] for step in plan]
    return Dependent(wire, tuple(nodes), sum(message.role == TOOL for message in messages[:begins]))


def _of_a_round(message: Message) -> bool:
    return bool(message.calls) or message.role == TOOL or message.sealed


def _role(messages: Sequence[Message], step: int | Edit) -> str:
    if isinstance(step, Edit) and step.added is not None:
        return step.added.role
    return messages[source_of(step) or 0].role


def _in_turn(messages: Sequence[Message], plan: Plan) -> Plan:
    """The same with something of the assistant's between two messages of the user's."""
    out: Plan = []
    for step in plan:
        if out and _role(messages, step) == USER == _role(messages, out[-1]):
            out.append(Edit(None, added=Message(ASSISTANT, LEFT_OUT)))
        out.append(step)
    return out


def _noted(wire: list[Any], at: int, text: str, api: str) -> list[Any]:
    """The list with a text at the start of a user message, behind results of tools that stand in it."""
    content = wire[at].get("content")
    if isinstance(content, list):
        behind = next((i for i, part in enumerate(content) if _type(part) != "tool_result"), len(content))
        part = {"type": "input_text" if api == "responses" else "text", "text": text}
        content = [*content[:behind], part, *content[behind:]]
    else:
        content = f"{text}\n\n{content}" if isinstance(content, str) and content else text
    return [*wire[:at], {**wire[at], "content": content}, *wire[at + 1 :]]


def _type(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None
