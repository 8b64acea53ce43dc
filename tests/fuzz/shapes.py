"""Histories of a size, each of a shape that could cost more than its length: deep, colliding, unanswered, repeated.

A shape is a function of a number and gives a wire list whose bytes grow in proportion to that number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy_plugin.history.subtasks import Context
from proxy_plugin.settings import Collapse, Limits, Reset, Running, Settings

Json = dict[str, Any]
Wire = list[Json]

RAISED = Limits(max_messages=10**9, max_bytes=10**12, repair_max_messages=10**9, repair_max_bytes=10**12)
"""Nothing passes for its size: the algorithms are measured, not the limits in front of them."""

USER: Json = {"role": "user", "content": "Go on, please."}
DONE: Json = {"role": "assistant", "content": "Done."}


@dataclass(frozen=True, slots=True)
class Shape:
    """`size`: the number that gives a list whose rewriting takes long enough for a clock, about 0.1 s to 1 s."""

    name: str
    make: Callable[[int], Wire]
    size: int
    api: str = "chat"
    provider: str = "openai"
    settings: Settings = field(default_factory=lambda: Settings(limits=RAISED))
    context: Callable[[Wire], Context | None] = lambda wire: None


def call(call_id: Any, name: str = "find", arguments: str = "{}") -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*ids: Any, arguments: str = "{}") -> Json:
    return {"role": "assistant", "content": None, "tool_calls": [call(i, arguments=arguments) for i in ids]}


def result(call_id: Any, content: Any = "ok") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def round_of(number: int, content: Any = None, arguments: str | None = None) -> Wire:
    said = content if content is not None else json.dumps({"id": f"ord_{number:06}", "total": number * 7.5, "ok": True})
    given = arguments if arguments is not None else json.dumps({"order": f"ord_{number:06}"})
    return [calls(f"call_{number}", arguments=given), result(f"call_{number}", said)]


def subtask_of(*rounds: Wire) -> Wire:
    return [USER, *(message for one in rounds for message in one), DONE]


def closed(wire: Wire) -> Wire:
    """With the user message behind it that lets the subtask in front collapse."""
    return [*wire, USER]


# Many messages


def talk(n: int) -> Wire:
    return closed([message for i in range(n) for message in ({"role": "user", "content": f"question {i}"}, DONE)])


def one_long_message(n: int) -> Wire:
    return [{"role": "user", "content": "What the quick brown fox saw, at length. " * n}]


def subtasks_of_one_round(n: int) -> Wire:
    return closed([message for i in range(n) for message in subtask_of(round_of(i))])


def one_subtask_of_rounds(n: int) -> Wire:
    return closed([USER, *(message for i in range(n) for message in round_of(i)), DONE])


def running_rounds(n: int) -> Wire:
    return [USER, *(message for i in range(n) for message in round_of(i))]


def parallel_calls(n: int) -> Wire:
    ids = [f"call_{i}" for i in range(n)]
    return closed([USER, calls(*ids), *(result(i, f"value-{i}9") for i in ids), DONE])


def systems_between(n: int) -> Wire:
    said = ({"role": "system", "content": f"note {i}"} for i in range(n))
    return closed([message for i, note in enumerate(said) for message in (*round_of(i), note)])


def system_messages(n: int) -> Wire:
    return [*({"role": "system", "content": f"rule {i}"} for i in range(n)), USER]


# Ids and pairs


def colliding(n: int) -> Wire:
    """One id in every round."""
    return closed([USER, *(m for _ in range(n) for m in (calls("call_1"), result("call_1", "v"))), DONE])


def colliding_in_one_message(n: int) -> Wire:
    return closed([USER, calls(*["call_1"] * n), *[result("call_1", "v")] * n, DONE])


def colliding_prefixes(n: int) -> Wire:
    """Ids too long for the target that differ only behind what of them is kept."""
    ids = ["call_" + "x" * 60 + str(i) for i in range(n)]
    return closed([USER, *(m for i in ids for m in (calls(i), result(i, "v"))), DONE])


def repaired_names(n: int) -> Wire:
    """Ids as a repair would invent them, and then the id they were invented for, again and again."""
    from proxy_plugin.history.dialects import IdRule

    rule = IdRule(at_most=40)
    ids = [rule.fit("call_1", use) for use in range(n)] + ["call_1"] * n
    return closed([USER, *(m for i in ids for m in (calls(i), result(i, "v"))), DONE])


def without_ids(n: int) -> Wire:
    return closed([USER, *(m for _ in range(n) for m in (calls(None), result(None, "v"))), DONE])


def unanswered(n: int) -> Wire:
    return closed([USER, *(calls(f"call_{i}") for i in range(n)), DONE])


def unanswered_with_one_id(n: int) -> Wire:
    return closed([USER, *[calls("call_1")] * n, *[result("call_1")] * (n // 2), DONE])


def orphans(n: int) -> Wire:
    return [USER, *(result(f"call_{i}", f"value {i}") for i in range(n)), USER]


def orphans_between(n: int) -> Wire:
    """Each between rounds, so that each is compared with what stands in front of it."""
    return closed([m for i in range(n) for m in (*round_of(i), result(f"lost_{i}", f"value {i}"))])


def late_results(n: int) -> Wire:
    """All calls, then all results."""
    ids = [f"call_{i}" for i in range(n)]
    return closed([USER, *(calls(i) for i in ids), USER, *(result(i, f"value {i}") for i in reversed(ids)), DONE])


def mixed_answers(n: int) -> Wire:
    """Results without an id behind calls of which all have one."""
    return closed([USER, calls(*[f"call_{i}" for i in range(n)]), *[result(None, "v")] * n, DONE])


def long_subtasks(n: int) -> Wire:
    """Of about 3 kB each, as files are read."""
    return closed([m for i in range(n) for m in subtask_of(round_of(i, f"line of file {i}: value {i}\n" * 90))])


def longer_subtasks(n: int) -> Wire:
    """Of about 8 kB each."""
    return closed([m for i in range(n) for m in subtask_of(round_of(i, f"line of file {i}: value {i}\n" * 260))])


# Depth


def _nested(depth: int, leaf: Any = "leaf_1") -> Any:
    value: Any = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"inner": value}
    return value


def _nested_json(depth: int) -> str:
    return '{"a":[' * (depth // 2) + '"leaf_1"' + "]}" * (depth // 2)


def deep_results(n: int) -> Wire:
    """Results of 1,000 levels, as JSON text."""
    return closed([USER, *(m for i in range(n) for m in round_of(i, _nested_json(1000))), DONE])


def deep_arguments(n: int) -> Wire:
    return closed([USER, *(m for i in range(n) for m in round_of(i, arguments=_nested_json(1000))), DONE])


def deep_contents(n: int) -> Wire:
    return closed([USER, *(m for i in range(n) for m in round_of(i, [_nested(1000)])), DONE])


def deeper_and_deeper(n: int) -> Wire:
    """One result of as many levels."""
    return closed([USER, *round_of(1, _nested_json(n)), DONE])


def bracket_run(n: int) -> Wire:
    return closed([USER, *round_of(1, "[" * n), *round_of(2, "{" * n), *round_of(3, "(" * n), DONE])


# Results that are searched, split and laid out


def table(n: int) -> Wire:
    rows = [{"id": f"ord_{i:06}", "email": f"user{i}@example.com", "total": i * 7.5, "state": "open"} for i in range(n)]
    return closed([USER, *round_of(1, json.dumps(rows)), DONE])


def wide_object(n: int) -> Wire:
    return closed([USER, *round_of(1, json.dumps({f"key_{i}": f"value-{i}" for i in range(n)})), DONE])


def ragged_rows(n: int) -> Wire:
    """Every row has a column of its own: a table of them would be square."""
    return closed([USER, *round_of(1, json.dumps([{"id": f"r{i}00", f"c{i}": i} for i in range(n)])), DONE])


def growing_rows(n: int) -> Wire:
    """Records that are told in each round again, one field changed."""
    same = {"id": "ord_000001", "note": "kept as it is, word for word, all the time"}
    return closed([USER, *(m for i in range(n) for m in round_of(i, json.dumps({**same, "step": i}))), DONE])


def tables_again(n: int) -> Wire:
    """The same table in every round."""
    rows = json.dumps([{"id": f"ord_{i:04}", "total": i, "state": "open"} for i in range(50)])
    return closed([USER, *(m for i in range(n) for m in round_of(i, rows)), DONE])


def numbers(n: int) -> Wire:
    return closed([USER, *round_of(1, json.dumps([i * 1.5 for i in range(n)])), DONE])


def huge_number(n: int) -> Wire:
    return closed([USER, *round_of(1, '{"n":' + "7" * n + "}", '{"n":' + "7" * n + "}"), DONE])


def csv_text(n: int) -> Wire:
    return closed([USER, *round_of(1, "\n".join(["a,b,c", *(f"{i},x{i},y" for i in range(n))])), DONE])


def json_lines(n: int) -> Wire:
    return closed([USER, *round_of(1, "\n".join(json.dumps({"id": f"e{i}", "v": i}) for i in range(n))), DONE])


TRAPS: Mapping[str, str] = {
    "aaaa": "a",
    "1111": "1",
    "1.1.1": "1.",
    "1,111": "1,111",
    "((((": "(",
    "////": "/",
    "a/b/": "a/b/",
    "....": ".",
    "a.a.": "a.",
    "a@a@": "a@",
    "____": "_",
    "a_a_": "a_",
    "----": "-",
    "a-a-": "a-",
    "\\\\\\\\": "\\",
    '""""': '"',
    "''''": "'",
    "````": "`",
    "pipes": "|",
    "pipes and dashes": "|--",
    "::::": ":",
    "====": "=",
    "a=b ": "a=b ",
    "blanks": " ",
    "tabs": "\t",
    "line breaks": "\n",
    "return line breaks": "\r\n",
    "$$$$": "$",
    "#@+-": "#@+-",
    "~~~~": "~",
    "http://": "http://",
    "http://a ": "http://a.b/c?d=e ",
    "<<<<": "<",
    "<a>": "<a><b>",
    "%20": "%20",
    "&amp;": "&amp;",
    "base64": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo+/=",
    "hex": "0123456789abcdef",
    "uuid": "0192d1f0-7c3e-7a52-b1b4-3f8c7b8d9e10",
    "dates": "2024-01-01T00:00:00Z ",
    "e-mails": "a@b.example, ",
    "lone surrogates": "\ud800",
    "combining": "e\u0301",
    "wide": "次の手順",
    "zero width": "\u200b",
    "escapes": "\\n\\t",
    "TextContent": "TextContent(type='text', text='a'",
    "meta content": "meta=None content=[",
    "own marker": "[Tool calls]\n",
    "own entries": "find(a=1): b=2 c[x y: 1 2; 3 4]\n> ",
    "sentences": "Let me see. ",
    "Ok, ok, ": "ok, ",
    "Error": "Error: ",
    "Traceback": 'File "/srv/app/main.py", line 3\n',
    "def": "def f(x):\n    return x\n",
    "braces": "{}",
    "numbered": "1. a\n",
}
"""What a regular expression could trip over, each repeated to the length of the text."""


