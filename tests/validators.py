"""An independent judge of histories: would this provider accept this list?

Written from the providers' own rules and error texts, without a line of the code under test, so that
both cannot be wrong in the same way. `violations` gives readable lines (none: accepted), `judge` the
same as values. Both are total: no input makes them raise.

Rules that a rewriting has to hold, for every wire form:

    duplicate-id      an id twice in one assistant turn
    reused-id         an id that an earlier turn used (a signature behind it makes no other id of it)
    id-length         longer than the provider takes (Mistral: not exactly 9)
    id-alphabet       characters the provider refuses
    call-without-id   a call whose id is missing, empty or no string
    result-without-id the same of a result
    unanswered        a call without its result where the provider looks for it
    orphan            a result of no call
    second-answer     a result of a call that has one
    system-place      a system message where the provider takes none
    user-after-tool   a user message directly after a tool message (Mistral)

for api "messages" besides: `results-first` (a result behind other blocks of its turn), `empty-text`,
`empty-content`, `cache-control` (more than 4), `thinking-place` (an assistant turn that ends in thinking);
for api "responses" besides: `duplicate-item`, `item-id` (length, prefix), `reasoning` (a reasoning item
without the item that followed it), `adjacent` (DeepSeek: an output away from its call).

`strict` adds what only a client can get wrong and a rewriting passes on: `shape`, `role`, `name`,
`arguments`, `null-content`, `empty-tool-calls`, `extra-key`, and for Mistral `first-role`, `last-role` and
`empty-result` (LiteLLM drops a tool message without text on the way there, which leaves its call unanswered).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule: `index` into the list judged, `where` as the provider would name the place."""

    index: int
    rule: str
    where: str
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}" + (f": {', '.join(map(repr, self.ids))}" if self.ids else "")


@dataclass(frozen=True, slots=True)
class Provider:
    """What one provider tolerates. `system`: where a system message may stand in the chat form."""

    alphabet: str | None = None  # of an id, as the inside of a character class
    shortest: int = 1
    longest: int | None = None
    longest_item: int | None = None  # the same on its own /responses; None: LiteLLM makes chat completions of them
    signed: bool = False  # an id may carry a signature, which LiteLLM takes off and sends beside it
    system: str = "anywhere"  # "anywhere" | "first" (a single one) | "after-user" (or leading)
    user_after_tool: bool = True


CHAT_ID_LENGTH = 40  # OpenAI and its like
ITEM_ID_LENGTH = 64
CACHE_BREAKPOINTS = 4

PROVIDERS = {
    "openai": Provider(longest=CHAT_ID_LENGTH, longest_item=ITEM_ID_LENGTH),
    "azure": Provider(longest=CHAT_ID_LENGTH, longest_item=ITEM_ID_LENGTH),
    "deepseek": Provider(longest=CHAT_ID_LENGTH),
    "xai": Provider(longest=CHAT_ID_LENGTH, longest_item=ITEM_ID_LENGTH),
    "anthropic": Provider(alphabet="a-zA-Z0-9_-", longest=64),
    "bedrock": Provider(alphabet="a-zA-Z0-9_.:-", longest=64),
    "gemini": Provider(signed=True),
    "vertex_ai": Provider(signed=True),
    "mistral": Provider(alphabet="a-zA-Z0-9", shortest=9, longest=9, system="after-user", user_after_tool=False),
    "hosted_vllm": Provider(longest_item=ITEM_ID_LENGTH, system="first"),
}

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LEAD_ROLES = frozenset({"system", "developer"})
_CHAT_ROLES = _LEAD_ROLES | {"user", "assistant", "tool", "function"}


def violations(
    messages: Any,
    provider: str = "openai",
    api: str = "chat",
    *,
    strict: bool = False,
    allowed: Collection[str] = (),
) -> list[str]:
    """One line for each rule that `messages` breaks, with its index; empty if the provider accepts it.

    `api`: `chat` | `messages` | `responses`, the wire form of the list (a string is a legal `responses`
    input). For chat the rules are those of `provider` behind LiteLLM. `allowed` lifts rules that depend on
    the request: `system` (a model that takes the system role inside Anthropic messages, after a user turn)
    and `previous` (the list continues a stored response, which holds the calls it answers).
    """
    return [str(fault) for fault in judge(messages, provider, api, strict=strict, allowed=allowed)]


