"""Hypothesis strategies: conversations in three wire forms, whole and damaged, and junk.

A conversation is drawn once, as a list of neutral events (`Said`, `Called`, `Got`), damaged there if it is
to be broken, and then rendered into a wire form with everything clients do to it (echoes, parts, cache
marks, images, split results). So one catalogue of damages, `DAMAGES`, serves chat, messages and responses.

The alphabets of ids are small and hold what a repair may itself invent (`call_abc123_2`), so that
collisions are frequent. Valid lists satisfy `validators.violations(..., strict=True)`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

from hypothesis import strategies as st

from tests.validators import PROVIDERS

Json = dict[str, Any]
Wire = list[Json]
Draw = Callable[[st.SearchStrategy[Any]], Any]

MISSING: Any = object()
"""An id that is not even a key on the wire."""

THOUGHT = "__thought__" + base64.b64encode(b"\x12\x34 a signature that must survive \x00\xff" * 4).decode()


# The neutral conversation


@dataclass
class Said:
    role: str  # "system" | "user" | "assistant"
    text: str


@dataclass
class Invocation:
    id: Any
    name: str
    arguments: str


@dataclass
class Called:
    text: str | None
    calls: list[Invocation] = field(default_factory=list)


@dataclass
class Got:
    id: Any
    text: str


Event = Said | Called | Got
Talk = list[Event]


# Words, arguments, results

_PHRASES = [
    "Find the cheapest flight to Lisbon.",
    "ok",
    "Now book it, please.",
    "次の手順を実行してください。",
    "Прочитай файл и исправь ошибку",
    "اقرأ الملف ثم لخصه",
    "🧑‍🚀 go on",
    "line one\nline two\n\n- a list",
    '{"looks": "like JSON"}',
    "tool_call_id call_abc123 is what I want back",
]
texts = st.one_of(
    st.sampled_from(_PHRASES),
    st.text(min_size=1, max_size=30).map(lambda text: text if text.strip() else f"x{text}"),
)
"""What people and models write; never blank."""

_ROWS = [{"id": f"ord_{n:04}", "email": f"user{n}@example.com", "total": n * 7.5, "state": "open"} for n in range(9)]
_RESULTS = [
    "ok",
    "",
    json.dumps({"order_id": "ord_0007", "status": "shipped", "items": [{"sku": "A-1", "qty": 2}]}),
    json.dumps({"rows": _ROWS, "next": None}, indent=2),
    json.dumps({"type": "text", "text": json.dumps({"path": "/srv/app/main.py", "bytes": 1234})}),
    "Traceback (most recent call last):\n  File \"/srv/app/main.py\", line 3\nValueError: no such key: 'user_42'",
    "The quick brown fox jumps over the lazy dog. " * 30,
    "#" * 3000,
]
results = st.one_of(st.sampled_from(_RESULTS), texts)

_NAMES = ["read_file", "search", "get_order", "Bash"]
_ARGUMENTS = [
    "{}",
    '{"path": "/srv/app/main.py"}',
    '{"b":1,"a":{"c":[1,2,3]}}',
    json.dumps({"query": "naïve 検索", "limit": 10}, ensure_ascii=False),
    json.dumps({"content": "def f():\n    return 1\n" * 40}),
]


def id_pool(provider: str) -> list[str]:
    """Legal, different ids for `provider`, more than a drawn conversation needs."""
    if provider == "mistral":
        return ["abc123XYZ", "abc123XY2", *(f"call{n:05}" for n in range(60))]
    like_repairs = [f"call_abc123{s}" for s in ("", "_1", "_2", "_3", "-2", "_r2", "x2")]
    pool = ["call_abc123", "1", "call_0", *like_repairs, "toolu_01", "x" * 40, *(f"call_{n}" for n in range(1, 60))]
    if provider in ("gemini", "vertex_ai"):
        pool.insert(2, f"call_{'0f' * 14}{THOUGHT}")
    return list(dict.fromkeys(pool))


@st.composite
def talks(draw: Draw, provider: str = "openai", *, min_rounds: int = 0) -> Talk:
    """A valid conversation of one to four subtasks that an agent may send next, ids legal for `provider`."""
    rules = PROVIDERS[provider]
    empty = "" if rules.user_after_tool else "none"  # see `empty-result` in validators
    pool, taken = id_pool(provider), set[str]()

    def fresh() -> str:
        start = draw(st.integers(0, 7))
        chosen = next(i for i in [*pool[start:], *pool[:start]] if i not in taken)
        taken.add(chosen)
        return chosen

    def tool_round() -> Iterator[Event]:
        calls = [
            Invocation(fresh(), draw(st.sampled_from(_NAMES)), draw(st.sampled_from(_ARGUMENTS)))
            for _ in range(draw(st.sampled_from([1, 1, 2, 3])))
        ]
        yield Called(draw(st.none() | texts), calls)
        answers: list[Event] = [Got(call.id, draw(results) or empty) for call in calls]
        yield from draw(st.permutations(answers)) if len(answers) > 1 else answers

    talk: Talk = []
    if draw(st.booleans()):
        talk.append(Said("system", draw(texts)))
    subtasks, rounds = draw(st.integers(1, 4)), 0
    for number in range(subtasks):
        last = number == subtasks - 1
        style = draw(st.integers(0, 15))
        if style == 15 and rules.system == "anywhere":
            talk.append(Said("system", draw(texts)))
        talk.append(Said("user", draw(texts)))
        if style == 14 and rules.system != "first":
            talk.append(Said("system", draw(texts)))
            if rules.system == "after-user":  # where no request may end with it
                talk.append(Said("user", draw(texts)))
        wanted = draw(st.integers(0, 2))
        wanted = max(wanted, min_rounds - rounds) if last else wanted
        rounds += wanted
        for _ in range(wanted):
            talk.extend(tool_round())
            if style == 13 and rules.system == "anywhere":
                talk.append(Said("system", draw(texts)))
        if last:
            break  # the next reply is the model's: behind a user message or behind results
        if style != 12 or not rules.user_after_tool:  # else the user cut in
            talk.append(Said("assistant", draw(texts)))
            if style == 11 and rules.system == "anywhere":
                talk.append(Said("assistant", draw(texts)))
    return talk


# Damages: how ids go wrong in the wild. Each changes a talk in place, or leaves it where it finds nothing.

Damage = Callable[[Draw, Talk], None]


def _calls(talk: Talk) -> list[tuple[int, Invocation]]:
    return [(i, call) for i, event in enumerate(talk) if isinstance(event, Called) for call in event.calls]


def _blocks(talk: Talk) -> list[int]:
    return [i for i, event in enumerate(talk) if isinstance(event, Called)]


def _got(talk: Talk) -> list[int]:
    return [i for i, event in enumerate(talk) if isinstance(event, Got)]


def _answers(talk: Talk, block: int) -> list[int]:
    """Indices of the results directly behind the calls at `block`."""
    end = block + 1
    while end < len(talk) and isinstance(talk[end], Got):
        end += 1
    return list(range(block + 1, end))


def _pick(draw: Draw, choices: Sequence[Any]) -> Any:
    return draw(st.sampled_from(choices)) if choices else None


def _rename(talk: Talk, block: int, call: Invocation, new: Any) -> None:
    """Gives a call and its own result another id."""
    for index in _answers(talk, block):
        event = talk[index]
        if isinstance(event, Got) and event.id == call.id:
            event.id = new
            break
    call.id = new


def _reused(draw: Draw, talk: Talk) -> None:
    if len(blocks := _blocks(talk)) > 1:
        first, later = sorted(draw(st.lists(st.sampled_from(blocks), min_size=2, max_size=2, unique=True)))
        calls = {block: [c for i, c in _calls(talk) if i == block] for block in (first, later)}
        _rename(talk, later, _pick(draw, calls[later]), _pick(draw, calls[first]).id)


def _always_the_same(draw: Draw, talk: Talk) -> None:
    """A model that counts anew in every turn."""
    seen = dict[int, int]()
    for block, call in _calls(talk):
        seen[block] = position = seen.get(block, -1) + 1
        _rename(talk, block, call, ["call_abc123", "call_1", "call_2"][position % 3])


def _twice_in_one_message(draw: Draw, talk: Talk) -> None:
    block, call = _pick(draw, _calls(talk)) or (0, None)
    if call is not None:
        talk[block].calls.append(Invocation(call.id, draw(st.sampled_from(_NAMES)), '{"second": true}'))  # type: ignore[union-attr]
        talk.insert(len(_answers(talk, block)) + block + 1, Got(call.id, draw(results)))


def _unanswered(draw: Draw, talk: Talk) -> None:
    if got := _got(talk):
        del talk[_pick(draw, got)]


def _aborted(draw: Draw, talk: Talk) -> None:
    """A turn without any of its results."""
    if blocks := _blocks(talk):
        block = _pick(draw, blocks)
        del talk[block + 1 : block + 1 + len(_answers(talk, block))]


def _cut_off(draw: Draw, talk: Talk) -> None:
    """The history ends with a call, or between its results."""
    if blocks := _blocks(talk):
        block = _pick(draw, blocks)
        del talk[block + 1 + draw(st.integers(0, max(0, len(_answers(talk, block)) - 1))) :]


def _orphan(draw: Draw, talk: Talk) -> None:
    talk.insert(draw(st.integers(0, len(talk))), Got("call_from_elsewhere", draw(results)))


def _lost_call(draw: Draw, talk: Talk) -> None:
    """A client that trimmed the calls and kept their results."""
    if blocks := _blocks(talk):
        del talk[_pick(draw, blocks)]


def _second_answer(draw: Draw, talk: Talk) -> None:
    if got := _got(talk):
        index = _pick(draw, got)
        again = deepcopy(talk[index])
        if draw(st.booleans()):
            again.text = draw(results)
        talk.insert(draw(st.integers(index + 1, len(talk))), again)


_NO_ID = [MISSING, None, "", 7, ["call_1"]]


def _result_without_id(draw: Draw, talk: Talk) -> None:
    if got := _got(talk):
        talk[_pick(draw, got)].id = _pick(draw, _NO_ID)


def _call_without_id(draw: Draw, talk: Talk) -> None:
    block, call = _pick(draw, _calls(talk)) or (0, None)
    if call is not None:
        new = _pick(draw, _NO_ID)
        if draw(st.booleans()):
            _rename(talk, block, call, new)
        else:
            call.id = new


def _between(role: str) -> Damage:
    def damage(draw: Draw, talk: Talk) -> None:
        if got := _got(talk):
            talk.insert(_pick(draw, got), Said(role, draw(texts)))

    return damage


def _late(draw: Draw, talk: Talk) -> None:
    if got := _got(talk):
        index = _pick(draw, got)
        event = talk.pop(index)
        talk.insert(draw(st.integers(min(index + 1, len(talk)), len(talk))), event)


def _early(draw: Draw, talk: Talk) -> None:
    """A result in front of its call."""
    if got := _got(talk):
        index = _pick(draw, got)
        block = max((b for b in _blocks(talk) if b < index), default=index)
        talk.insert(draw(st.integers(0, block)), talk.pop(index))


def _split_calls(draw: Draw, talk: Talk) -> None:
    """Parallel calls as consecutive assistant messages, their results behind the last."""
    wide = [b for b in _blocks(talk) if len(talk[b].calls) > 1]  # type: ignore[union-attr]
    if wide:
        block = _pick(draw, wide)
        event = talk[block]
        assert isinstance(event, Called)
        talk.insert(block + 1, Called(None, [event.calls.pop()]))


def _shuffled(draw: Draw, talk: Talk) -> None:
    """Results of parallel calls in another order: legal, and to be kept."""
    for block in _blocks(talk):
        indices = _answers(talk, block)
        if len(indices) > 1:
            talk[indices[0] : indices[-1] + 1] = draw(st.permutations([talk[i] for i in indices]))


def _repeated_round(draw: Draw, talk: Talk) -> None:
    if blocks := _blocks(talk):
        block = _pick(draw, blocks)
        end = block + 1 + len(_answers(talk, block))
        talk[end:end] = deepcopy(talk[block:end])


def _ids_from(ids: Sequence[str]) -> Damage:
    def damage(draw: Draw, talk: Talk) -> None:
        for (block, call), new in zip(_calls(talk), draw(st.permutations(ids)), strict=False):
            if draw(st.booleans()):
                _rename(talk, block, call, new)

    return damage


def _bad_arguments(draw: Draw, talk: Talk) -> None:
    _, call = _pick(draw, _calls(talk)) or (0, None)
    if call is not None:
        call.arguments = _pick(draw, ["", "{", "null", "rm -rf", '{"a": 1}{"a": 1}', "[1]"])


LONG_IDS = ["call_" + "x" * n for n in (36, 37, 59, 60, 95)] + ["call_" + "x" * 36 + "y", "é" * 41]
FOREIGN_IDS = [
    "toolu_01A09q90qw90lq917835lq9",
    "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q",
    "D681PevKs",
    "functions.get_order:0",
    "functions.get_order:1",
    "chatcmpl-tool-7f9c2d4e8a1b4c6d",
    "0192d1f0-7c3e-7a52-b1b4-3f8c7b8d9e10",
    f"call_{'0123456789abcdef' * 2}"[:33] + THOUGHT,
    f"call_{'fedcba9876543210' * 2}"[:33] + THOUGHT,
]
ORIGINS: dict[str, list[str]] = {
    "anthropic": ["toolu_01A09q90qw90lq917835lq9", "toolu_01B1", "toolu_vrtx_018Dd3", "toolu_bdrk_01C"],
    "openai": ["call_Xy3kQ0s8ZbVn2mTfLw9RcPdE", *(f"call_Xy3kQ0s8ZbVn2mTfLw9RcP{n:02}" for n in range(3))],
    "openai-responses": [f"fc_{n:02}" + "68f0a1b2c3d4e5f6" * 3 for n in range(4)],
    "gemini": [
        f"call_{'0f' * 14}{THOUGHT}",
        f"call_{'1e' * 14}",  # of parallel calls only the first one carries the signature
        f"call_{'2d' * 14}{THOUGHT}",
        f"call_{'0f' * 14}__thought__c2lnbmF0dXJlIG9mIGEgbGF0ZXIgdHVybg==",  # the first id again, signed anew
    ],
    "bedrock": ["tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", "tooluse_a-b_C", "tooluse_0", "tooluse_1"],
    "mistral": ["D681PevKs", "abc123XYZ", "000000000", "D681PevKt"],
    "kimi": ["functions.find:0", "functions.find:1", "functions_find_0", "functions.find:2"],
    "vllm": [f"chatcmpl-tool-{n}" + "7f9c2d4e8a1b4c6d" * 2 for n in range(4)],
    "home-made": ["1", "find #1 / ü", "x" * 120, "0192d1f0-7c3e-7a52-b1b4-3f8c7b8d9e10"],
}
"""Four ids of each form that a conversation may have been begun with."""
ODD_IDS = ["a b", "a_b", "a.b", "call 1", "call\n1", 'call"1', "идентификатор", "呼び出し", "🛠", "{id}", "*", " "]

DAMAGES: dict[str, Damage] = {
    "reused": _reused,
    "always-the-same": _always_the_same,
    "twice-in-one-message": _twice_in_one_message,
    "unanswered": _unanswered,
    "aborted": _aborted,
    "cut-off": _cut_off,
    "orphan": _orphan,
    "lost-call": _lost_call,
    "second-answer": _second_answer,
    "result-without-id": _result_without_id,
    "call-without-id": _call_without_id,
    "user-between": _between("user"),
    "system-between": _between("system"),
    "assistant-between": _between("assistant"),
    "late": _late,
    "early": _early,
    "split-calls": _split_calls,
    "shuffled": _shuffled,
    "repeated-round": _repeated_round,
    "long-ids": _ids_from(LONG_IDS),
    "foreign-ids": _ids_from(FOREIGN_IDS),
    "odd-ids": _ids_from(ODD_IDS),
    "bad-arguments": _bad_arguments,
}
LEGAL_DAMAGES = frozenset({"shuffled", "bad-arguments"})
"""What no provider need refuse."""
ILLEGAL_DAMAGES = frozenset(
    {
        "reused",
        "always-the-same",
        "twice-in-one-message",
        "unanswered",
        "aborted",
        "cut-off",
        "orphan",
        "lost-call",
        "second-answer",
        "result-without-id",
        "call-without-id",
        "user-between",
        "assistant-between",
        "early",
        "repeated-round",
    }
)
"""What breaks a rule of every provider's chat form, whatever is drawn; the others depend on the draw."""


