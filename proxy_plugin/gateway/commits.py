"""From a request's path, and its reply, to what the store keeps of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from secrets import token_hex
from typing import Any

import orjson

from proxy_plugin.history.model import ASSISTANT, OTHER, SYSTEM, TOOL, USER, Message, node_id
from proxy_plugin.history.path import Path
from proxy_plugin.history.subtasks import running_start
from proxy_plugin.history.wire.stored import lead_entries, wrap
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.records import list_length
from proxy_plugin.sessions.subtasks import MAX_DEPENDENCIES, MAX_METADATA_BYTES, Plan
from proxy_plugin.sessions.tree import Base, Commit, Lead

_TEXT_LIMIT = 1_000  # characters of a client's subtask id, description or agent that are kept


class Bodies(Sequence[bytes]):
    """What the store keeps of each node, made only for the nodes that are written."""

    def __init__(self, path: Path, lead: int, reply: Path | None = None) -> None:
        """`lead`: how many messages of the path are none of its nodes."""
        self._parts: list[tuple[Path, int]] = [(path, lead)] if reply is None else [(path, lead), (reply, 0)]
        self._size = sum(len(part.messages) - skipped for part, skipped in self._parts)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + self._size if index < 0 else index
        for part, skipped in self._parts:
            own = len(part.messages) - skipped
            if 0 <= place < own:
                return wrap(part.api, part.fragment(skipped + place))
            place -= own
        raise IndexError(index)

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(self._size))


def request_commit(
    path: Path, address: Address, headers: Mapping[str, str], body: Mapping[str, Any], base: Base | None = None
) -> Commit:
    """A request as it came, behind the stored path that it goes on from. There system text is a message like
    any other, and the session is that of the base where the client names none."""
    lead = path.lead if base is None else 0
    messages = path.messages[lead:] if base is None else [_answered(path, message) for message in path.messages]
    said = _mapping(body.get("metadata"))
    plan = named_subtask(headers, body)
    agent = _text(_mapping(said.get("subtask")).get("agent"))
    ids = path.node_ids[lead:] if base is None else list(_chain(base.node, messages))
    roles = [message.role for message in messages]
    return Commit(
        address=base.address if base is not None and address.implicit else address,
        ids=ids,
        bodies=Bodies(path, lead),
        roles=roles,
        first_reply=(base.first_reply if base is not None else None) or _first_reply(ids, roles),
        lead=_lead(path, body, lead),
        kind="request",
        subtask_start=_subtask_start(messages, base),
        subtask_id=plan.id if plan is not None else None,
        subtask_description=plan.description if plan is not None else None,
        subtask_agent=agent,
        subtask_metadata=plan.metadata if plan is not None else None,
        explicit_base=_explicit_base(messages, base),
        agent=_text(said.get("agent")) or agent,
        agent_reason=_text(said.get("agent_reason")),
        size_bytes=path.size,
        at_ms=int(time.time() * 1000),
        token=(base.token if base is not None else "") or token_hex(8),
        base=base,
        alone=request_commit(path, address, headers, body) if base is not None else None,
    )


def named_subtask(headers: Mapping[str, str], body: Mapping[str, Any]) -> Plan | None:
    """The subtask that the client names: body `metadata.subtask_id` or `metadata.subtask`, or a header."""
    said = _mapping(body.get("metadata"))
    task = _mapping(said.get("subtask"))
    subtask_id = _text(said.get("subtask_id")) or _text(task.get("id")) or _text(headers.get("x-subtask-id"))
    if subtask_id is None:
        return None
    needs, more = task.get("depends_on"), _mapping(task.get("metadata"))
    depends_on = [text for text in map(_text, needs if isinstance(needs, list) else ()) if text is not None]
    return Plan(
        subtask_id,
        description=_text(task.get("description")),
        agent=_text(task.get("agent")),
        depends_on=tuple(dict.fromkeys(depends_on))[:MAX_DEPENDENCIES],
        metadata=_kept(more),
    )


def reply_commit(asked: Commit, path: Path, reply: Path, complete: bool, under: Sequence[str] = ()) -> Commit:
    """The request's path with its reply on it. Keeps the request's token, so that both find one session.
    `under`: what a later request may find the reply by (identity.kept_under)."""
    ids = [*asked.ids, *_chain(asked.tip, reply.messages)]
    roles = [*asked.roles, *(message.role for message in reply.messages)]
    last = reply.messages[-1]
    made = replace(
        asked,
        ids=ids,
        bodies=Bodies(path, path.lead if asked.base is None else 0, reply),
        roles=roles,
        first_reply=asked.first_reply or _first_reply(ids, roles),
        kind="reply",
        closes=complete and last.role == ASSISTANT and not any(message.calls for message in reply.messages),
        incomplete=not complete,
        size_bytes=asked.size_bytes + reply.size,
        at_ms=int(time.time() * 1000),
        alone=reply_commit(asked.alone, path, reply, complete, under) if asked.alone is not None else None,
    )
    return replace(made, kept=tuple((found_by, _end(made)) for found_by in under)) if under else made


def _end(commit: Commit) -> Base:
    """Where a later request goes on from."""
    before = commit.base.lead_count if commit.base is not None else 0
    return Base(
        node=commit.tip,
        depth=commit.depth,
        concluded=commit.closes,
        first_reply=commit.first_reply,
        lead_count=list_length(commit.lead.body) if commit.lead is not None else before,
        address=commit.address,
        token=commit.token,
    )


def _chain(parent: str, messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        parent = node_id(parent, message)
        yield parent


def _kept(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Nothing where it is too large, or cannot be JSON in UTF-8."""
    try:
        return metadata if len(orjson.dumps(metadata)) <= MAX_METADATA_BYTES else {}
    except TypeError:
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value[:_TEXT_LIMIT] if isinstance(value, str) and value.strip() else None


def _lead(path: Path, body: Mapping[str, Any], lead: int) -> Lead | None:
    entries = lead_entries(path, body)
    entries = entries[: len(entries) - path.lead + lead]
    if not entries:
        return None
    stored = b"[%s]" % b",".join(entries)
    return Lead(sha256(stored).hexdigest()[:32], stored)


def _first_reply(ids: Sequence[str], roles: Sequence[str]) -> str | None:
    asked = False
    for node, role in zip(ids, roles, strict=True):
        if role == USER:
            asked = True
        elif role == ASSISTANT and asked:
            return node
    return None


def _answered(path: Path, message: Message) -> Message:
    """The message as it is read behind the call that it answers: without that in sight a result is sealed."""
    if message.role == OTHER and message.sealed:
        call_id = path.wire[message.source[1] - 1].get("call_id")
        if isinstance(call_id, str):
            return message._replace(role=TOOL, answers=call_id)
    return message


def _subtask_start(messages: Sequence[Message], base: Base | None) -> int:
    start = running_start(messages)
    if base is None or start:
        return start
    asked = next((message.role for message in messages if message.role != SYSTEM), None)
    return 0 if base.concluded and asked == USER else -1


def _explicit_base(messages: Sequence[Message], base: Base | None) -> int:
    """Behind how many messages a subtask that the client names now would begin: before what the user said
    after the newest assistant message, which may be the base."""
    newest = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == ASSISTANT), -1)
    if newest < 0 and base is None:
        return 0
    after = newest + 1
    while after < len(messages) and messages[after].role not in (USER, SYSTEM):
        after += 1
    return after