def _trapped(unit: str, n: int) -> str:
    return unit * max(n // len(unit), 1)


def trap_in_result(unit: str) -> Callable[[int], Wire]:
    return lambda n: closed([USER, *round_of(1, _trapped(unit, n)), DONE])


def trap_in_json(unit: str) -> Callable[[int], Wire]:
    return lambda n: closed([USER, *round_of(1, json.dumps({"id": "ord_000001", "text": _trapped(unit, n)})), DONE])


def trap_in_arguments(unit: str) -> Callable[[int], Wire]:
    return lambda n: closed([USER, *round_of(1, "ok", json.dumps({"text": _trapped(unit, n)})), DONE])


def trap_in_texts(unit: str) -> Callable[[int], Wire]:
    """In what people and models say, beside a call and before it, and as a tool's name."""

    def make(n: int) -> Wire:
        text = _trapped(unit, n // 3)
        said = calls("call_1") | {"content": text}
        named = {"role": "assistant", "content": None, "tool_calls": [call("call_2", name=text)]}
        return closed(
            [{"role": "user", "content": text}, said, result("call_1", "v" * 400), named, result("call_2", "w"), DONE]
        )

    return make


# The other wire forms


def messages_subtasks(n: int) -> Wire:
    out: Wire = []
    for i in range(n):
        use = {"type": "tool_use", "id": f"toolu_{i}", "name": "find", "input": {"order": f"ord_{i:06}"}}
        content = json.dumps({"id": f"ord_{i:06}", "total": i * 7.5})
        out += [
            {"role": "user", "content": f"task {i}"},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": content}]},
            {"role": "assistant", "content": "Done."},
        ]
    return [*out, USER]


def messages_one_turn(n: int) -> Wire:
    """All calls in one message, and all results in one."""
    uses = [{"type": "tool_use", "id": f"toolu_{i}", "name": "find", "input": {}} for i in range(n)]
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": f"v-{i}9"} for i in range(n)]
    return [USER, {"role": "assistant", "content": uses}, {"role": "user", "content": results}, DONE, USER]


def messages_apart(n: int) -> Wire:
    """Assistant messages side by side, results side by side, each with one block: two turns."""
    uses = [{"type": "tool_use", "id": f"toolu_{i}", "name": "find", "input": {}} for i in range(n)]
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": f"v-{i}9"} for i in range(n)]
    return [
        USER,
        *({"role": "assistant", "content": [use]} for use in uses),
        *({"role": "user", "content": [one]} for one in results),
        DONE,
        USER,
    ]


def messages_colliding(n: int) -> Wire:
    use = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {}}
    got = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "v"}
    rounds = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [got]}]
    return [USER, *(message for _ in range(n) for message in rounds), DONE, USER]