@st.composite
def broken_talks(draw: Draw, provider: str = "openai", damages: Sequence[str] | None = None, at_most: int = 3) -> Talk:
    """A valid talk with at least two tool rounds, damaged one to `at_most` times. `damages`: names out of
    `DAMAGES`, all of them if None; a system message is put between only where `provider` takes one."""
    talk: Talk = deepcopy(draw(talks(provider, min_rounds=2)))
    names = list(damages or DAMAGES)
    if PROVIDERS[provider].system != "anywhere":
        names = [name for name in names if name != "system-between"]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=at_most)):
        DAMAGES[name](draw, talk)
    return talk


# Wire forms. A style holds a number in 0…255 for each event: what a client would make of it; 0 is plain.

Style = Sequence[int]
_styles = st.lists(st.integers(0, 255), max_size=20)


def _styled(talk: Talk, style: Style) -> Iterator[tuple[Event, int]]:
    return zip(talk, chain(style, repeat(0)), strict=False)


# Chat completions

_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
_CACHE = {"cache_control": {"type": "ephemeral"}}
_ECHOES: list[Json] = [
    {},
    {"refusal": None, "annotations": []},
    {"audio": None, "function_call": None, "refusal": None, "parsed": None},
    {"reasoning_content": "First I look, then I act.", "provider_specific_fields": {"citations": None}},
    {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}], "x_unknown": {"k": [1]}},
]


