"""The way of one request, without LiteLLM: read, find the session, store, rewrite; then the reply.

`Pipeline.before` turns a request into a `Turn`; `Pipeline.after` stores the reply that came of it. Only the
store is waited for, and never longer than its deadline.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from proxy_plugin.events import Emit, PassedThrough, RequestHandled
from proxy_plugin.gateway.safety import Refusals
from proxy_plugin.history.dialects import Dialect
from proxy_plugin.history.model import ASSISTANT, ROOT, SYSTEM, USER, Message, dump, meaning, node_id
from proxy_plugin.history.path import Memo, Path
from proxy_plugin.history.report import Report
from proxy_plugin.history.rewrite import Rewrite, read, rewrite
from proxy_plugin.history.subtasks import Context, running_start
from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions.identity import Address, find_session
from proxy_plugin.sessions.tree import Commit, Committed, Lead
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Settings

_MEMO_BYTES = 64_000_000  # histories a worker remembers, in bytes of their JSON
_MARKED_SESSIONS = 10_000  # sessions whose client-set subtasks a worker remembers
_TEXT_LIMIT = 1_000  # characters of a client's subtask id, description or agent that are kept


@dataclass(frozen=True, slots=True)
class Incoming:
    """One client request as the gateway hands it over. `wire` is the client's list and is not changed."""

    api: str
    wire: Any
    headers: Mapping[str, str]  # lower-case names; no credentials
    body: Mapping[str, Any]
    tenant: str
    dialect: Dialect
    mode: str  # "enforce" or "audit"


@dataclass(slots=True)
class Work:
    """What a request leaves for its reply."""

    path: Path
    commit: Commit
    rewrite: Rewrite
    session_id: str
    known: bool  # the store has said which session it is


@dataclass(slots=True)
class Turn:
    """One request on its way. `work` is given up once the reply is stored: LiteLLM keeps what a turn hangs on
    for much longer, and a history that outlives its request is work for every garbage collection.

    subtask  node id before the running subtask: names it while the session runs
    headers  the response headers; in audit mode they say what would have been done"""

    messages: Any  # what to send on
    headers: Mapping[str, str]
    tag: str
    subtask: str
    enforced: bool
    collapsed: bool
    work: Work | None

    @property
    def done(self) -> bool:
        return self.work is None


def _headers(session_id: str, report: Report) -> dict[str, str]:
    return {
        "x-proxy-plugin-session": session_id,
        "x-proxy-plugin-collapsed": str(report.subtasks_collapsed),
        "x-proxy-plugin-repaired": str(report.repaired),
        "x-proxy-plugin-bytes": f"{report.bytes_before},{report.bytes_after}",
    }


class _Bodies(Sequence[bytes]):
    """What the store keeps of each node, made only for the nodes that are written."""

    def __init__(self, path: Path, reply: bytes | None = None) -> None:
        self._path = path
        self._own = len(path.messages) - path.lead
        self._reply = reply

    def __len__(self) -> int:
        return self._own + (self._reply is not None)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if index < self._own:
            return _body(self._path.api, self._path.dumps[self._path.messages[self._path.lead + index].source])
        if index == self._own and self._reply is not None:
            return _body(self._path.api, self._reply)
        raise IndexError(index)

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))


def _body(api: str, wire: bytes) -> bytes:
    return b'{"api":"%s","wire":%s}' % (api.encode(), wire)


class Pipeline:
    """One per worker. `store` None: nothing is kept, everything else works."""

    def __init__(self, settings: Settings, store: GuardedStore | None, emit: Emit) -> None:
        self._settings = settings
        self._repair_only = replace(settings, collapse=replace(settings.collapse, policy="never"))
        self._store = store
        self._emit = emit
        self._memos = _Memos(_MEMO_BYTES)
        self._marks: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._refusals = Refusals()

    async def before(self, incoming: Incoming) -> Turn | None:
        """Stores the request and rewrites it; None where there is nothing that could be handled."""
        started = time.perf_counter()
        opening = _opening(incoming)
        address = find_session(incoming.headers, incoming.body, incoming.tenant, opening)
        memo = self._memos.take(address.tag)
        path = read(incoming.wire, incoming.api, memo)
        if path is None:
            pass_whole(self._emit, incoming.api, incoming.wire, "not_understood")
            return None
        commit = _request_commit(path, address, incoming)
        spent = time.perf_counter() - started

        committed = await self._commit(commit)
        started = time.perf_counter()
        marks = self._known_marks(address, commit, committed)
        subtask = commit.ids[commit.subtask_start - 1] if commit.subtask_start else ROOT
        careful = self._refusals.tripped(address.tag, subtask)
        if careful:
            self._emit(PassedThrough("safety_fallback"))
        settings = self._repair_only if careful else self._settings
        result = rewrite(path, incoming.dialect, settings, Context(frozenset(marks)), memo)
        self._memos.put(address.tag, memo)
        if result.limited:
            self._emit(PassedThrough(result.limited))
        enforced = incoming.mode == "enforce"
        changed = result.messages is not path.wire
        outcome = ("rewritten" if changed else "unchanged") if enforced else "audited"
        seconds = spent + time.perf_counter() - started
        self._emit(RequestHandled(incoming.api, outcome, result.report, seconds))
        session_id = (committed.session_id if committed else address.session_id) or f"{address.tag}.0"
        return Turn(
            messages=result.messages if enforced else incoming.wire,
            headers=_headers(session_id, result.report),
            tag=address.tag,
            subtask=subtask,
            enforced=enforced,
            collapsed=result.report.subtasks_collapsed > 0,
            work=Work(path, commit, result, session_id, committed is not None),
        )

    async def _commit(self, commit: Commit) -> Committed | None:
        return await self._store.commit(commit) if self._store is not None else None

    def _known_marks(self, address: Address, commit: Commit, committed: Committed | None) -> tuple[str, ...]:
        """Where the client's own subtasks end: from the store, else from what this worker remembers."""
        known = self._marks.pop(address.tag, ())
        if committed is not None:
            known = committed.marks
        elif commit.subtask_id is not None and not known:
            self._emit(PassedThrough("context_missing"))
        if known:
            self._marks[address.tag] = known
            if len(self._marks) > _MARKED_SESSIONS:
                self._marks.popitem(last=False)
        return known

    def name_of(self, turn: Turn, call_id: str) -> str:
        """The id under which the client shall see a call of the reply: another one if the path holds it."""
        return turn.work.rewrite.ids.name_new(call_id) if turn.enforced and turn.work is not None else call_id

    async def after(self, turn: Turn, reply: Mapping[str, Any] | None, *, complete: bool) -> None:
        """Stores the reply (the wire message as the client saw it; None: there was none worth keeping)."""
        work, turn.work, turn.messages = turn.work, None, None
        if work is None:
            return
        self._refusals.accepted(turn.tag, turn.subtask)
        if reply is not None and self._store is not None:
            message = CODECS[work.path.api].parse([reply], 0)[0]
            await self._store.commit_reply(_reply_commit(work, message, dump(reply), complete))

    def failed(self, turn: Turn, *, refused: bool) -> None:
        """The call failed for good; `refused`: the provider took the request as malformed."""
        turn.work = turn.messages = None
        if refused and turn.enforced and turn.collapsed:
            self._refusals.refused(turn.tag, turn.subtask)


