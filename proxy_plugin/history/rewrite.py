"""The pipeline: read, pair, repair, find subtasks, decide what collapses, render.

Pure and total. What a completed subtask looks like when it leaves depends only on the path up to the
message behind which that was decided (`ledger`), so each rewritten request of a running subtask is a prefix
of the next. With a memo, what is decided is taken over from the previous request (`Closed`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from proxy_plugin.history.dialects import Dialect, IdRule, dialect_of
from proxy_plugin.history.ledger import SUBTASK, Decided, Ledger, Rules, StaleContents, decide, lead_tokens
from proxy_plugin.history.memo import Closed, Memo
from proxy_plugin.history.model import ASSISTANT, SYSTEM, USER
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import Plan, source_of
from proxy_plugin.history.repair import Ids, Pairing, Repaired, pair, repair
from proxy_plugin.history.report import Report
from proxy_plugin.history.reset import NOTHING, Shortened, go_on, shorten
from proxy_plugin.history.subtasks import NOTHING_SAID, Context, completed, still_completed
from proxy_plugin.history.wire import CODECS
from proxy_plugin.settings import Reset, Settings

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
    error      class name of the exception behind "internal_error"
    dumps      orjson bytes of each message, where they were worked out"""

    messages: Any
    report: Report = field(default_factory=Report)
    plan: Plan = field(default_factory=list)
    ids: Ids = field(default_factory=lambda: Ids(IdRule()))
    limited: str = ""
    error: str = ""
    dumps: Sequence[bytes] | None = None


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
    collapsing = whole and settings.collapse.policy != "never" and not path.continued
    role = _summary_role(dialect, settings) if collapsing else None
    reset = Reset() if path.continued else settings.reset
    rules = Rules(role, settings.collapse, settings.running, reset, refers=settings.store.content == "full")
    said = _Said(_positions(path, context.ends), _positions(path, context.resets))

    closed = memo.closed if memo is not None else None
    done = None
    if closed is not None and _holds(closed, path, _key(dialect, rules, said, closed.until), said):
        done = _from(path, closed, dialect, rules, said)
    if done is None:
        done = _from(path, _beginning(path, dialect, rules, said), dialect, rules, said)
        assert done is not None
    if memo is not None:
        memo.closed = done.closed
        path.remember(memo)
    untouched = done.plan == list(range(len(path.messages)))
    out = path.wire if untouched else path.codec.render(path.wire, path.messages, done.plan)
    dumps = path.dumps if untouched else path.dumped(out)
    report = Report(
        **done.counts,
        bytes_before=path.size,
        bytes_after=path.size if untouched else sum(map(len, dumps)) + max(len(dumps) - 1, 0) + 2,
        prefix_break=done.broke,
        resets=done.resets,
    )
    return Rewrite(out, report, done.plan, done.ids, "" if whole else "repair_only", dumps=dumps)


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


class _Said(NamedTuple):
    """What the client, or the store, said of messages: by their indices."""

    ended: frozenset[int]  # behind which the client closed a subtask
    reset: frozenset[int]  # at which the conversation was reset for its age

    def before(self, until: int) -> Any:
        """What hangs on the messages up to there; a reset also on the one that it happens at."""
        ended = frozenset(index for index in self.ended if index < until)
        return ended, frozenset(index for index in self.reset if index <= until)


def _positions(path: Path, nodes: frozenset[str]) -> frozenset[int]:
    """Indices of the messages that are these nodes."""
    if not nodes:
        return frozenset()
    return frozenset(index for index, node in enumerate(path.node_ids) if node in nodes)


def _key(dialect: Dialect, rules: Rules, said: _Said, until: int) -> Any:
    return dialect, rules, said.before(until)


def _beginning(path: Path, dialect: Dialect, rules: Rules, said: _Said) -> Closed:
    """Of a path of which nothing is known."""
    ledger = Ledger(tokens=lead_tokens(path) if rules.count_tokens else 0)
    return Closed(_key(dialect, rules, said, 0), 0, 0, 0, 0, False, Ids(dialect.ids), ledger, Counter(), NOTHING)


def _holds(closed: Closed, path: Path, key: Any, said: _Said) -> bool:
    """Whether what was decided before was decided for this path."""
    if closed.key != key or closed.start > path.settled or not 0 < closed.wire_until <= path.alike:
        return False
    if closed.until > len(path.messages) or path.wire_start(closed.until) != closed.wire_until:
        return False
    return not closed.subtask or still_completed(path.messages, closed.until, said.ended)