def _with_id(value: Json, key: str, call_id: Any) -> Json:
    return value if call_id is MISSING else {**value, key: call_id}


def _function_call(call: Invocation) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return _with_id({"type": "function", "function": function}, "id", call.id)


def as_chat(talk: Talk, style: Style = ()) -> Wire:
    """Chat completions; the plainest form without a style."""
    return [_chat_message(event, bits) for event, bits in _styled(talk, style)]


def _chat_message(event: Event, bits: int) -> Json:
    low, high = bits % 16, bits // 16
    if isinstance(event, Got):
        content: Any = [{"type": "text", "text": event.text}] if low == 1 else event.text
        named = {"name": "search"} if high == 1 else {}
        return _with_id({"role": "tool", "content": content, **named}, "tool_call_id", event.id)
    if isinstance(event, Called):
        calls = [_function_call(call) for call in event.calls]
        if high == 1:
            calls = [{"index": n, **call} for n, call in enumerate(calls)]
        elif high == 2:
            calls = [{**call, "provider_specific_fields": {"thought_signature": "c2ln"}} for call in calls]
        message: Json = {"role": "assistant", "content": event.text, "tool_calls": calls}
        if event.text is None and low in (5, 6):
            message["content"] = ""
        elif event.text is None and low == 7:
            del message["content"]
        return {**message, **_ECHOES[low if low < len(_ECHOES) else 0]}
    text: Json = {"type": "text", "text": event.text}
    if event.role == "assistant":
        return {
            "role": "assistant",
            "content": [text] if high == 1 else event.text,
            **_ECHOES[low if low < len(_ECHOES) else 0],
        }
    parts = {1: [text], 2: [{**text, **_CACHE}], 3: [{"type": "text", "text": "and"}, text]}
    if event.role == "user":
        parts |= {4: [text, deepcopy(_IMAGE)], 5: [deepcopy(_IMAGE), {**text, **_CACHE}]}
    named = {"name": "alice"} if event.role == "user" and high == 1 else {}
    return {"role": event.role, "content": parts.get(low, event.text), **named}