def pass_whole(emit: Emit, api: str, wire: Any, reason: str) -> None:
    """A request that passes as it came."""
    size = len(dump(wire))
    emit(PassedThrough(reason))
    emit(RequestHandled(api, "passed", Report(bytes_before=size, bytes_after=size), 0.0))


class _Memos:
    """Least recently used memos of a worker, bounded in bytes of the histories they hold."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._held: OrderedDict[str, tuple[Memo, int]] = OrderedDict()

    def take(self, key: str) -> Memo:
        """The memo of a conversation, out of the cache while it is used: two requests never share one."""
        memo, size = self._held.pop(key, (None, 0))
        self._total -= size
        return memo or Memo()

    def put(self, key: str, memo: Memo) -> None:
        _, before = self._held.pop(key, (None, 0))
        size = memo.size_bytes
        self._held[key] = memo, size
        self._total += size - before
        while self._total > self._limit:
            _, (_, dropped) = self._held.popitem(last=False)
            self._total -= dropped


def _opening(incoming: Incoming) -> str | None:
    """Meaning of the first user message, by which a conversation without an id is found."""
    codec = CODECS.get(incoming.api)
    if codec is None or not isinstance(incoming.wire, list):
        return None
    for item in incoming.wire:
        if isinstance(item, dict) and item.get("role") == "user":
            return meaning(codec.parse([item], 0)[0]).decode("utf-8", "surrogatepass")
    return None


def _text(value: Any) -> str | None:
    return value[:_TEXT_LIMIT] if isinstance(value, str) and value.strip() else None


def _request_commit(path: Path, address: Address, incoming: Incoming) -> Commit:
    messages, lead = path.messages[path.lead :], path.lead
    metadata = incoming.body.get("metadata")
    said: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    subtask = said.get("subtask")
    task: Mapping[str, Any] = subtask if isinstance(subtask, Mapping) else {}
    subtask_id = _text(said.get("subtask_id")) or _text(task.get("id")) or _text(incoming.headers.get("x-subtask-id"))
    return Commit(
        address=address,
        ids=path.node_ids[lead:],
        bodies=_Bodies(path),
        roles=[message.role for message in messages],
        first_reply=_first_reply(path),
        lead=_lead(path),
        kind="request",
        subtask_start=max(running_start(path.messages) - lead, 0),
        closes=False,
        subtask_id=subtask_id,
        subtask_description=_text(task.get("description")),
        subtask_agent=_text(task.get("agent")),
        explicit_base=_explicit_base(messages),
        agent=_text(said.get("agent")) or _text(task.get("agent")),
        agent_reason=_text(said.get("agent_reason")),
        incomplete=False,
        size_bytes=path.size,
        at_ms=int(time.time() * 1000),
    )


def _reply_commit(work: Work, message: Message, wire: bytes, complete: bool) -> Commit:
    asked = work.commit
    reply = node_id(asked.tip, message)
    return replace(
        asked,
        address=replace(asked.address, session_id=work.session_id) if work.known else asked.address,
        ids=[*asked.ids, reply],
        bodies=_Bodies(work.path, wire),
        roles=[*asked.roles, ASSISTANT],
        first_reply=asked.first_reply or reply,
        kind="reply",
        closes=complete and not message.calls,
        incomplete=not complete,
        size_bytes=asked.size_bytes + len(wire) + 1,
        at_ms=int(time.time() * 1000),
    )


def _lead(path: Path) -> Lead | None:
    if not path.lead:
        return None
    body = b"[%s]" % b",".join(path.dumps[: path.lead])
    return Lead(sha256(body).hexdigest()[:32], body)


def _first_reply(path: Path) -> str | None:
    asked = False
    for index, message in enumerate(path.messages):
        if message.role is USER:
            asked = True
        elif message.role is ASSISTANT and asked:
            return path.node_ids[index]
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