def judge(
    messages: Any,
    provider: str = "openai",
    api: str = "chat",
    *,
    strict: bool = False,
    allowed: Collection[str] = (),
) -> list[Fault]:
    """As `violations`, as values, in the order of the list."""
    if api == "responses" and isinstance(messages, str):
        return []
    if not isinstance(messages, list):
        return [Fault(0, "shape", "messages")]
    rules = PROVIDERS[provider]
    if api == "chat":
        faults = [*_chat(messages, rules), *(_chat_strict(messages, rules) if strict else ())]
    elif api == "messages":
        if rules.alphabet is None:  # LiteLLM writes every id in Anthropic's alphabet, whoever it goes to
            rules = replace(rules, alphabet="a-zA-Z0-9_-")
        faults = [*_messages(messages, rules, allowed), *(_messages_strict(messages) if strict else ())]
    elif api == "responses":
        adjacent = provider == "deepseek"
        faults = [
            *_responses(messages, rules, "previous" in allowed),
            *(_responses_adjacent(messages) if adjacent else ()),
            *(_responses_strict(messages) if strict else ()),
        ]
    else:
        raise ValueError(f"api: {api!r}")
    return sorted(faults, key=lambda fault: fault.index)


def alternates(messages: list[Json]) -> bool:
    """Whether user and assistant turns of a chat take turns, as some templates (Gemma, Mistral) ask."""
    roles = [m.get("role") for m in messages if m.get("role") == "user" or _is_plain_assistant(m)]
    return all(left != right for left, right in pairwise(roles))


def _is_plain_assistant(message: Json) -> bool:
    return message.get("role") == "assistant" and not message.get("tool_calls")