def messages_texts_and_results(n: int) -> Wire:
    """One user message in which texts and results that belong nowhere take turns."""
    blocks: list[Json] = []
    for i in range(n):
        blocks += [
            {"type": "text", "text": f"t{i}"},
            {"type": "tool_result", "tool_use_id": f"lost_{i}", "content": f"v{i}"},
        ]
    return [USER, DONE, {"role": "user", "content": blocks}]


def responses_subtasks(n: int) -> Wire:
    out: Wire = []
    for i in range(n):
        name = f"call_{i}"
        arguments = json.dumps({"order": f"ord_{i:06}"})
        output = json.dumps({"id": f"ord_{i:06}", "total": i * 7.5})
        out += [
            {"role": "user", "content": f"task {i}"},
            {"type": "reasoning", "id": f"rs_{i}", "summary": []},
            {"type": "function_call", "call_id": name, "name": "find", "arguments": arguments},
            {"type": "function_call_output", "call_id": name, "output": output},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]},
        ]
    return [*out, USER]


def responses_colliding(n: int) -> Wire:
    one = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "find", "arguments": "{}"}
    got = {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "v"}
    return [USER, *(dict(item) for _ in range(n) for item in (one, got)), DONE, USER]


def responses_reasoning(n: int) -> Wire:
    """Reasoning without end, and then an answer."""
    return [USER, *({"type": "reasoning", "id": f"rs_{i}", "summary": []} for i in range(n)), DONE, USER]


