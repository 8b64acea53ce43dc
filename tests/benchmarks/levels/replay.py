"""One conversation through one rewriting: a request before each assistant message, and sums of what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain

from tests.benchmarks.levels.errors import error_line
from tests.benchmarks.levels.needs import Need, needs_of
from tests.benchmarks.peers.measures import WRITES, Bill, beside, holds, running_from, spellings
from tests.benchmarks.peers.peer import Message
from tests.benchmarks.peers.text import content_text, full_text, tokens
from tests.validators import violations

Rewriting = Callable[[list[Message]], list[Message]]


class Recording:
    """What of a conversation does not depend on the rewriting."""

    def __init__(self, messages: list[Message], provider: str) -> None:
        self.messages = messages
        self.provider = provider
        self.needs = needs_of(messages)
        self.texts = frozenset(map(full_text, messages))
        self.tokens = list(map(tokens, messages))
        results = ((i, content_text(message)) for i, message in enumerate(messages) if message.get("role") == "tool")
        self.errors = [(index, line) for index, text in results if (line := error_line(text))]

    def replay(self, rewriting: Rewriting) -> Counter[str]:
        """Sums; `figures` makes shares of them."""
        before, after = Bill(), Bill()
        sums: Counter[str] = Counter(conversations=1)
        kept = _Kept(self.texts)
        for reply, needs in self.needs.items():
            request = self.messages[:reply]
            out = rewriting(request)
            sums.update(requests=1, pairs=reply != next(iter(self.needs)))
            before.add(request)
            after.add(out)
            running = running_from(request)
            sums.update(self._judged(request, out, running))
            sums.update(self._collapsible(running))
            sums.update(kept.of(out, needs, [line for index, line in self.errors if index < running]))
        sums.update(tokens_before=before.sent, tokens_after=after.sent, stable=sums["pairs"] - after.breaks)
        for name, write in WRITES.items():
            sums.update({f"cost_{name}_before": before.cost(write), f"cost_{name}_after": after.cost(write)})
        return sums

    def _judged(self, request: list[Message], out: list[Message], running: int) -> Iterator[str]:
        refused = bool(violations(request, self.provider))
        if refused:
            yield "refused_before"
        if violations(out, self.provider):
            yield "refused_after"
        part = request[running:]
        if not violations(part, self.provider):
            yield "running_valid"
            sent = out[max(len(out) - len(part), 0) :]
            # An id may change where the history is refused: it may be another's.
            if (list(map(_without_ids, sent)) != list(map(_without_ids, part))) if refused else sent != part:
                yield "running_changed"

    def _collapsible(self, running: int) -> dict[str, int]:
        """Tokens of the completed subtasks' tool calls and results."""
        traffic = (
            count
            for message, count in zip(self.messages[:running], self.tokens, strict=False)
            if message.get("role") == "tool" or message.get("tool_calls")
        )
        return {"collapsible": sum(traffic)}


def _without_ids(message: Message) -> Message:
    bare = {key: value for key, value in message.items() if key != "tool_call_id"}
    if bare.get("tool_calls"):
        bare["tool_calls"] = [{key: part for key, part in call.items() if key != "id"} for call in bare["tool_calls"]]
    return bare


class _Kept:
    """What rewritten requests still have. Messages come again in every request: each is searched once for a value."""

    def __init__(self, originals: frozenset[str]) -> None:
        self.originals = originals
        self._texts: dict[str, str] = {}  # a text as the one object that all requests share
        self._holds = cache(holds)
        self._quotes = cache(lambda text, line: any(form in text for form in spellings(line)))
        self._anchored: dict[tuple[str, int, str], bool] = {}

    def of(self, out: list[Message], needs: list[Need], errors: list[str]) -> Counter[str]:
        sums: Counter[str] = Counter()
        texts = [self._texts.setdefault(text, text) for text in map(full_text, out)]
        for need in needs:
            where = [text for text in texts if self._holds(text, need.value)]
            sums.update({need.kind: 1, f"{need.kind}_kept": bool(where)})
            if need.belongings:
                near = any(self._is_anchored(need, text) for text in where) and self._is_named(need, where, texts)
                sums.update(assoc=1, assoc_kept=near)
        for line in errors:
            sums.update(errors=1, errors_kept=any(self._quotes(text, line) for text in texts))
        return sums

    def _is_anchored(self, need: Need, text: str) -> bool:
        """Whether the value's own object can be told in this text, or the result stands there whole."""
        key = (need.value, len(need.belongings), text)
        if key not in self._anchored:
            self._anchored[key] = any(
                place.result in text or beside(text, need.value, place.home) for place in need.belongings
            )
        return self._anchored[key]

    def _is_named(self, need: Need, where: list[str], texts: list[str]) -> bool:
        """Whether its field's name stands in the same message, or in one that the rewriting wrote."""
        fields = {place.field.lower() for place in need.belongings if place.field}
        written = (text for text in texts if text not in self.originals)
        return not fields or any(name in text.lower() for text in chain(where, written) for name in fields)