def _id(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _bare(call_id: str) -> str:
    """What reaches the provider of an id that carries a signature."""
    return call_id.split("__thought__", 1)[0] or call_id


def _id_faults(call_id: str, rules: Provider) -> Iterator[str]:
    if rules.signed:
        call_id = _bare(call_id)
    if len(call_id) < rules.shortest or (rules.longest is not None and len(call_id) > rules.longest):
        yield "id-length"
    if rules.alphabet is not None and not re.fullmatch(f"[{rules.alphabet}]*", call_id):
        yield "id-alphabet"


class _Ids:
    """Which ids calls have used so far: in this turn, and before it."""

    def __init__(self, rules: Provider) -> None:
        self.rules = rules
        self.before: set[str] = set()
        self.turn: set[str] = set()

    def next_turn(self) -> None:
        self.before |= self.turn
        self.turn = set()

    def use(self, call_id: str) -> list[str]:
        """The rules that a call with this id breaks."""
        broken = list(_id_faults(call_id, self.rules))
        call_id = _bare(call_id)
        if call_id in self.turn:
            broken.append("duplicate-id")
        elif call_id in self.before:
            broken.append("reused-id")
        self.turn.add(call_id)
        return broken


# Chat completions


def _tool_calls(message: Any) -> list[Any]:
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    is_assistant = isinstance(message, dict) and message.get("role") == "assistant"
    return calls if is_assistant and isinstance(calls, list) else []


def _chat(messages: list[Any], rules: Provider) -> Iterator[Fault]:
    ids = _Ids(rules)
    caller = 0
    waiting: list[str] = []  # ids of the block's calls that have no result yet
    answered: set[str] = set()
    previous: Any = None
    for index, message in enumerate([*messages, None]):  # None: the end closes an open block too
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role == "tool":
            answer = _id(message.get("tool_call_id"))
            if answer is None:
                yield Fault(index, "result-without-id", where)
            elif answer in waiting:
                waiting.remove(answer)
                answered.add(answer)
            else:
                yield Fault(index, "second-answer" if answer in answered else "orphan", where, (answer,))
        else:
            if waiting:
                yield Fault(caller, "unanswered", f"messages[{caller}]", tuple(waiting))
            waiting, answered, caller = [], set(), index
            ids.next_turn()
            for position, call in enumerate(_tool_calls(message)):
                call_id = _id(call.get("id")) if isinstance(call, dict) else None
                place = f"{where}.tool_calls[{position}]"
                if call_id is None:
                    yield Fault(index, "call-without-id", place)
                    continue
                waiting.append(call_id)
                for rule in ids.use(call_id):
                    yield Fault(index, rule, place, (call_id,))
        if role == "user" and previous == "tool" and not rules.user_after_tool:
            yield Fault(index, "user-after-tool", where)
        if _is(role, _LEAD_ROLES) and not _system_may_stand(index, previous, rules):
            yield Fault(index, "system-place", where)
        previous = role


def _is(value: Any, choices: Collection[str]) -> bool:
    return isinstance(value, str) and value in choices


def _system_may_stand(index: int, previous: Any, rules: Provider) -> bool:
    if index == 0 or rules.system == "anywhere":
        return True
    return rules.system == "after-user" and _is(previous, _LEAD_ROLES | {"user"})


def _chat_strict(messages: list[Any], rules: Provider) -> Iterator[Fault]:
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            yield Fault(index, "shape", where)
            continue
        role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
        if not _is(role, _CHAT_ROLES):
            yield Fault(index, "role", where)
        elif content is None and not (role == "assistant" and (calls or message.get("function_call"))):
            yield Fault(index, "null-content", where)
        if content is not None and not isinstance(content, str | list):
            yield Fault(index, "shape", where)
        if role == "tool" and content == "" and not rules.user_after_tool:  # Mistral alone
            yield Fault(index, "empty-result", where)
        if role != "assistant" or calls is None:
            continue
        if not isinstance(calls, list):
            yield Fault(index, "shape", where)
        elif not calls:
            yield Fault(index, "empty-tool-calls", where)
        for position, call in enumerate(_tool_calls(message)):
            yield from _function_faults(call, index, f"{where}.tool_calls[{position}]")
    roles = [message.get("role") for message in messages if isinstance(message, dict)]
    if roles and not rules.user_after_tool:  # Mistral alone
        if roles[0] == "assistant" or roles[0] == "tool":
            yield Fault(0, "first-role", "messages[0]")
        if not _is(roles[-1], {"user", "tool"}):
            yield Fault(len(messages) - 1, "last-role", f"messages[{len(messages) - 1}]")


def _function_faults(call: Any, index: int, where: str) -> Iterator[Fault]:
    kind = call.get("type", "function") if isinstance(call, dict) else None
    function = call.get(kind) if _is(kind, {"function", "custom"}) else None
    if not isinstance(function, dict):
        yield Fault(index, "shape", where)
        return
    name = function.get("name")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        yield Fault(index, "name", where)
    if not isinstance(function.get("arguments" if kind == "function" else "input"), str):
        yield Fault(index, "arguments", where)


# Anthropic messages


@dataclass(frozen=True, slots=True)
class _Block:
    index: int  # of its message
    where: str
    type: Any
    value: Json


def _blocks(index: int, message: Any) -> list[_Block]:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [_Block(index, f"messages.{index}.content", "text", {"type": "text", "text": content})]
    if not isinstance(content, list):
        return []
    return [
        _Block(index, f"messages.{index}.content.{position}", block.get("type"), block)
        for position, block in enumerate(content)
        if isinstance(block, dict)
    ]


def _messages(messages: list[Any], rules: Provider, allowed: Collection[str]) -> Iterator[Fault]:
    yield from _messages_pairs(messages, rules)
    yield from _messages_system(messages, "system" in allowed)
    yield from _messages_blocks(messages)


def _messages_pairs(messages: list[Any], rules: Provider) -> Iterator[Fault]:
    ids = _Ids(rules)
    waiting: list[_Block] = []  # tool_use blocks of the turn before
    numbered = list(enumerate(messages))
    turns = [(role, list(run)) for role, run in groupby(numbered, key=lambda pair: _role(pair[1]))]
    for number, (role, run) in enumerate(turns):
        turn = [block for index, message in run for block in _blocks(index, message)]
        if role == "user":
            yield from _user_turn(turn, waiting)
        elif waiting:
            yield _unanswered(waiting)
        waiting = []
        if role == "assistant":
            ids.next_turn()
            yield from _assistant_turn(turn, ids, last=number == len(turns) - 1)
            waiting = [block for block in turn if block.type == "tool_use"]
    if waiting:
        yield _unanswered(waiting)


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else ""


def _unanswered(calls: list[_Block]) -> Fault:
    ids = tuple(call_id for call in calls if (call_id := _id(call.value.get("id"))))
    return Fault(calls[0].index, "unanswered", f"messages.{calls[0].index}", ids)


def _assistant_turn(turn: list[_Block], ids: _Ids, *, last: bool) -> Iterator[Fault]:
    served: dict[str, _Block] = {}  # server tools answer inside the assistant's own turn
    for block in turn:
        if _is(block.type, {"tool_use", "server_tool_use", "mcp_tool_use"}):
            call_id = _id(block.value.get("id"))
            if call_id is None:
                yield Fault(block.index, "call-without-id", block.where)
                continue
            for rule in ids.use(call_id):
                yield Fault(block.index, rule, block.where, (call_id,))
            if block.type != "tool_use":
                served[call_id] = block
        elif isinstance(block.type, str) and block.type.endswith("tool_result"):
            answer = _id(block.value.get("tool_use_id"))
            if block.type == "tool_result" or answer is None or served.pop(answer, None) is None:
                yield Fault(block.index, "orphan", block.where, (answer,) if answer else ())
    if served and not last:  # a paused turn may end the request
        yield _unanswered(list(served.values()))


def _user_turn(turn: list[_Block], calls: list[_Block]) -> Iterator[Fault]:
    waiting = list(calls)
    answered: set[str] = set()
    behind = False
    for block in turn:
        if block.type != "tool_result":
            behind = True
            continue
        answer = _id(block.value.get("tool_use_id"))
        if answer is None:
            yield Fault(block.index, "result-without-id", block.where)
            continue
        call = next((call for call in waiting if call.value.get("id") == answer), None)
        if call is None:
            rule = "second-answer" if answer in answered else "orphan"
            yield Fault(block.index, rule, block.where, (answer,))
            continue
        waiting.remove(call)
        answered.add(answer)
        if behind:
            yield Fault(block.index, "results-first", block.where, (answer,))
    if waiting:
        yield _unanswered(waiting)


def _messages_system(messages: list[Any], allowed: bool) -> Iterator[Fault]:
    roles = [_role(message) for message in messages]
    for index, role in enumerate(roles):
        if role != "system":
            continue
        before = next((r for r in reversed(roles[:index]) if r != "system"), None)
        after = next((r for r in roles[index:] if r != "system"), "assistant")
        if not (allowed and before == "user" and after == "assistant"):
            yield Fault(index, "system-place", f"messages.{index}")


def _messages_blocks(messages: list[Any]) -> Iterator[Fault]:
    breakpoints = 0
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        blocks, last = _blocks(index, message), index == len(messages) - 1
        if message.get("content") in ("", []) and not (last and message.get("role") == "assistant"):
            yield Fault(index, "empty-content", f"messages.{index}")
        for block in blocks:
            breakpoints += _breakpoints(block.value)
            text = block.value.get("text")
            if block.type == "text" and isinstance(text, str) and not text.strip() and message["content"]:
                yield Fault(index, "empty-text", block.where)
        if blocks and message.get("role") == "assistant" and _is(blocks[-1].type, _THINKING):
            yield Fault(index, "thinking-place", blocks[-1].where)
    if breakpoints > CACHE_BREAKPOINTS:
        yield Fault(len(messages) - 1, "cache-control", "messages", (str(breakpoints),))


_THINKING = frozenset({"thinking", "redacted_thinking"})


def _breakpoints(block: Json) -> int:
    nested = block.get("content")
    inner = [part for part in nested if isinstance(part, dict)] if isinstance(nested, list) else []
    return sum(1 for part in [block, *inner] if part.get("cache_control"))


_BLOCK_KEYS = {
    "text": {"type", "text", "cache_control", "citations"},
    "tool_use": {"type", "id", "name", "input", "cache_control", "caller"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
}


def _messages_strict(messages: list[Any]) -> Iterator[Fault]:
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str | list):
            yield Fault(index, "shape", where)
            continue
        if not _is(message.get("role"), {"user", "assistant", "system"}):
            yield Fault(index, "role", where)
        if extra := message.keys() - {"role", "content"}:
            yield Fault(index, "extra-key", where, tuple(sorted(map(str, extra))))
        content = message["content"]
        if isinstance(content, list) and not all(isinstance(block, dict) for block in content):
            yield Fault(index, "shape", where)
        for block in _blocks(index, message):
            known = _BLOCK_KEYS.get(block.type) if isinstance(block.type, str) else None
            if known and (extra := block.value.keys() - known):
                yield Fault(index, "extra-key", block.where, tuple(sorted(map(str, extra))))
            if block.type == "tool_use":
                name = block.value.get("name")
                if not (isinstance(name, str) and _NAME.fullmatch(name)):
                    yield Fault(index, "name", block.where)
                if not isinstance(block.value.get("input"), dict):
                    yield Fault(index, "arguments", block.where)


# OpenAI responses

_OUTPUT_OF = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
}
_CALL_OF = {output: call for call, output in _OUTPUT_OF.items()}
_PREFIX = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
}


