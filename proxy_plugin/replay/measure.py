"""One conversation, request by request: rewritten as the proxy would, and compared with what came."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from proxy_plugin.history.model import dump
from proxy_plugin.history.report import Report
from proxy_plugin.history.rewrite import Rewrite, rewrite_history
from proxy_plugin.history.subtasks import Context
from proxy_plugin.replay.conversations import Conversation, Exchange, decode, encode, parsed
from proxy_plugin.replay.figures import Side, Step, Values
from proxy_plugin.replay.reading import reading_of
from proxy_plugin.replay.refusals import refusals
from proxy_plugin.replay.tokens import Tokenizer
from proxy_plugin.replay.values import Value, values_in
from proxy_plugin.settings import Settings

_FRAME = 4  # tokens around an item and around a call: their role, name and marks
_MEDIUM = 1_000  # tokens of an image or a file, which cannot be known from here


class _Item(NamedTuple):
    """What is known of one wire item, by its bytes."""

    text: str
    role: Any
    tokens: int


def rewritten(
    conversation: Conversation, exchange: Exchange, settings: Settings, memo: dict[str, Any] | None
) -> tuple[list[Any], Rewrite, float]:
    """The request's wire list, what becomes of it, and the milliseconds that took."""
    wire = parsed(exchange.items)
    context = Context(continued=True) if exchange.continued else None
    started = time.perf_counter()
    result = rewrite_history(
        wire, api=conversation.api, provider=conversation.provider, settings=settings, context=context, memo=memo
    )
    return wire, result, (time.perf_counter() - started) * 1_000


def steps(conversation: Conversation, settings: Settings, tokenizer: Tokenizer) -> Iterator[Step]:
    """Every request of the conversation. Holds what one conversation needs and no more."""
    memo: dict[str, Any] = {}
    items = _Items(tokenizer)
    before, after = _Sequence(items), _Sequence(items)
    collapsed = 0
    for exchange in conversation.exchanges:
        wire, result, ms = rewritten(conversation, exchange, settings, memo)
        changed = result.messages is not wire
        report = result.report
        if result.limited == "not_understood":
            size = len(dump(wire))
            report = Report(bytes_before=size, bytes_after=size)
        received = list(exchange.items)
        sent = [encode(item) for item in result.messages] if changed else received

        wrong = _faults(wire, conversation, exchange)
        still = _faults(result.messages, conversation, exchange) if changed else wrong
        yield Step(
            before=before.follow(received, wrong),
            after=after.follow(sent, still),
            report=report,
            changed=changed,
            collapsed=report.subtasks_collapsed > collapsed,
            limited=result.limited,
            values=_values(exchange, received, sent, items),
            ms=ms,
        )
        collapsed = report.subtasks_collapsed


def _faults(wire: Any, conversation: Conversation, exchange: Exchange) -> tuple[str, ...]:
    return tuple(refusals(wire, conversation.api, conversation.provider, continued=exchange.continued))


class _Items:
    """Readings of the wire items of one conversation."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._count = tokenizer.count
        self._known: dict[bytes, _Item] = {}

    def __getitem__(self, item: bytes) -> _Item:
        known = self._known.get(item)
        if known is None:
            value = decode(item)
            texts, arguments, media = reading_of(value)
            text = "\n".join(texts)
            tokens = _FRAME * (1 + len(arguments)) + _MEDIUM * media + self._count(text)
            role = (value.get("role"), value.get("type")) if isinstance(value, dict) else None
            known = self._known[item] = _Item(text, role, tokens)
        return known

    def shared(self, one: bytes, other: bytes) -> int:
        """Tokens of the common beginning of two items that differ. A cache holds tokens, not messages."""
        a, b = self[one], self[other]
        text = a.text[: _common_text(a.text, b.text)] if a.role == b.role else ""
        return min(_FRAME + self._count(text), a.tokens, b.tokens) if text else 0


class _Sequence:
    """The requests of one side, each beside the one before it."""

    def __init__(self, items: _Items) -> None:
        self._items = items
        self._last: Sequence[bytes] = ()

    def follow(self, request: Sequence[bytes], faults: tuple[str, ...]) -> Side:
        last, self._last = self._last, request
        same = _common(last, request)
        cached = sum(self._items[item].tokens for item in request[:same])
        if same < len(last) and same < len(request):
            cached += self._items.shared(last[same], request[same])
        tokens = sum(self._items[item].tokens for item in request)
        return Side(tokens, cached, same < len(last), faults)


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    shorter = min(len(one), len(other))
    return next((index for index in range(shorter) if one[index] != other[index]), shorter)


def _common_text(one: str, other: str) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _values(exchange: Exchange, received: Sequence[bytes], sent: Sequence[bytes], items: _Items) -> Values:
    used = values_in(text for item in exchange.reply for text in reading_of(item).arguments)
    if not used:
        return Values()
    came = set(received)
    stayed = came.intersection(sent)
    untouched = [items[item].text for item in reversed(received) if item in stayed]
    gone = [items[item].text for item in reversed(received) if item not in stayed]
    new = [items[item].text for item in sent if item not in came]
    safe = at_risk = at_risk_kept = 0
    for value in map(Value, used):
        if value.stands_in(untouched):
            safe += 1
        elif value.stands_in(gone):
            at_risk += 1
            at_risk_kept += value.stands_in(new)
    return Values(safe + at_risk, safe + at_risk_kept, at_risk, at_risk_kept)
