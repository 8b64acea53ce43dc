"""The way of one request, without LiteLLM: read, find the session, store, rewrite; then the reply.

`Pipeline.before` turns a request into a `Turn`; `Pipeline.after` stores the reply that came of it. Only the
store is waited for, and never longer than its deadline.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from proxy_plugin.events import Emit, HistoryEstimated, PassedThrough, PrefixBroken, Refused, RequestHandled
from proxy_plugin.gateway import resume
from proxy_plugin.gateway.commits import named_subtask, reply_commit, request_commit
from proxy_plugin.gateway.dependents import Placed, place_of, placed
from proxy_plugin.gateway.memos import Memos, Remembered
from proxy_plugin.gateway.recorder import Digests, Handled, noted
from proxy_plugin.gateway.replies import Names
from proxy_plugin.gateway.safety import Refusals
from proxy_plugin.gateway.trail import Followed, Trail, follow
from proxy_plugin.gateway.turn import Incoming, Turn, Work
from proxy_plugin.history.model import USER, dump, meaning
from proxy_plugin.history.path import Path
from proxy_plugin.history.report import Report
from proxy_plugin.history.rewrite import read, rewrite
from proxy_plugin.history.subtasks import NOTHING_SAID, Context
from proxy_plugin.history.wire import CODECS
from proxy_plugin.logs import describe
from proxy_plugin.sessions.identity import Address, find_session, kept_under
from proxy_plugin.sessions.tree import Base, Commit, Committed, History
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Reset, Settings

log = logging.getLogger("proxy_plugin")

RESUMED = "x-proxy-plugin-resumed"
_SAID_SESSIONS = 10_000  # sessions of which a worker remembers where the client's subtasks end, and resets


def _headers(session_id: str, report: Report) -> dict[str, str]:
    return {
        "x-proxy-plugin-session": session_id,
        "x-proxy-plugin-collapsed": str(report.subtasks_collapsed),
        "x-proxy-plugin-repaired": str(report.repaired),
        "x-proxy-plugin-bytes": f"{report.bytes_before},{report.bytes_after}",
    }


class Pipeline:
    """One per worker. `store` None: nothing is kept, everything else works."""

    def __init__(self, settings: Settings, store: GuardedStore | None, emit: Emit) -> None:
        self._settings = settings
        self._store = store
        self._emit = emit
        self._memos = Memos(settings.limits.memo_bytes)
        self._said: OrderedDict[str, Context] = OrderedDict()
        self._refusals = Refusals()

    async def before(self, incoming: Incoming) -> Turn | None:
        """Stores the request and rewrites it; None where there is nothing that could be handled."""
        with ExitStack() as on_failure:
            turn = await self._before(incoming, on_failure)
            on_failure.pop_all()
        return turn

    async def _before(self, incoming: Incoming, on_failure: ExitStack) -> Turn | None:
        began, came = time.perf_counter(), incoming.wire
        wish = incoming.headers.get(resume.HEADER)
        stored = await self._lost(incoming, wish.strip()) if wish else None
        store = self._store_for(incoming)
        base = await _base(store, incoming) if store is not None and incoming.earlier else None
        started = time.perf_counter()
        waited = started - began
        whole = resume.behind(stored, incoming.api, incoming.wire, incoming.body) if stored is not None else None
        if whole is not None:
            incoming = replace(incoming, wire=whole.wire, body={**incoming.body, **whole.fields})
        elif wish:
            self._emit(PassedThrough("resume_unavailable"))
        found = find_session(incoming.headers, incoming.body, incoming.tenant, _opening(incoming))
        memo, trail, digests = self._memos.take(found.tag)
        path = read(incoming.wire, incoming.api, memo, continued=incoming.continued)
        if path is None:
            pass_whole(self._emit, incoming.api, incoming.wire, "not_understood")
            return None
        commit = request_commit(path, found, incoming.headers, incoming.body, base)
        dependent, unknown, awaited, own = None, False, 0.0, path
        if commit.subtask_id is not None and commit.base is None and not incoming.continued:
            dependent, unknown, awaited = await self._dependent(incoming, path, commit, found, waited)
        if dependent is not None:
            path, commit = dependent.path, dependent.commit
        spent, waited = time.perf_counter() - started - awaited, waited + awaited

        request = commit
        if store is not None:
            on_failure.callback(store.landed, request)
        committed = await store.commit(commit, waited) if store is not None else None
        started = time.perf_counter()
        if committed is not None:
            commit = commit.stored_as(alone=committed.alone)
        address = commit.address
        if committed is not None and committed.refused:
            self._emit(PassedThrough("subtask_refused"))
        said = self._known(address, commit, committed, told=unknown)
        subtask = commit.before(max(commit.subtask_start, 0))
        careful = self._refusals.tripped(address.tag, subtask)
        if careful:
            self._emit(PassedThrough("safety_fallback"))
        settings = self._settings_for(incoming, careful)
        sent = own if dependent is None or careful else dependent.sent
        context = replace(said, continued=incoming.continued)
        result = rewrite(sent, incoming.dialect, settings, context, memo if sent is own else None)
        followed = None
        if sent is own and result.plan:
            lead = commit.lead.id if commit.lead is not None else ""
            rules = incoming.dialect, settings, result.limited
            now = Trail(lead, own.node_ids, result.plan, rules, context, result.report.repairs)
            followed, trail = self._followed(own, now, trail, result.report), now
        if dependent is not None and sent is not own:
            cleared = result.report.tool_messages_cleared + dependent.cleared
            report = replace(result.report, bytes_before=own.size, tool_messages_cleared=cleared)
            result = replace(result, report=report)
        if result.limited:
            self._emit(PassedThrough(result.limited))
        enforced = incoming.mode == "enforce"
        changed = result.messages is not incoming.wire
        outcome = ("rewritten" if changed else "unchanged") if enforced else "audited"
        seconds = spent + time.perf_counter() - started
        self._emit(RequestHandled(incoming.api, outcome, result.report, seconds))
        session_id = (committed.session_id if committed else address.session_id) or f"{address.family}.0"
        if store is not None and store.notes:
            handled = Handled(incoming, came, path, sent, request, settings, context, result, outcome)
            digests = _note(store, handled, committed, digests)
        self._memos.put(found.tag, Remembered(memo, trail, digests))
        fields = {**(whole.fields if whole else {}), **(dependent.fields if dependent and sent is not own else {})}
        return Turn(
            messages=result.messages if enforced else incoming.wire,
            fields=fields,
            headers=_headers(session_id, result.report) | ({RESUMED: "1" if whole else "0"} if wish else {}),
            tag=address.tag,
            subtask=subtask,
            enforced=enforced,
            changed=changed or bool(fields),
            collapsed=result.report.tool_messages_cleared > 0 or result.report.resets > 0 or sent is not own,
            work=Work(
                path,
                sent,
                commit,
                result,
                replace(address, session_id=session_id) if committed else address,
                store,
                kept=incoming.body.get("store") is not False,
                conversation=incoming.conversation,
                request=request,
                reckon=partial(_reckoned, incoming, followed) if followed is not None else None,
            ),
        )

    def _followed(self, own: Path, now: Trail, before: Trail | None, report: Report) -> Followed:
        """The request beside the session's one before it. Counts a break that the rewriting itself does not know of."""
        followed = follow(own, now, before)
        if followed.broke and not report.prefix_break:
            self._emit(PrefixBroken(followed.broke))
        return followed

    async def _dependent(
        self, incoming: Incoming, path: Path, commit: Commit, address: Address, waited: float
    ) -> tuple[Placed | None, bool, float]:
        """What a subtask that needs the results of others goes on from, whether that is needed and not known, and
        the seconds of waiting for it. None for any other subtask."""
        plan = named_subtask(incoming.headers, incoming.body)
        assert plan is not None
        began = time.perf_counter()
        store = self._store
        standing = await store.standing(address, plan, place_of(commit), waited) if store is not None else None
        awaited = time.perf_counter() - began
        if standing is None or not standing.depends_on:
            unknown = standing is None and bool(plan.depends_on)
            if unknown:
                self._emit(PassedThrough("context_missing"))
            return None, unknown, awaited
        if len(standing.given) < len(standing.depends_on):
            self._emit(PassedThrough("dependency_missing"))

        def make(whole: Path, fields: Mapping[str, Any]) -> Commit:
            return request_commit(whole, address, incoming.headers, {**incoming.body, **fields})

        return placed(standing, path, incoming.body, incoming.dialect, make), False, awaited

    async def _lost(self, incoming: Incoming, place: str) -> History | None:
        """The path that a client lost, of the session that it names. None where that is not to be had, or where
        the original is to be sent."""
        address = find_session(incoming.headers, incoming.body, incoming.tenant, None)
        if self._store is None or address.implicit or incoming.continued or incoming.mode != "enforce":
            return None
        return await self._store.path(address, place)

    def preview(self, incoming: Incoming) -> Any:
        """The list that `before` would send on, as far as this worker knows; nothing is stored or counted."""
        path = read(incoming.wire, incoming.api, continued=incoming.continued)
        if path is None or incoming.mode != "enforce":
            return incoming.wire
        address = find_session(incoming.headers, incoming.body, incoming.tenant, _opening(incoming))
        commit = request_commit(path, address, incoming.headers, incoming.body)
        careful = self._refusals.tripped(address.tag, commit.before(commit.subtask_start))
        context = replace(self._said.get(address.tag, NOTHING_SAID), continued=incoming.continued)
        return rewrite(path, incoming.dialect, self._settings_for(incoming, careful), context).messages

    def _settings_for(self, incoming: Incoming, careful: bool) -> Settings:
        settings = incoming.settings or self._settings
        if self._store_for(incoming) is None and settings.store.content == "full":  # nothing to refer to
            settings = replace(settings, store=replace(settings.store, content="structure"))
        if not careful:
            return settings
        return replace(settings, collapse=replace(settings.collapse, policy="never"), reset=Reset())

    def _store_for(self, incoming: Incoming) -> GuardedStore | None:
        """None for a request that shall not be stored (the Responses API's `store: false`, if that counts)."""
        unwanted = self._settings.store.honour_store_false and incoming.body.get("store") is False
        return None if unwanted else self._store

    def _known(self, address: Address, commit: Commit, committed: Committed | None, *, told: bool) -> Context:
        """Where the client's own subtasks end, and where the session was reset for its age: from the store, else from
        what this worker remembers. `told`: it is counted already that something is missing."""
        known = self._said.pop(address.tag, NOTHING_SAID)
        if committed is not None:
            known = Context(frozenset(committed.marks), resets=frozenset(committed.resets))
        elif not told and (commit.subtask_id is not None or self._ages(commit)) and known == NOTHING_SAID:
            self._emit(PassedThrough("context_missing"))
        if known != NOTHING_SAID:
            self._said[address.tag] = known
            if len(self._said) > _SAID_SESSIONS:
                self._said.popitem(last=False)
        return known

    def _ages(self, commit: Commit) -> bool:
        """Whether the session may have been reset for its age: not before its second subtask."""
        return bool(self._settings.reset.max_age_s) and commit.subtask_start > 0

    def names(self, turn: Turn) -> Names:
        """The ids that the client shall see in the reply. Where the provider keeps the conversation they stay
        as they are: it knows its calls by them."""
        work = turn.work
        if not turn.enforced or work is None or work.path.continued:
            return Names()
        return Names.beside(work.rewrite.ids, work.sent.wire if work.path.api == "responses" else ())

    async def after(self, turn: Turn, reply: list[Any] | None, *, complete: bool, response_id: str = "") -> None:
        """Stores the reply (its wire items as the client saw them; None: there was none worth keeping).
        `response_id`: the provider's, if it has one."""
        work, turn.work, turn.messages = turn.work, None, None
        if work is None:
            return
        if work.store is not None:
            work.store.landed(work.request)
        self._refusals.accepted(turn.tag, turn.subtask)
        answer = read(reply, work.path.api) if reply else None
        if answer is not None and answer.messages and work.store is not None:
            asked = replace(work.commit, address=work.address)
            under = [work.conversation] if work.conversation else []
            if response_id and work.kept:
                under.append(kept_under(work.address.tenant, "response", response_id))
            await work.store.commit_reply(reply_commit(asked, work.path, answer, complete, under))
        if work.reckon is not None:
            self._emit(work.reckon())

    def failed(self, turn: Turn, *, refused: bool) -> None:
        """The call failed for good; `refused`: the provider took the request as malformed."""
        if turn.work is not None and turn.work.store is not None:
            turn.work.store.landed(turn.work.request)
        turn.work = turn.messages = None
        if refused:
            self._emit(Refused(turn.enforced and turn.changed))
        if refused and turn.enforced and turn.collapsed:
            self._refusals.refused(turn.tag, turn.subtask)


