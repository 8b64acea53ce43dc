"""Replies that call tools wait a moment for their session's next request, which holds them too.

An agent whose tools are quick sends its next request within milliseconds, and that request carries the
reply: one commit stores both. Where none comes the reply is stored by itself. So a reply costs its client
no waiting, and a kill within that moment loses it only until the client's next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proxy_plugin.sessions.tree import Commit

DELAY_SECONDS = 0.1


class DeferredReplies:
    """`write` stores one commit; it is called in a task of its own and must not raise."""

    def __init__(self, write: Callable[[Commit], Awaitable[object]]) -> None:
        self._write = write
        self._waiting: dict[str, list[Commit]] = {}  # by hash tag of the session
        self._tasks: set[asyncio.Task[object]] = set()
        self.size_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values())) + len(self._tasks)

    def add(self, commit: Commit) -> None:
        self._waiting.setdefault(commit.address.tag, []).append(commit)
        self.size_bytes += commit.size_bytes
        asyncio.get_running_loop().call_later(DELAY_SECONDS, self._due, commit)

    def taken_in(self, request: Commit) -> None:
        """Forgets the replies that stand on the path of this request."""
        for reply in tuple(self._waiting.get(request.address.tag, ())):
            place = len(reply.ids) - 1
            if len(request.ids) > place and request.ids[place] == reply.ids[place]:
                self._remove(reply)

    async def flush(self, tag: str | None = None) -> None:
        """Stores those that wait at once: all, or those of sessions with this hash tag."""
        for reply in [reply for at, replies in self._waiting.items() for reply in replies if tag in (None, at)]:
            self._due(reply)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _due(self, commit: Commit) -> None:
        if self._remove(commit):
            task = asyncio.ensure_future(self._write(commit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _remove(self, commit: Commit) -> bool:
        replies = self._waiting.get(commit.address.tag, [])
        kept = [other for other in replies if other is not commit]
        if len(kept) == len(replies):
            return False
        self.size_bytes -= commit.size_bytes
        if kept:
            self._waiting[commit.address.tag] = kept
        else:
            del self._waiting[commit.address.tag]
        return True