def responses_late(n: int) -> Wire:
    one = ({"type": "function_call", "call_id": f"call_{i}", "name": "find", "arguments": "{}"} for i in range(n))
    got = ({"type": "function_call_output", "call_id": f"call_{i}", "output": f"v{i}9"} for i in range(n))
    return [USER, *one, USER, *got, DONE, USER]


def responses_references(n: int) -> Wire:
    """Items that may hide calls, and outputs that may belong to them."""
    out: Wire = [USER]
    for i in range(n):
        out += [
            {"type": "item_reference", "id": f"fc_{i}"},
            {"type": "function_call_output", "call_id": f"call_{i}", "output": "v"},
        ]
    return [*out, DONE, USER]


# Plans, pressure, resets


def plan_steps(n: int) -> Wire:
    """A plan of 20 steps of which one more is done with every round."""
    out: Wire = [USER]
    for i in range(n):
        todos = [{"content": f"step {j}", "status": "completed" if j < i % 21 else "pending"} for j in range(20)]
        out += round_of(2 * i)
        out += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call(f"plan_{i}", "TodoWrite", json.dumps({"todos": todos}))],
            },
            result(f"plan_{i}", "ok"),
        ]
    return out


def growing_plan(n: int) -> Wire:
    """One plan with many steps."""
    todos = [{"content": f"step {j}", "status": "completed" if j % 2 else "pending"} for j in range(n)]
    plan = {"role": "assistant", "content": None, "tool_calls": [call("p", "TodoWrite", json.dumps({"todos": todos}))]}
    return [USER, *round_of(1), plan, result("p", "ok"), *round_of(2)]


