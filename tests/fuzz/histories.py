"""What has to hold of the rewriting whatever comes in; each broken promise is one line.

Nothing raises, not even where the boundary would catch it. The input stays as it is. What is no list of objects comes
back as it came. The output breaks no rule of ids and pairs, and no other rule that the input does not. It is
the same each time, with a memo and without, and rewriting it again changes nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from proxy_plugin.history.difference import difference
from proxy_plugin.history.model import dump
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import Plan
from proxy_plugin.history.residual import filled, residual
from proxy_plugin.history.rewrite import Rewrite, rewrite_history
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.convert import convert
from proxy_plugin.history.wire.stored import parsed, unwrap, wrap
from proxy_plugin.settings import Collapse, Reset, Running, Settings
from tests.fuzz.mutation import APIS, Mutant
from tests.validators import PROVIDERS, judge

SETTINGS: tuple[Settings, ...] = (
    Settings(),
    Settings(),
    Settings(collapse=Collapse(policy="economical")),
    Settings(collapse=Collapse(policy="never")),
    Settings(collapse=Collapse(summary_role="assistant", exclude_tools=("search",))),
    Settings(collapse=Collapse(summary_role="user", keep_recent_subtasks=1)),
    Settings(collapse=Collapse(summary_role="system", verbatim_budget_tokens=200)),
    Settings(collapse=Collapse(plan_tools=("search", "TodoWrite"))),
    Settings(running=Running(window_tokens=200, trigger_fraction=0.3, keep_rounds=1)),
    Settings(reset=Reset(max_messages=4, keep="last:2", marker="(earlier messages left out)")),
    Settings(reset=Reset(max_tokens=200, keep="system")),
)
PAIRS = frozenset(
    {
        *("duplicate-id", "reused-id", "id-length", "id-alphabet", "call-without-id", "result-without-id"),
        *("unanswered", "orphan", "second-answer", "duplicate-item", "item-id"),
    }
)
"""Rules of ids and pairs: no history leaves with one of them broken."""


def fingerprint(value: Any) -> Any:
    """A value that is equal for equal values of equal types, whatever they hold and however deep they go."""
    said: list[Any] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            said.append((type(item), len(item), tuple(item)))
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            said.append((type(item), len(item)))
            stack.extend(item)
        else:
            said.append((type(item), hex(item) if type(item) is int else repr(item)))
    return said


def broken_promises(mutant: Mutant) -> list[str]:
    """What the rewriting does wrong with this one; exceptions are raised as they are."""
    rng = random.Random(f"{mutant.seed}/{mutant.number}/options")
    options: dict[str, Any] = {
        "api": mutant.api,
        "provider": rng.choice(list(PROVIDERS)),
        "settings": rng.choice(SETTINGS),
    }
    return [f"{options['provider']}, {_short(options['settings'])}: {fault}" for fault in _faults(mutant, options)]


def _short(settings: Settings) -> str:
    return f"settings {SETTINGS.index(settings)}"


def _faults(mutant: Mutant, options: dict[str, Any]) -> Iterator[str]:
    wire = mutant.wire()
    before = fingerprint(wire)
    result = rewrite_history(wire, **options)
    if result.limited == "internal_error":
        yield f"the boundary caught {result.error}"
        return
    if fingerprint(wire) != before:
        yield "the input was changed"
    understood = bool(wire) and isinstance(wire, list) and all(isinstance(item, dict) for item in wire)
    if not understood:
        if result.messages is not wire:
            yield "what is no list of objects came back as something else"
        return
    if result.limited:
        yield f"a list of objects was not rewritten: {result.limited}"
        return
    yield from _validity(wire, result, options)
    sent = dump(result.messages)
    if dump(rewrite_history(mutant.wire(), **options).messages) != sent:
        yield "the same list gave other bytes"
    again = rewrite_history(result.messages, **options)
    if again.limited or dump(again.messages) != sent:
        yield f"rewriting it again changed it ({again.limited or again.error or again.report})"
    yield from _memo(mutant, options)
    yield from _codec(wire, mutant.api)


def _validity(wire: Any, result: Rewrite, options: dict[str, Any]) -> Iterator[str]:
    api, provider = options["api"], options["provider"]
    before, after = judge(wire, provider, api), judge(result.messages, provider, api)
    strangers = _strangers(result.messages, api)
    left = [fault for fault in after if fault.rule in PAIRS and not strangers.intersection([*fault.ids, fault.where])]
    if left:
        yield f"rules of ids and pairs are broken: {Counter(fault.rule for fault in left)}"
    own = {"system-place"} if options["settings"].collapse.summary_role == "system" else set()  # as it was told to
    more = Counter(fault.rule for fault in after) - Counter(fault.rule for fault in before)
    if worse := {rule: number for rule, number in more.items() if rule not in PAIRS | own}:
        yield f"worse than what came: {worse}"


def _strangers(wire: list[Any], api: str) -> set[str]:
    """Ids (and places) that are no neutral message's: of the provider's own tools, of calls that are no objects, of
    outputs of another kind than their call."""
    found: set[str] = set()
    for index, item in enumerate(wire):
        content, calls = item.get("content"), item.get("tool_calls")
        if api == "messages" and item.get("role") == "assistant":
            for at, block in enumerate(content if isinstance(content, list) else []):
                if isinstance(block, dict) and block.get("type") not in ("text", "tool_use"):
                    named = [block.get(key) for key in ("id", "tool_use_id")]
                    found |= {f"messages.{index}.content.{at}", *(name for name in named if isinstance(name, str))}
        if api == "chat" and isinstance(calls, list):
            found |= {f"messages[{index}].tool_calls[{n}]" for n, one in enumerate(calls) if not isinstance(one, dict)}
        if api == "responses" and _kind(item).endswith("_call"):
            named = [name for name in (item.get("call_id"), item.get("id")) if isinstance(name, str)]
            others = [other for other in wire if _kind(other).endswith("_output") and other.get("call_id") in named]
            found |= {other["call_id"] for other in others if _kind(other) != f"{_kind(item)}_output"}
    return found


def _kind(item: Any) -> str:
    kind = item.get("type")
    return kind if isinstance(kind, str) else ""


def _memo(mutant: Mutant, options: dict[str, Any]) -> Iterator[str]:
    """The requests on the way to this one, with one memo for all, then one with a change in the middle."""
    length = len(mutant.wire())
    rng = random.Random(f"{mutant.seed}/{mutant.number}/memo")
    ends = sorted({rng.randint(1, length) for _ in range(4)} | {length})
    memo: dict[str, Any] = {}
    for end in [*ends, rng.randint(1, length), length]:
        with_memo = rewrite_history(mutant.wire()[:end], memo=memo, **options)
        without = rewrite_history(mutant.wire()[:end], **options)
        if with_memo.limited != without.limited or dump(with_memo.messages) != dump(without.messages):
            yield f"a memo changed the answer for the first {end} items ({with_memo.limited} {with_memo.error})"
        elif with_memo.report != without.report:
            yield f"a memo changed the report for the first {end} items"


def _codec(wire: Any, api: str) -> Iterator[str]:
    """Reading and writing without anything in between; keeping; telling it in another form."""
    path = Path(wire, api, None)
    everything: Plan = list(range(len(path.messages)))
    if [id(item) for item in path.codec.render(wire, path.messages, everything)] != [id(item) for item in wire]:
        yield "the plan of all messages is not the list"
    if len(path.node_ids) != len(path.messages) or len(path.tokens) != len(path.messages):
        yield "not every message has an id and a size"
    for form in APIS:
        convert(path.messages, form)
    kept = [wrap(api, path.fragment(index)) for index in range(len(path.messages))]
    bodies = [parsed(body) for body in kept]
    if all(body is not None for body in bodies):
        if dump(unwrap(bodies, api).messages) != dump(wire):
            yield "what is kept is not what came"
        for form in APIS:
            unwrap(bodies, form)
        for one, other in pairwise(bodies):
            fragment = dump(one["wire"])
            if filled(residual(fragment, other["wire"]), other["wire"]) != fragment:
                yield "a residual does not give the fragment back"
    CODECS[api].mend(wire)
    for _ in difference(wire, wire[::-1]):
        pass
