"""The pipeline: read, pair, repair, find subtasks, collapse, render.

Pure and total. What a completed subtask looks like when it leaves depends only on the path up to the
message that completed it, so each rewritten request of a running subtask is a prefix of the next.
With a memo, the part up to the running subtask is taken over from the previous request (`Closed`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from proxy_plugin.history.collapse import collapse
from proxy_plugin.history.dialects import Dialect, IdRule, dialect_of
from proxy_plugin.history.memo import Closed, Memo
from proxy_plugin.history.model import ASSISTANT, SYSTEM, USER, dump
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import Plan, source_of
from proxy_plugin.history.repair import Ids, Repaired, pair, repair
from proxy_plugin.history.report import Report
from proxy_plugin.history.subtasks import NOTHING_SAID, Context, completed, still_completed
from proxy_plugin.history.summary import Stated
from proxy_plugin.history.wire import CODECS
from proxy_plugin.settings import Settings

_DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rewritten history.

    messages   the wire list to send: the input list itself when nothing changed
    report     what was done, in numbers
    plan       the edits, message by message (empty when the input was not understood)
    ids        the tool call ids that the path holds now; names later uses of them
    limited    "" or why less than everything was done: "not_understood", "repair_only", "too_large",
               "internal_error"
    error      class name of the exception behind "internal_error" """

    messages: Any
    report: Report = field(default_factory=Report)
    plan: Plan = field(default_factory=list)
    ids: Ids = field(default_factory=lambda: Ids(IdRule()))
    limited: str = ""
    error: str = ""


def rewrite_history(
    messages: Any,
    *,
    api: str = "chat",
    provider: str = "openai",
    settings: Settings | None = None,
    context: Context | None = None,
    memo: Any = None,
) -> Rewrite:
    """Rewrites one history for one provider; never raises and never changes its input.

    messages  the wire list of `api` ("chat"); anything else than a list of objects comes back as it came
    provider  as LiteLLM names it; an unknown one gets the rules that hold everywhere
    settings  None: the built-in defaults, no file and no environment
    context   where the client's own subtasks end, and whether the list continues a stored response
    memo      a plain dict kept per conversation; answers with and without it are identical
    """
    context = context or NOTHING_SAID
    path = read(messages, api, memo, continued=context.continued)
    if path is None:
        return Rewrite(messages, limited="not_understood")
    return rewrite(path, dialect_of(provider, api), settings or _DEFAULTS, context, memo)


def read(messages: Any, api: str, memo: Any = None, *, continued: bool = False) -> Path | None:
    """Parses a wire list; None if it is no non-empty list of objects, or the API has no codec."""
    if type(messages) is not list or not messages or api not in CODECS:
        return None
    if set(map(type, messages)) != {dict} and not all(isinstance(item, dict) for item in messages):
        return None
    try:
        return Path(messages, api, Memo.of(memo), continued=continued)
    except Exception:
        return None


def rewrite(path: Path, dialect: Dialect, settings: Settings, context: Context, memo: Any = None) -> Rewrite:
    """The same for a path that is read already; never raises."""
    holder = Memo.of(memo)
    try:
        return _rewrite(path, dialect, settings, context, holder)
    except Exception as error:  # the boundary: whatever is wrong here must not stop a request
        if holder is not None:
            holder.forget()
        size = Report(bytes_before=path.size, bytes_after=path.size)
        return Rewrite(path.wire, size, limited="internal_error", error=type(error).__name__)


def _rewrite(path: Path, dialect: Dialect, settings: Settings, context: Context, memo: Memo | None) -> Rewrite:
    limits = settings.limits
    if len(path.messages) > limits.repair_max_messages or path.size > limits.repair_max_bytes:
        return Rewrite(path.wire, Report(bytes_before=path.size, bytes_after=path.size), limited="too_large")
    mended, repairs = path.codec.mend(path.wire)
    if mended is not path.wire:
        return _rewrite_mended(path, mended, repairs, dialect, settings, context, memo)
    whole = len(path.messages) <= limits.max_messages and path.size <= limits.max_bytes
    collapsing = whole and settings.collapse.policy == "always" and not path.continued
    role = _summary_role(dialect, settings) if collapsing else None
    ended = _positions(path, context)

    closed = memo.closed if memo is not None and path.settled else None
    if closed is not None and closed.key != _key(dialect, role, ended, closed.start):
        closed = None
    if closed is not None and not still_completed(path.messages, closed.start, ended):
        closed = None
    result = _from(path, closed, dialect, role, ended) if closed is not None else None
    if result is None:
        beginning = Closed(_key(dialect, role, ended, 0), 0, 0, Ids(dialect.ids), Stated(), [], Counter())
        result = _from(path, beginning, dialect, role, ended)
        assert result is not None
    plan, counts, ids, closed = result
    if memo is not None:
        memo.closed = closed
        path.remember(memo)
    untouched = plan == list(range(len(path.messages)))
    out = path.wire if untouched else path.codec.render(path.wire, path.messages, plan)
    report = Report(**counts, bytes_before=path.size, bytes_after=path.size if untouched else _size(path, out))
    return Rewrite(out, report, plan, ids, "" if whole else "repair_only")