def _settings(**sections: Any) -> Settings:
    return Settings(limits=RAISED, **sections)


_TIGHT = Running(window_tokens=4_000, trigger_fraction=0.5, keep_rounds=2)
_WIDE = Running(window_tokens=10_000_000)


def _ends(every: int) -> Callable[[Wire], Context]:
    from proxy_plugin.history.path import Path

    def context(wire: Wire) -> Context:
        return Context(frozenset(Path(wire, "chat", None).node_ids[::every]) - {""})

    return context


SHAPES: tuple[Shape, ...] = (
    Shape("plain talk", talk, 10_000),
    Shape("one message of 10 MB", one_long_message, 125_000),
    Shape("100,000 messages", talk, 25_000),
    Shape("subtasks of one round", subtasks_of_one_round, 1_500),
    Shape("one subtask of many rounds", one_subtask_of_rounds, 2_000),
    Shape("a running subtask of many rounds", running_rounds, 5_000),
    Shape("many parallel calls", parallel_calls, 5_000),
    Shape("system messages between rounds", systems_between, 3_000),
    Shape("system messages alone", system_messages, 20_000),
    Shape("one id in every round", colliding, 5_000),
    Shape("one id in one message", colliding_in_one_message, 8_000),
    Shape("100,000 ids that collide", colliding_in_one_message, 50_000),
    Shape("ids of one beginning", colliding_prefixes, 5_000),
    Shape("ids like those of a repair", repaired_names, 4_000),
    Shape("no ids at all", without_ids, 5_000),
    Shape("no call answered", unanswered, 8_000),
    Shape("no call answered, one id", unanswered_with_one_id, 8_000),
    Shape("results of no call", orphans, 10_000),
    Shape("results of no call between rounds", orphans_between, 4_000),
    Shape("results in reverse, far behind", late_results, 4_000),
    Shape("results without ids", mixed_answers, 8_000),
    Shape("results of 1,000 levels", deep_results, 60),
    Shape("arguments of 1,000 levels", deep_arguments, 60),
    Shape("contents of 1,000 levels", deep_contents, 60),
    Shape("a result of many levels", deeper_and_deeper, 200_000),
    Shape("brackets", bracket_run, 200_000),
    Shape("a table", table, 4_000),
    Shape("an object of many keys", wide_object, 10_000),
    Shape("rows of which each has its own column", ragged_rows, 1_500),
    Shape("a record told again and again", growing_rows, 2_000),
    Shape("a table told again and again", tables_again, 200),
    Shape("a list of numbers", numbers, 50_000),
    Shape("a number of many digits", huge_number, 500_000),
    Shape("separated values", csv_text, 20_000),
    Shape("JSON lines", json_lines, 10_000),
    Shape("messages: subtasks", messages_subtasks, 1_500, api="messages", provider="anthropic"),
    Shape("messages: one turn", messages_one_turn, 5_000, api="messages", provider="anthropic"),
    Shape("messages: a turn in pieces", messages_apart, 4_000, api="messages", provider="anthropic"),
    Shape("messages: one id", messages_colliding, 4_000, api="messages", provider="anthropic"),
    Shape("messages: texts and lost results", messages_texts_and_results, 4_000, api="messages", provider="anthropic"),
    Shape("responses: subtasks", responses_subtasks, 1_500, api="responses"),
    Shape("responses: one id", responses_colliding, 4_000, api="responses"),
    Shape("responses: reasoning", responses_reasoning, 20_000, api="responses"),
    Shape("responses: late outputs", responses_late, 4_000, api="responses"),
    Shape("responses: references", responses_references, 5_000, api="responses"),
    Shape("for Mistral: subtasks", subtasks_of_one_round, 1_500, provider="mistral"),
    Shape("for vLLM: orphans", orphans, 8_000, provider="hosted_vllm"),
    Shape("for Anthropic: subtasks", subtasks_of_one_round, 1_500, provider="anthropic"),
    Shape("for Anthropic: parallel calls", parallel_calls, 5_000, provider="anthropic"),
    Shape("plan tools", plan_steps, 300, settings=_settings(collapse=Collapse(plan_tools=("TodoWrite",)))),
    Shape(
        "a plan of many steps", growing_plan, 20_000, settings=_settings(collapse=Collapse(plan_tools=("TodoWrite",)))
    ),
    Shape("pressure", running_rounds, 2_000, settings=_settings(running=_TIGHT)),
    Shape("no pressure, counted", running_rounds, 4_000, settings=_settings(running=_WIDE)),
    Shape("pressure over subtasks", subtasks_of_one_round, 1_500, settings=_settings(running=_TIGHT)),
    Shape("economical", subtasks_of_one_round, 1_500, settings=_settings(collapse=Collapse(policy="economical"))),
    Shape(
        "economical, one subtask",
        one_subtask_of_rounds,
        2_000,
        settings=_settings(collapse=Collapse(policy="economical")),
    ),
    Shape(
        "newest subtasks kept",
        subtasks_of_one_round,
        1_500,
        settings=_settings(collapse=Collapse(keep_recent_subtasks=50)),
    ),
    Shape(
        "a verbatim budget",
        subtasks_of_one_round,
        1_500,
        settings=_settings(collapse=Collapse(verbatim_budget_tokens=20_000)),
    ),
    Shape(
        "tools left out", subtasks_of_one_round, 3_000, settings=_settings(collapse=Collapse(exclude_tools=("find",)))
    ),
    Shape("resets by messages", talk, 10_000, settings=_settings(reset=Reset(max_messages=50, keep="last:10"))),
    Shape("resets by tokens", talk, 10_000, settings=_settings(reset=Reset(max_tokens=2_000, keep="first:10"))),
    Shape(
        "resets of rounds",
        subtasks_of_one_round,
        1_500,
        settings=_settings(reset=Reset(max_messages=50, keep="last:10")),
    ),
    Shape(
        "reset of one long subtask",
        running_rounds,
        3_000,
        settings=_settings(reset=Reset(max_messages=50, keep="last:20")),
    ),
    Shape("the client's own ends", running_rounds, 2_000, context=_ends(10)),
)

