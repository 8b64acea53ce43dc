"""What of a commit is stored where no texts are kept (`store.content: structure`): what history/redaction.py leaves
of its messages, and nothing that a client wrote in words about its subtasks and agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from proxy_plugin.history.redaction import STRUCTURE, redacted, redacted_lead
from proxy_plugin.sessions.tree import Commit, Lead

T = TypeVar("T")


class _Made(Sequence[T], Generic[T]):
    """Made of the bodies of a commit, of each only when it is asked for."""

    def __init__(self, bodies: Sequence[bytes], make: Callable[[bytes], T]) -> None:
        self._bodies = bodies
        self._make = make

    def __len__(self) -> int:
        return len(self._bodies)

    def __getitem__(self, index: Any) -> Any:
        found = self._bodies[index]
        return [self._make(body) for body in found] if isinstance(index, slice) else self._make(found)


def without_texts(commit: Commit) -> Commit:
    """The same path with the same ids. What the nodes say of their sizes stays true of the whole messages."""
    lead = commit.lead
    return replace(
        commit,
        bodies=_Made(commit.bodies, redacted),
        sizes=_Made(commit.bodies, len),
        lead=Lead(lead.id, redacted_lead(lead.body)) if lead is not None else None,
        subtask_description=None,
        subtask_metadata=None,
        agent_reason=None,
        alone=without_texts(commit.alone) if commit.alone is not None else None,
    )


def record_without_texts(part: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of a part of the session (SessionKeys) without what was said in words. Where that told how a subtask
    ended it says that it is not kept."""
    kept = {name: None if name in _SAID.get(part, ()) else value for name, value in record.items()}
    if part == "subtasks" and (record.get("text") is not None or record.get("error") is not None):
        kept["content"] = STRUCTURE
    return kept


_SAID: Mapping[str, Sequence[str]] = {
    "subtasks": ("description", "metadata", "text", "error"),
    "agents": ("reason",),
}