def _rewrite_mended(
    path: Path,
    mended: list[Any],
    repairs: dict[str, int],
    dialect: Dialect,
    settings: Settings,
    context: Context,
    memo: Memo | None,
) -> Rewrite:
    """The rewriting of a list whose items' own ids had to be changed first. The memo stays that of the
    client's list, and saves less."""
    result = _rewrite(Path(mended, path.api, None, continued=path.continued), dialect, settings, context, None)
    if memo is not None:
        memo.closed = None
        path.remember(memo)
    counts = {name: getattr(result.report, name) + number for name, number in repairs.items()}
    return replace(result, report=replace(result.report, bytes_before=path.size, **counts))


def _summary_role(dialect: Dialect, settings: Settings) -> str:
    chosen = settings.collapse.summary_role
    if chosen == "system" and not dialect.system_role:
        return USER
    if chosen == "auto":
        return SYSTEM if dialect.system_anywhere else USER
    return {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}[chosen]


def _positions(path: Path, context: Context) -> frozenset[int]:
    """Indices of the messages behind which the client closed a subtask."""
    if not context.ends:
        return frozenset()
    return frozenset(index for index, node in enumerate(path.node_ids) if node in context.ends)


def _key(dialect: Dialect, role: str | None, ended: frozenset[int], start: int) -> Any:
    return dialect, role, frozenset(index for index in ended if index < start)


def _from(
    path: Path, closed: Closed, dialect: Dialect, role: str | None, ended: frozenset[int]
) -> tuple[Plan, Counter[str], Ids, Closed] | None:
    """Rewrites what follows the closed part; None if something there reaches back into it."""
    pairing = pair(path.messages, closed.start)
    if pairing.orphans and closed.start:
        return None  # it may answer a call of the closed part
    ids = closed.ids.fork()
    repaired = repair(path.messages, closed.start, pairing, dialect, ids)
    positions = {source_of(step): at for at, step in enumerate(repaired.plan)} if ended else {}
    ends = completed(repaired.messages, {positions[index] for index in ended if index in positions})
    if path.taken > closed.start and (pairing.orphans or ends):
        path.parse_again(closed.start, closed.wire_start)  # contents will be looked at
        return _from(path, closed, dialect, role, ended)

    stated = closed.stated.copy()
    plan, counts = list(closed.plan), closed.counts.copy()
    begin = 0
    for end in ends:
        part = repaired.plan[begin:end]
        if role is not None:
            done = collapse(path, repaired.messages[begin:end], part, role, stated)
            counts["subtasks_collapsed"] += done.rounds > 0
            counts["tool_messages_cleared"] += done.results
            part = done.plan
        plan += part
        begin = end
    now_closed = closed
    settled = _settled(path, closed, repaired, begin) if begin and not pairing.orphans else None
    if settled is not None and dialect.late_results and pairing.reach_across(settled[0]):
        settled = None
    if settled is not None:
        start, wire_start = settled
        for index, old, new in repaired.assigned:
            if index < start:
                closed.ids.keep(old, new)
        until = counts + Counter(kind for position, kind in repaired.repairs if position < begin)
        key = _key(dialect, role, ended, start)
        now_closed = Closed(key, start, wire_start, closed.ids, stated, list(plan), until)
    counts.update(kind for _, kind in repaired.repairs)
    return plan + repaired.plan[begin:], counts, ids, now_closed


def _settled(path: Path, closed: Closed, repaired: Repaired, end: int) -> tuple[int, int] | None:
    """Where the input's running subtask begins (message, wire item), if nothing was moved across."""
    sources = [source_of(step) for step in repaired.plan[:end]]
    taken = [source for source in sources if source is not None]
    start = closed.start + len(taken)
    wire_start = path.wire_start(start)
    if wire_start is None or max(taken, default=-1) != start - 1:
        return None
    return start, wire_start


def _size(path: Path, out: list[Any]) -> int:
    sizes = path.sizes
    total = sum([sizes.get(id(item)) or len(dump(item)) for item in out])
    return total + max(len(out) - 1, 0) + 2