DEFAULT: tuple[Shape, ...] = (
    Shape("10 MB in one result", trap_in_result("Let me see. "), 10_000_000, settings=Settings()),
    Shape("10 MB in 3,200 subtasks", long_subtasks, 3_200, settings=Settings()),
    Shape("10 MB in 1,200 subtasks", longer_subtasks, 1_200, settings=Settings()),
    Shape("100,000 messages", talk, 50_000, settings=Settings()),
    Shape("40,000 messages", talk, 20_000, settings=Settings()),
    Shape("100,000 ids that collide, in one message", colliding_in_one_message, 100_000, settings=Settings()),
    Shape("100,000 ids that collide, in rounds", colliding, 100_000, settings=Settings()),
    Shape("20,000 ids that collide, in rounds", colliding, 20_000, settings=Settings()),
)
"""Under the limits as they are by default, each of one size."""

PLACES: Mapping[str, Callable[[str], Callable[[int], Wire]]] = {
    "a result": trap_in_result,
    "JSON": trap_in_json,
    "arguments": trap_in_arguments,
    "texts and names": trap_in_texts,
}
TRAPPED: tuple[Shape, ...] = tuple(
    Shape(f"{name} in {place}", make(unit), 400_000) for name, unit in TRAPS.items() for place, make in PLACES.items()
)
"""Each trap in each place, one trap after the other."""