def valid_chats(provider: str = "openai", *, min_rounds: int = 0) -> st.SearchStrategy[Wire]:
    """Chat lists that `provider` behind LiteLLM accepts, strictly; they end where the model is to reply."""
    return st.builds(as_chat, talks(provider, min_rounds=min_rounds), _styles)


def broken_chats(
    provider: str = "openai", damages: Sequence[str] | None = None, at_most: int = 3
) -> st.SearchStrategy[Wire]:
    """Chat lists with faults of ids, pairs and placement only; see `broken_talks`."""
    return st.builds(as_chat, broken_talks(provider, damages, at_most), _styles)


# Anthropic messages

_B64_IMAGE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
_PDF = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a page"}, "title": "p"}
_SIGNED = {"type": "thinking", "thinking": "First I look, then I act.", "signature": "c2lnbmVk"}
_REDACTED = {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"}


class _Messages:
    """Builds the list; blocks of one user turn share a message or not, as the style has it."""

    def __init__(self, system: bool) -> None:
        self.wire: Wire = []
        self.system = system
        self.breakpoints = 4

    def add(self, event: Event, bits: int) -> None:
        low, high = bits % 16, bits // 16
        if isinstance(event, Got):
            self._block(self._result(event, low), apart=high == 1)
        elif isinstance(event, Called):
            self.wire.append({"role": "assistant", "content": self._called(event, low)})
        elif event.role == "user":
            self._said(event.text, low, apart=high % 2 == 1)
        elif event.role == "assistant":
            self.wire.append({"role": "assistant", "content": self._answer(event.text, low)})
        elif self.system:
            self.wire.append({"role": "system", "content": event.text})

    def _block(self, block: Json, *, apart: bool) -> None:
        last = self.wire[-1] if self.wire else None
        if last and last["role"] == "user" and isinstance(last["content"], list) and not apart:
            last["content"].append(block)
        else:
            self.wire.append({"role": "user", "content": [block]})

    def _marked(self, block: Json) -> Json:
        if not self.breakpoints:
            return block
        self.breakpoints -= 1
        return {**block, **deepcopy(_CACHE)}

    def _said(self, text: str, low: int, *, apart: bool) -> None:
        block: Json = {"type": "text", "text": text}
        if low == 0:
            self.wire.append({"role": "user", "content": text})
            return
        if low == 1:
            block = self._marked(block)
        elif low == 2:
            self._block({"type": "image", "source": dict(_B64_IMAGE)}, apart=apart)
        elif low == 3:
            self._block(deepcopy(_PDF), apart=apart)
        self._block(block, apart=apart)

    def _result(self, event: Got, low: int) -> Json:
        block = _with_id({"type": "tool_result"}, "tool_use_id", event.id) | {"content": event.text}
        parts = [{"type": "text", "text": event.text or "none"}]
        if low == 1:
            return {**block, "content": parts}
        if low == 2:
            return {**block, "content": [*parts, {"type": "image", "source": dict(_B64_IMAGE)}]}
        if low == 3:
            return {**block, "is_error": True}
        if low == 4:
            return self._marked({**block, "is_error": False})
        return block

    def _called(self, event: Called, low: int) -> list[Json]:
        thoughts: dict[int, list[Json]] = {1: [_SIGNED], 2: [_SIGNED, _REDACTED]}
        text = [{"type": "text", "text": event.text}] if event.text is not None else []
        uses = [self._use(call) for call in event.calls]
        if low == 3:
            uses[-1] = self._marked(uses[-1])
        return [*deepcopy(thoughts.get(low, [])), *text, *uses]

    @staticmethod
    def _use(call: Invocation) -> Json:
        return _with_id({"type": "tool_use"}, "id", call.id) | {"name": call.name, "input": _object(call.arguments)}

    def _answer(self, text: str, low: int) -> Any:
        block = {"type": "text", "text": text}
        if low == 1:
            return [dict(_SIGNED), block]
        if low == 2:
            server_id = f"srvtoolu_{len(self.wire)}"
            search = {"type": "server_tool_use", "id": server_id, "name": "web_search", "input": {"query": "x"}}
            found = {"type": "web_search_tool_result", "tool_use_id": server_id, "content": []}
            return [search, found, block]
        if low == 3:
            return [self._marked(block)]
        return [block] if low < 8 else text


ILLEGAL_MESSAGES_DAMAGES = ILLEGAL_DAMAGES - {"assistant-between"}
"""Consecutive assistant messages are one turn on this wire, so that text may stand behind the calls."""


def _object(arguments: str) -> Json:
    try:
        value = json.loads(arguments)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def as_messages(talk: Talk, style: Style = (), system: bool = False) -> Wire:
    """Anthropic's form. System text stands outside the list there; `system`: the model takes the role inside
    it, behind a user turn and in front of the assistant's."""
    builder = _Messages(system)
    for event, bits in _styled(talk, style):
        builder.add(event, bits)
    roles = ["", *(message["role"] for message in builder.wire), "assistant"]
    places = zip(builder.wire, roles, roles[2:], strict=False)
    return [m for m, before, after in places if m["role"] != "system" or (before, after) == ("user", "assistant")]


def valid_messages(
    provider: str = "anthropic", *, min_rounds: int = 0, system: bool = False
) -> st.SearchStrategy[Wire]:
    """Lists for /v1/messages that are valid, strictly, with ids legal for `provider`."""
    return st.builds(as_messages, talks(provider, min_rounds=min_rounds), _styles, st.just(system))


def broken_messages(
    provider: str = "anthropic", damages: Sequence[str] | None = None, at_most: int = 3
) -> st.SearchStrategy[Wire]:
    """Lists for /v1/messages with faults of ids, pairs and placement only; see `broken_talks`."""
    return st.builds(as_messages, broken_talks(provider, damages, at_most), _styles)


# OpenAI responses

LEGAL_RESPONSES_DAMAGES = LEGAL_DAMAGES | {"user-between", "system-between", "assistant-between", "late", "split-calls"}
"""On this wire an output may come as late as it likes."""
ILLEGAL_RESPONSES_DAMAGES = ILLEGAL_DAMAGES - LEGAL_RESPONSES_DAMAGES


class _Responses:
    """Builds the items, their ids counted."""

    def __init__(self, custom: frozenset[str], references: bool) -> None:
        self.wire: Wire = []
        self.custom = custom  # ids whose calls are custom tool calls
        self.references = references

    def add(self, event: Event, bits: int) -> None:
        low, high = bits % 16, bits // 16
        if isinstance(event, Got):
            self.wire.append(self._output(event, low))
        elif isinstance(event, Called):
            self._think(high)
            if event.text is not None:
                self._message(event.text, low)
            self.wire += [self._call(call, low, n) for n, call in enumerate(event.calls)]
        elif event.role == "assistant":
            self._think(high)
            if high == 3:
                search = {"type": "web_search_call", "id": self._item_id("ws"), "status": "completed"}
                self.wire.append({**search, "action": {"type": "search", "query": "x"}})
            self._message(event.text, low)
        else:
            self.wire.append(self._said(event, low))

    def _item_id(self, prefix: str, nth: int = 0) -> str:
        return f"{prefix}_{len(self.wire):04}{nth or ''}"

    def _think(self, high: int) -> None:
        if high == 1:
            item = {"type": "reasoning", "id": self._item_id("rs"), "summary": [], "encrypted_content": "ZW5j"}
            self.wire.append(item)

    def _message(self, text: str, low: int) -> None:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        item: Json = {"type": "message", "role": "assistant", "content": content}
        if low == 1:
            item |= {"id": self._item_id("msg"), "status": "completed", "phase": None}
        elif low == 2:
            item = {"role": "assistant", "content": text}
        elif low == 3 and self.references:
            item = {"type": "item_reference", "id": self._item_id("msg")}
        self.wire.append(item)

    def _call(self, call: Invocation, low: int, nth: int) -> Json:
        if _key(call.id) in self.custom:
            item: Json = {"type": "custom_tool_call", "name": call.name, "input": call.arguments}
        else:
            item = {"type": "function_call", "name": call.name, "arguments": call.arguments}
        item = _with_id(item, "call_id", call.id)
        if low % 4 == 1:
            prefix = "ctc" if item["type"] == "custom_tool_call" else "fc"
            item |= {"id": self._item_id(prefix, nth + 1), "status": "completed"}
        elif low % 4 == 2:
            item |= {"caller": None, "namespace": None}
        return item

    def _output(self, event: Got, low: int) -> Json:
        kind = "custom_tool_call_output" if _key(event.id) in self.custom else "function_call_output"
        item: Json = _with_id({"type": kind}, "call_id", event.id) | {"output": event.text}
        if low == 1:
            item |= {"id": self._item_id("fco"), "status": "completed"}
        elif low == 2:
            item["output"] = [{"type": "input_text", "text": event.text}]
        return item

    @staticmethod
    def _said(event: Said, low: int) -> Json:
        if low == 0:
            return {"role": event.role, "content": event.text}
        role = "developer" if event.role == "system" and low % 2 else event.role
        parts: list[Json] = [{"type": "input_text", "text": event.text}]
        if event.role == "user" and low == 3:
            parts.append({"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="})
        return {"type": "message", "role": role, "content": parts}


def _key(call_id: Any) -> str:
    return "" if call_id is MISSING else repr(call_id)


def as_responses(talk: Talk, style: Style = (), custom: bool = False, references: bool = False) -> Wire:
    """OpenAI's Responses items. `custom`: every third id belongs to a custom tool; `references`: the client
    may send the model's texts as opaque item references."""
    ids = list(dict.fromkeys(_key(call.id) for _, call in _calls(talk)))
    wire = _Responses(frozenset(ids[::3] if custom else ()), references)
    for event, bits in _styled(talk, style):
        wire.add(event, bits)
    return wire.wire


def valid_responses(provider: str = "openai", *, min_rounds: int = 0) -> st.SearchStrategy[Wire]:
    """Lists for /v1/responses that are valid, strictly, with ids legal for `provider`."""
    source = talks(provider, min_rounds=min_rounds)
    return st.builds(as_responses, source, _styles, st.booleans(), st.booleans())


def _doubled_items(draw: Draw, wire: Wire) -> None:
    """A model that counts its items anew in every reply."""
    named = [item for item in wire if "id" in item]
    for item in named:
        if draw(st.booleans()):
            item["id"] = next(other["id"] for other in named if other["type"] == item["type"])


def _long_items(draw: Draw, wire: Wire) -> None:
    for number, item in enumerate(item for item in wire if "id" in item):
        if draw(st.booleans()):
            item["id"] += "0" * 64 + str(number)


ITEM_DAMAGES: dict[str, Callable[[Draw, Wire], None]] = {"doubled-items": _doubled_items, "long-items": _long_items}
"""Damages to item ids, which only this wire form has."""


@st.composite
def broken_responses(
    draw: Draw, provider: str = "openai", damages: Sequence[str] | None = None, at_most: int = 3
) -> Wire:
    """Lists for /v1/responses with faults of ids and pairs; `damages` out of `DAMAGES` and `ITEM_DAMAGES`.
    References, which a judge has to trust, only where `damages` is None."""
    names = list(damages or [*DAMAGES, *ITEM_DAMAGES])
    of_talk, of_items = [n for n in names if n in DAMAGES], [n for n in names if n in ITEM_DAMAGES]
    source = broken_talks(provider, of_talk, at_most) if of_talk else talks(provider, min_rounds=2)
    references = damages is None and draw(st.booleans())
    wire = as_responses(draw(source), draw(_styles), draw(st.booleans()), references)
    if of_items and (not of_talk or draw(st.booleans())):
        ITEM_DAMAGES[draw(st.sampled_from(of_items))](draw, wire)
    return wire


# Requests of an agent


def prefixes(wire: Wire, api: str = "chat") -> list[Wire]:
    """The requests that an agent has sent on its way to this list: what stood before each reply of the
    model (in responses a run of its items), and the whole list unless it ends with a reply."""
    ends = [
        end
        for end in range(1, len(wire))
        if _by_model(wire[end]) and not (api == "responses" and _by_model(wire[end - 1]))
    ]
    if wire and not _by_model(wire[-1]):
        ends.append(len(wire))
    return [wire[:end] for end in ends]


def _by_model(item: Json) -> bool:
    kind = item.get("type", "")
    return item.get("role") == "assistant" or kind in ("reasoning", "item_reference") or kind.endswith("_call")


# Junk

deep_lists = st.builds(lambda depth: _deep(depth), st.sampled_from([3, 100, 3000]))


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


_odd_text = st.text(st.characters(), max_size=8) | st.sampled_from(["\ud800", "\x00", "call_1", "x" * 300])
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**64, -(10**40), 0, 1]),
    st.floats(),
    _odd_text,
    st.binary(max_size=4),
    st.builds(object),
)
_KEYS = [
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
    "id",
    "function",
    "name",
    "arguments",
    "type",
    "call_id",
    "tool_use_id",
    "text",
    "input",
    "output",
]
_WORDS = ["system", "user", "assistant", "tool", "text", "function", "tool_use", "tool_result", "function_call"]
anything: st.SearchStrategy[Any] = st.recursive(
    _scalars | st.sampled_from(_WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(_KEYS) | _odd_text | st.integers(), inner, max_size=5),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)
