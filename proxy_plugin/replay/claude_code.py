"""Transcripts of Claude Code: `~/.claude/projects/**/*.jsonl`.

A line is one event; those of type `user` and `assistant` carry (a part of) a message of the Messages API,
`uuid` and `parentUuid` link them to a tree. What the agent sent is worked out as it does it itself:

- an answer is written block by block, several lines with one `message.id`: they are one message again;
- parallel results hang each on its own call's line, so that a plain walk up the parents misses some: the
  results of every call of the path belong to it;
- user lines that follow one another are one message, results first;
- an edited or rewound conversation goes on from an earlier line: its requests follow in the order they
  were made;
- reminders that it puts into user messages on the way are not written down, and do not count;
- subagents (`isSidechain`) and what follows a compaction (a new root) are conversations of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from proxy_plugin.replay.conversations import PROVIDERS, Conversation, Exchange, encode

_NOT_ASKED = "<synthetic>"  # the model's name on answers that the client wrote itself


class _Line(NamedTuple):
    """`number` orders the lines of a file; `group` is shared by the lines of one answer."""

    number: int
    parent: str | None
    role: str
    group: str
    blocks: Sequence[Any]
    content: Any
    asked: bool  # an answer of a model


def recognises(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("type") in ("user", "assistant")
        and isinstance(value.get("uuid"), str)
        and isinstance(value.get("message"), dict)
    )


class Transcript:
    """The lines of one file, as far as they are needed."""

    def __init__(self) -> None:
        self._session = ""
        self._parents: dict[str, str | None] = {}  # of every linked line: those of other types are links too
        self._roots: dict[str, tuple[str, bool]] = {}
        self._trees: dict[str, dict[str, _Line]] = {}

    def __bool__(self) -> bool:
        return bool(self._trees)

    def add(self, value: dict[str, Any]) -> None:
        """One line of any type."""
        uuid, parent = value.get("uuid"), value.get("parentUuid")
        if not isinstance(uuid, str) or uuid in self._parents:
            return
        side = value.get("isSidechain") is True
        root = self._roots.get(parent) if isinstance(parent, str) else None
        if root is None or root[1] != side:
            root, parent = (uuid, side), None
        self._roots[uuid], self._parents[uuid] = root, parent
        if not recognises(value) or value.get("isApiErrorMessage") is True:
            return
        if not self._session and isinstance(value.get("sessionId"), str):
            self._session = value["sessionId"]
        message, role = value["message"], value["type"]
        content, group = message.get("content"), message.get("id")
        tree = self._trees.setdefault(root[0], {})
        tree[uuid] = _Line(
            number=len(self._parents),
            parent=parent,
            role=role,
            group=group if role == "assistant" and isinstance(group, str) else uuid,
            blocks=[block for block in content if isinstance(block, dict)] if isinstance(content, list) else [],
            content=content,
            asked=role == "assistant" and message.get("model") != _NOT_ASKED,
        )

    def conversations(self, name: str) -> Iterator[Conversation]:
        """`name`: for a file whose lines do not say which session they are of."""
        session = self._session or name
        for number, tree in enumerate(self._trees.values(), 1):
            label = session if number == 1 else f"{session}#{number}"
            yield Conversation(label, "messages", PROVIDERS["messages"], self._exchanges(tree))

    def _exchanges(self, tree: dict[str, _Line]) -> Iterator[Exchange]:
        answers: dict[str, list[_Line]] = {}
        for line in tree.values():
            if line.asked:
                answers.setdefault(line.group, []).append(line)
        encoded: dict[tuple[int, ...], bytes] = {}
        for lines in answers.values():
            items = []
            for run in _messages(self._sent_before(lines[0], tree)):
                key = tuple(line.number for line in run)
                if key not in encoded:
                    encoded[key] = encode(_message(run))
                items.append(encoded[key])
            if items:
                yield Exchange(items, [_message(lines)])

    def _sent_before(self, answer: _Line, tree: dict[str, _Line]) -> list[_Line]:
        """The lines that the request for this answer was made of."""
        path: set[str] = set()
        above = answer.parent
        while above is not None and above not in path:
            path.add(above)
            above = self._parents.get(above)
        groups = {tree[uuid].group for uuid in path if uuid in tree}
        chosen: list[_Line] = []
        calls: set[Any] = set()
        for uuid, line in tree.items():
            if line.number >= answer.number:
                break
            if line.role == "assistant" and line.group in groups:
                calls.update(block.get("id") for block in line.blocks if block.get("type") == "tool_use")
                chosen.append(line)
            elif uuid in path or any(block.get("tool_use_id") in calls for block in line.blocks):
                chosen.append(line)
        return chosen


def _messages(lines: Sequence[_Line]) -> list[list[_Line]]:
    """The lines of each message, in the order of the list that was sent."""
    runs: list[list[_Line]] = []
    answers: dict[str, list[_Line]] = {}
    for line in lines:
        if line.role == "assistant" and line.group in answers:
            answers[line.group].append(line)
        elif line.role == "user" and runs and runs[-1][0].role == "user":
            runs[-1].append(line)
        else:
            runs.append([line])
            if line.role == "assistant":
                answers[line.group] = runs[-1]
    return runs


def _message(run: Sequence[_Line]) -> dict[str, Any]:
    if len(run) == 1:
        return {"role": run[0].role, "content": run[0].content}
    blocks: list[Any] = []
    for line in run:
        blocks += [{"type": "text", "text": line.content}] if isinstance(line.content, str) else line.blocks
    if run[0].role == "user":
        blocks.sort(key=lambda block: block.get("type") != "tool_result")
    return {"role": run[0].role, "content": blocks}
