"""Commits that wait for the store, and records of requests that wait for their commit: bounded in bytes and number.

Since a commit holds its whole path, one that goes on from another stands for it too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from proxy_plugin.sessions.requests import Request, Stored
from proxy_plugin.sessions.tree import Commit

_OVERHEAD_BYTES = 1_000


class Backlog:
    """Commits that wait for the store, oldest first; a newer one of the same path takes in the older."""

    def __init__(self, limit_bytes: int, limit_count: int) -> None:
        self._limit_bytes = limit_bytes
        self._limit_count = limit_count
        self._bytes = 0
        self._commits: OrderedDict[int, Commit] = OrderedDict()
        self._of_tag: dict[str, list[Commit]] = {}

    def __len__(self) -> int:
        return len(self._commits)

    def add(self, commit: Commit) -> None:
        for other in tuple(self._of_tag.get(commit.address.tag, ())):
            if _extends(other, commit):
                return
            if _extends(commit, other):
                commit = _merged(other, commit)
                self.remove(other)
        if cost(commit) > self._limit_bytes:
            return
        self._commits[id(commit)] = commit
        self._of_tag.setdefault(commit.address.tag, []).append(commit)
        self._bytes += cost(commit)
        while self._bytes > self._limit_bytes or len(self._commits) > self._limit_count:
            self.remove(next(iter(self._commits.values())))

    def oldest(self) -> Commit | None:
        return next(iter(self._commits.values()), None)

    def remove(self, commit: Commit) -> None:
        """No error where a newer one has taken its place."""
        if self._commits.pop(id(commit), None) is None:
            return
        self._bytes -= cost(commit)
        same_tag = self._of_tag[commit.address.tag]
        same_tag[:] = [other for other in same_tag if other is not commit]
        if not same_tag:
            del self._of_tag[commit.address.tag]


class Unnoted:
    """Records of requests whose commit is not known to be stored, oldest first. Bounded: the oldest are left out."""

    def __init__(self, limit_bytes: int, limit_count: int) -> None:
        self._limit_bytes = limit_bytes
        self._limit_count = limit_count
        self._bytes = 0
        self._waiting: OrderedDict[int, tuple[Commit, Callable[[Stored], Request]]] = OrderedDict()

    def add(self, commit: Commit, make: Callable[[Stored], Request]) -> None:
        self._waiting[id(commit)] = commit, make
        self._bytes += cost(commit)
        while self._waiting and (self._bytes > self._limit_bytes or len(self._waiting) > self._limit_count):
            self._remove(next(iter(self._waiting)))

    def stored_with(self, commit: Commit) -> list[tuple[Commit, Callable[[Stored], Request]]]:
        """Takes out those whose path is stored when this commit is."""
        found = [place for place, (older, _) in self._waiting.items() if older is commit or _extends(commit, older)]
        return [self._remove(place) for place in found]

    def _remove(self, place: int) -> tuple[Commit, Callable[[Stored], Request]]:
        waiting = self._waiting.pop(place)
        self._bytes -= cost(waiting[0])
        return waiting


def cost(commit: Commit) -> int:
    """Bytes of memory that a commit holds, about."""
    # Each text is held as the client's object and as JSON; the rest is what each message is besides.
    return 2 * commit.size_bytes + _OVERHEAD_BYTES * (1 + len(commit.ids))


def _extends(newer: Commit, older: Commit) -> bool:
    """Whether `newer` holds everything that `older` does: an id names its whole path."""
    if not older.ids or len(newer.ids) < len(older.ids) or newer.ids[len(older.ids) - 1] != older.ids[-1]:
        return False
    if (newer.address.tenant, newer.address.tag) != (older.address.tenant, older.address.tag):
        return False
    if newer.address.session_id != older.address.session_id:
        return False
    # Two conversations that only begin alike are two sessions until their first reply tells them apart.
    return not older.address.implicit or newer.token == older.token or older.first_reply is not None


def _merged(older: Commit, newer: Commit) -> Commit:
    """The newer one, counted as the request that the older one was, and found by what that was found by."""
    kind = "request" if older.kind == "request" else newer.kind
    alone = _merged(older.alone, newer.alone) if older.alone and newer.alone else newer.alone
    return replace(newer, kind=kind, alone=alone, kept=(*older.kept, *newer.kept))