def _type(item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    kind = item.get("type", "message" if "role" in item else "")
    return kind if isinstance(kind, str) else ""


def _responses(items: list[Any], rules: Provider, previous: bool) -> Iterator[Fault]:
    yield from _responses_items(items)
    kinds = [_type(item) for item in items]
    calls: dict[str, str] = {}  # type by call_id
    names: set[str] = set()  # ids of calls, as they reach the provider
    waiting: dict[str, int] = {}  # index by call_id
    if rules.longest_item is not None:
        rules = replace(rules, longest=rules.longest_item)
    for index, (item, kind) in enumerate(zip(items, kinds, strict=True)):
        where = f"input[{index}]"
        call_id = _id(item.get("call_id")) if isinstance(item, dict) else None
        if kind in _OUTPUT_OF:
            if call_id is None:
                yield Fault(index, "call-without-id", where)
                continue
            for rule in _id_faults(call_id, rules):
                yield Fault(index, rule, where, (call_id,))
            name = _bare(call_id) if rules.signed else call_id
            if name in names:
                yield Fault(index, "duplicate-id" if call_id in waiting else "reused-id", where, (call_id,))
            names.add(name)
            calls[call_id] = kind
            waiting[call_id] = index
        elif kind in _CALL_OF:
            if call_id is None:
                yield Fault(index, "result-without-id", where)
            elif waiting.pop(call_id, None) is not None:
                if calls[call_id] != _CALL_OF[kind]:
                    yield Fault(index, "orphan", where, (call_id,))
            elif call_id in calls:
                yield Fault(index, "second-answer", where, (call_id,))
            elif not previous and "item_reference" not in kinds[:index]:  # a reference may be its call
                yield Fault(index, "orphan", where, (call_id,))
    for call_id, index in waiting.items():
        if "item_reference" not in kinds[index:]:
            yield Fault(index, "unanswered", f"input[{index}]", (call_id,))


def _responses_items(items: list[Any]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        where, kind, item_id = f"input[{index}]", _type(item), item.get("id")
        if isinstance(item_id, str):
            if item_id in seen:
                yield Fault(index, "duplicate-item", where, (item_id,))
            seen.add(item_id)
            if len(item_id) > ITEM_ID_LENGTH or not item_id.startswith(_PREFIX.get(kind, "")):
                yield Fault(index, "item-id", where, (item_id,))
        if kind == "reasoning":
            following = next((i for i in items[index + 1 :] if _type(i) != "reasoning"), None)
            if not _is_model_item(following):
                yield Fault(index, "reasoning", where, (item_id,) if isinstance(item_id, str) else ())


def _is_model_item(item: Any) -> bool:
    kind = _type(item)
    if kind == "message":
        return bool(item.get("role") == "assistant")
    return bool(kind) and kind not in _CALL_OF and kind != "mcp_approval_response"


def _responses_adjacent(items: list[Any]) -> Iterator[Fault]:
    """DeepSeek: outputs directly behind the run of calls they answer."""
    block: set[Any] = set()
    for index, item in enumerate(items):
        kind = _type(item)
        call_id = _id(item.get("call_id")) if isinstance(item, dict) else None
        if kind in _OUTPUT_OF:
            if index and _type(items[index - 1]) not in _OUTPUT_OF:
                block = set()
            block.add(call_id)
        elif kind not in _CALL_OF:
            block = set()
        elif call_id is not None and call_id not in block:
            yield Fault(index, "adjacent", f"input[{index}]", (call_id,))


def _responses_strict(items: list[Any]) -> Iterator[Fault]:
    for index, item in enumerate(items):
        where, kind = f"input[{index}]", _type(item)
        if not kind:
            yield Fault(index, "shape", where)
        elif kind == "message" and not isinstance(item.get("content"), str | list):
            yield Fault(index, "null-content", where)
        elif kind in ("function_call", "custom_tool_call"):
            name = item.get("name")
            if not (isinstance(name, str) and _NAME.fullmatch(name)):
                yield Fault(index, "name", where)
            if not isinstance(item.get("arguments" if kind == "function_call" else "input"), str):
                yield Fault(index, "arguments", where)
        elif kind in _CALL_OF and item.get("output") is None:
            yield Fault(index, "null-content", where)
