"""From a request's path, and its reply, to what the store keeps of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from proxy_plugin.history.model import ASSISTANT, ROOT, SYSTEM, USER, Message, node_id
from proxy_plugin.history.path import Path
from proxy_plugin.history.subtasks import running_start
from proxy_plugin.history.wire.stored import lead_entries, wrap
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.tree import Commit, Lead

_TEXT_LIMIT = 1_000  # characters of a client's subtask id, description or agent that are kept


class Bodies(Sequence[bytes]):
    """What the store keeps of each node, made only for the nodes that are written."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._size = sum(len(path.messages) - path.lead for path in paths)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + self._size if index < 0 else index
        for path in self._paths:
            own = len(path.messages) - path.lead
            if 0 <= place < own:
                return wrap(path.api, path.fragment(path.lead + place))
            place -= own
        raise IndexError(index)

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(self._size))


def request_commit(path: Path, address: Address, headers: Mapping[str, str], body: Mapping[str, Any]) -> Commit:
    """A request as it came."""
    messages, lead = path.messages[path.lead :], path.lead
    metadata = body.get("metadata")
    said: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    subtask = said.get("subtask")
    task: Mapping[str, Any] = subtask if isinstance(subtask, Mapping) else {}
    subtask_id = _text(said.get("subtask_id")) or _text(task.get("id")) or _text(headers.get("x-subtask-id"))
    ids = path.node_ids[lead:]
    roles = [message.role for message in messages]
    return Commit(
        address=address,
        ids=ids,
        bodies=Bodies(path),
        roles=roles,
        first_reply=_first_reply(ids, roles),
        lead=_lead(path, body),
        kind="request",
        subtask_start=max(running_start(path.messages) - lead, 0),
        subtask_id=subtask_id,
        subtask_description=_text(task.get("description")),
        subtask_agent=_text(task.get("agent")),
        explicit_base=_explicit_base(messages),
        agent=_text(said.get("agent")) or _text(task.get("agent")),
        agent_reason=_text(said.get("agent_reason")),
        size_bytes=path.size,
        at_ms=int(time.time() * 1000),
    )


def reply_commit(asked: Commit, path: Path, reply: Path, complete: bool) -> Commit:
    """The request's path with its reply on it. Keeps the request's token, so that both find one session."""
    ids = [*asked.ids, *_chain(asked.tip, reply.messages)]
    roles = [*asked.roles, *(message.role for message in reply.messages)]
    last = reply.messages[-1]
    return replace(
        asked,
        ids=ids,
        bodies=Bodies(path, reply),
        roles=roles,
        first_reply=asked.first_reply or _first_reply(ids, roles),
        kind="reply",
        closes=complete and last.role is ASSISTANT and not any(message.calls for message in reply.messages),
        incomplete=not complete,
        size_bytes=asked.size_bytes + reply.size,
        at_ms=int(time.time() * 1000),
    )


def _chain(parent: str, messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        parent = node_id(parent, message)
        yield parent


def _text(value: Any) -> str | None:
    return value[:_TEXT_LIMIT] if isinstance(value, str) and value.strip() else None


def _lead(path: Path, body: Mapping[str, Any]) -> Lead | None:
    entries = lead_entries(path, body)
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


def _explicit_base(messages: Sequence[Message]) -> int:
    """Behind how many messages a subtask that the client names now would begin: before what the user said
    after the newest assistant message."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role is ASSISTANT:
            after = index + 1
            while after < len(messages) and messages[after].role not in (USER, SYSTEM):
                after += 1
            return after
    return 0


def parent_of(commit: Commit, index: int) -> str:
    """Id of the node before the one at `index`, ROOT for the first."""
    return commit.ids[index - 1] if index else ROOT