"""Values of every type, JSON or not, with the words of the wire forms among them."""

_message_like = st.fixed_dictionaries(
    {"role": st.sampled_from([*_WORDS[:4], "developer"]) | anything},
    optional={
        "content": texts | anything,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {}, optional={"id": st.sampled_from(["a", "b"]) | anything, "function": anything, "type": anything}
            )
            | anything,
            max_size=3,
        )
        | anything,
        "tool_call_id": st.sampled_from(["a", "b"]) | anything,
        "name": anything,
    },
)


@st.composite
def _gnawed(draw: Draw, source: st.SearchStrategy[Wire]) -> Any:
    """A real list with a few of its values replaced by anything."""
    value: Any = deepcopy(draw(source))
    for _ in range(draw(st.integers(1, 3))):
        here = value
        while True:
            keys: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(here[key], dict | list) or not here[key] or draw(st.booleans()):
                here[key] = draw(anything)
                break
            here = here[key]
    return value


def junk() -> st.SearchStrategy[Any]:
    """What no client should send: any value, lists of any values, lists of almost-messages, real lists of
    the three wire forms with wrong types in them, lists nested deeper than Python recurses."""
    return st.one_of(
        anything,
        st.lists(anything, max_size=5),
        st.lists(_message_like | anything, max_size=6),
        _gnawed(st.one_of(broken_chats(), broken_messages(), broken_responses())),
        deep_lists,
        deep_lists.map(lambda deep: [{"role": "user", "content": deep}, {"role": "tool", "tool_call_id": deep}]),
    )