class _Done(NamedTuple):
    plan: Plan
    counts: Counter[str]
    broke: str
    resets: int
    ids: Ids
    closed: Closed


def _from(path: Path, closed: Closed, dialect: Dialect, rules: Rules, said: _Said) -> _Done | None:
    """Rewrites what follows the decided part; None if something there reaches back into it."""
    pairing = pair(path.messages, closed.start)
    if pairing.orphans and closed.start:
        return None  # it may answer a call of the decided part
    if closed.until > closed.start and pairing.reach_across(closed.until):
        return None  # the call had no result yet when something was decided behind it
    ids = closed.ids.fork()
    whole = repair(path.messages, closed.start, pairing, dialect, ids)
    short: Shortened | None
    if closed.start:
        short = go_on(path, whole, rules.reset, dialect, said.reset, closed.tally)
    else:
        short = shorten(path, whole, rules.reset, dialect, said.reset)
    if short is None:
        return None  # of what was decided not all may leave any more
    repaired = short.repaired
    positions = {source_of(step): at for at, step in enumerate(repaired.plan)} if said.ended else {}
    ends = completed(repaired.messages, {positions[index] for index in said.ended if index in positions})
    stale = path.taken > closed.start
    try:
        if stale and pairing.orphans:
            raise StaleContents
        decided = decide(path, repaired, ends, rules, closed.ledger, _seen(repaired, closed), stale=stale)
    except StaleContents:
        path.parse_again(closed.start, closed.wire_start)
        return _from(path, closed, dialect, rules, said)

    ledger = decided.ledger
    plan = ledger.plan + [step for part in ledger.pending for step in part.verbatim] + repaired.plan[decided.start :]
    counts = closed.repairs + Counter([kind for _, kind in repaired.repairs]) + ledger.counts
    broke = ledger.broke[1] if ledger.broke[0] == decided.replies else ""
    if short.begins and not any(message.role == ASSISTANT for message in whole.messages[short.opens :]):
        broke = "reset"
    after = None
    if decided.last is not None and not pairing.orphans:
        after = _closed_after(path, closed, pairing, whole, short, decided, dialect, rules, said)
    return _Done(plan, counts, broke, short.before.resets, ids, after or closed)


def _seen(repaired: Repaired, closed: Closed) -> int:
    """On how many of the repaired messages the decided part hangs."""
    if closed.until == closed.start:
        return 0
    behind = (at for at, step in enumerate(repaired.plan) if (source_of(step) or 0) >= closed.until)
    return next(behind, len(repaired.plan))


def _closed_after(
    path: Path,
    closed: Closed,
    pairing: Pairing,
    whole: Repaired,
    short: Shortened,
    decided: Decided,
    dialect: Dialect,
    rules: Rules,
    said: _Said,
) -> Closed | None:
    """What the next request can take over; None if something was moved across a border of it, or the newest
    reset hangs on what is behind that."""
    assert decided.last is not None
    decided_until, last_until = short.whole(decided.start), short.whole(decided.last.until)
    if decided_until is None or last_until is None or decided_until < short.opens:
        return None
    begin, end = _settled(path, closed, whole, decided_until), _settled(path, closed, whole, last_until)
    if begin is None or end is None:
        return None
    start, wire_start = begin
    if dialect.late_results and pairing.reach_across(start):
        return None
    for index, old, new in whole.assigned:
        if index < start:
            closed.ids.keep(old, new)
    leaving = short.repaired.repairs
    repairs = closed.repairs + Counter([kind for position, kind in leaving if position < decided_until])
    key, subtask = _key(dialect, rules, said, end[0]), decided.last.cause == SUBTASK
    tally = short.tally(decided_until)
    return Closed(key, start, wire_start, *end, subtask, closed.ids, decided.ledger, repairs, tally)


def _settled(path: Path, closed: Closed, repaired: Repaired, end: int) -> tuple[int, int] | None:
    """The place (message, wire item) in the input that lies at a place of the repaired part, if nothing was
    moved across."""
    if not end:
        return closed.start, closed.wire_start
    taken = [source for step in repaired.plan[:end] if (source := source_of(step)) is not None]
    start = closed.start + len(taken)
    wire_start = path.wire_start(start)
    if wire_start is None or max(taken, default=-1) != start - 1:
        return None
    return start, wire_start