def pass_whole(emit: Emit, api: str, wire: Any, reason: str) -> None:
    """A request that passes as it came."""
    size = len(dump(wire))
    emit(PassedThrough(reason))
    emit(RequestHandled(api, "passed", Report(bytes_before=size, bytes_after=size), 0.0))


def _reckoned(incoming: Incoming, followed: Followed) -> HistoryEstimated:
    received, rewritten = followed.prompts()
    return HistoryEstimated(incoming.model, incoming.mode, received, rewritten, incoming.dollars)


def _note(store: GuardedStore, handled: Handled, committed: Committed | None, before: Digests | None) -> Digests | None:
    """A record is never worth a request."""
    try:
        make, digests = noted(handled, before)
        store.note(handled.commit, committed, make)
    except Exception as error:
        log.warning("a request is not noted: %s", describe(error))
        return None
    return digests


async def _base(store: GuardedStore, incoming: Incoming) -> Base | None:
    """Where the stored path ends that a request goes on from. None where that is not known, or is in another
    session than the one that the client names."""
    base = await store.base(incoming.tenant, incoming.earlier)
    address = find_session(incoming.headers, incoming.body, incoming.tenant, None)
    if base is None or address.implicit:
        return base
    same = base.address.tag == address.tag and base.address.session_id in ("", address.session_id)
    return base if same else None


def _opening(incoming: Incoming) -> str | None:
    """Meaning of the first user message, by which a conversation without an id is found."""
    codec = CODECS.get(incoming.api)
    if codec is None or not isinstance(incoming.wire, list):
        return None
    for item in incoming.wire:
        for message in codec.parse([item], 0) if isinstance(item, dict) else ():
            if message.role == USER:
                return meaning(message).decode("utf-8", "surrogatepass")
    return None
