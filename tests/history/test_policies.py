"""The policies of collapse: the promises P2-P5 under every one of them, and what each setting does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin import Context, Settings, rewrite_history
from proxy_plugin.history.economy import Prices, pays
from proxy_plugin.history.model import TOOL
from proxy_plugin.history.plan_tools import plan_calls
from proxy_plugin.history.rewrite import read
from proxy_plugin.history.subtasks import completed
from proxy_plugin.history.summary import is_summary
from proxy_plugin.history.tokens import message_tokens
from proxy_plugin.history.wire import CODECS, chat
from proxy_plugin.settings import Collapse, Running
from tests.history.test_promises import CLIENTS_OWN, PROVIDERS, bytes_of, relaxed
from tests.strategies import (
    broken_chats,
    broken_messages,
    broken_responses,
    prefixes,
    valid_chats,
    valid_messages,
    valid_responses,
)
from tests.validators import judge

Wire = list[Any]
APIS = ("chat", "messages", "responses")
VALID = {"chat": valid_chats, "messages": valid_messages, "responses": valid_responses}
BROKEN = {"chat": broken_chats, "messages": broken_messages, "responses": broken_responses}
PLAN_TOOLS = ("TodoWrite", "update_plan", "write_todos", "task_tracker")

targets = st.sampled_from([(api, provider) for api in APIS for provider in PROVIDERS])


@st.composite
def chosen(draw: Callable[[st.SearchStrategy[Any]], Any], *, window: bool = True) -> Settings:
    """Any policy with any of its settings. The tools of the generated conversations close no plan: `read_file`
    as a plan tool does nothing, and `planned` puts real plans in."""
    collapse = Collapse(
        policy=draw(st.sampled_from(["always", "economical", "never"])),
        summary_role=draw(st.sampled_from(["auto", "auto", "system", "user", "assistant"])),
        keep_recent_subtasks=draw(st.sampled_from([0, 0, 1, 2])),
        verbatim_budget_tokens=draw(st.sampled_from([0, 0, 30, 400, 2000])),
        min_tokens=draw(st.sampled_from([0, 0, 100, 1000])),
        exclude_tools=draw(st.sampled_from([(), (), ("read_file",), ("search", "Bash")])),
        plan_tools=draw(st.sampled_from([(), PLAN_TOOLS])),
        price_cached=draw(st.sampled_from([0.1, 0.25, 0.9])),
        price_write=draw(st.sampled_from([1.25, 1.0, 0.1])),
    )
    running = Running(
        keep_rounds=draw(st.sampled_from([1, 1, 2])),
        window_tokens=draw(st.sampled_from([0, 200, 1500, 4000])) if window else 0,
    )
    return Settings(collapse=collapse, running=running)


def rewritten(wire: Wire, api: str, provider: str, settings: Settings, **options: Any) -> Any:
    result = rewrite_history(wire, api=api, provider=provider, settings=settings, **options)
    assert result.limited == "", result.error
    return result


def faults(wire: Wire, api: str, provider: str) -> list[str]:
    """Broken rules but for those of ids that Anthropic's own servers made."""
    found = judge(wire, provider, api)
    return [fault.rule for fault in found if not any(i.startswith("srvtoolu") for i in fault.ids)]


def planned(wire: Wire, draw: Any) -> Wire:
    """A chat whose tool rounds are parted by calls of a plan tool, in which more and more steps are done."""
    out: Wire = []
    done = 0
    for message in wire:
        if message.get("tool_calls") and draw(st.booleans()):
            done += draw(st.integers(0, 1))
            steps = [{"content": f"step {n}", "status": "completed" if n < done else "pending"} for n in range(9)]
            call_id = f"todo{len(out):05d}"
            function = {"name": "TodoWrite", "arguments": json.dumps({"todos": steps})}
            out.append(
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": call_id, "type": "function", "function": function}],
                }
            )
            out.append({"role": "tool", "tool_call_id": call_id, "content": "ok"})
        out.append(message)
    return out


# P2-P5, whatever is chosen


@relaxed
@given(st.data(), targets, chosen())
def test_p2_every_history_leaves_valid(data: st.DataObject, target: tuple[str, str], settings: Settings) -> None:
    api, provider = target
    if settings.collapse.summary_role == "system":  # that is put where it was asked for, whoever takes it there
        settings = replace(settings, collapse=replace(settings.collapse, summary_role="auto"))
    wire = data.draw(BROKEN[api]())
    before = faults(wire, api, provider)
    after = faults(rewritten(wire, api, provider, settings).messages, api, provider)
    assert [rule for rule in after if rule not in CLIENTS_OWN] == []
    assert sum(rule in CLIENTS_OWN for rule in after) <= sum(rule in CLIENTS_OWN for rule in before)


@relaxed
@given(st.data(), targets, chosen(window=False))
def test_p2_and_p3_a_single_subtask_leaves_byte_for_byte(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider))
    messages = CODECS[api].parse(wire)
    ends = completed(messages)
    end = ends[0] if ends else len(messages)
    source = messages[end - 1].source
    single = wire[: source + 1 if isinstance(source, int) else source[1]]
    assert rewritten(single, api, provider, settings).messages is single


@relaxed
@given(st.data(), targets, chosen())
def test_p4_the_prefix_breaks_only_where_the_report_says_so(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider, min_rounds=3))
    if api == "chat" and provider != "mistral":
        wire = planned(wire, data.draw)
    previous: Wire | None = None
    for request in prefixes(wire, api):
        result = rewritten(request, api, provider, settings)
        if previous is not None and not result.report.prefix_break:
            assert bytes_of(result.messages[: len(previous)]) == bytes_of(previous)
        previous = result.messages


@relaxed
@given(st.data(), targets, chosen(window=False))
def test_p4_while_a_subtask_runs_nothing_breaks(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider, min_rounds=3))
    previous: tuple[Wire, int] | None = None
    for request in prefixes(wire, api):
        closed = len(completed(CODECS[api].parse(request)))
        out = rewritten(request, api, provider, settings).messages
        if previous is not None and previous[1] == closed:
            assert bytes_of(out[: len(previous[0])]) == bytes_of(previous[0])
        previous = out, closed


@relaxed
@given(st.data(), targets, chosen())
def test_p4_a_memo_changes_no_answer(data: st.DataObject, target: tuple[str, str], settings: Settings) -> None:
    api, provider = target
    wire = data.draw(BROKEN[api]())
    if api == "chat":
        wire = planned(wire, data.draw)
    memo: dict[str, Any] = {}
    cut = data.draw(st.integers(1, len(wire)))
    for request in [*prefixes(wire, api), wire, wire[:cut], [*wire[:cut], wire[0]], wire]:
        with_memo = rewritten(copy.deepcopy(request), api, provider, settings, memo=memo)
        without = rewritten(request, api, provider, settings)
        assert bytes_of(with_memo.messages) == bytes_of(without.messages)
        assert with_memo.report == without.report


@relaxed
@given(st.data(), targets, chosen())
def test_p5_never_larger_than_what_came(data: st.DataObject, target: tuple[str, str], settings: Settings) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider))
    report = rewritten(wire, api, provider, settings).report
    assert report.bytes_after <= report.bytes_before == len(bytes_of(wire))


@relaxed
@given(st.data(), targets, chosen())
def test_p5_rewriting_a_rewritten_history_changes_nothing(
    data: st.DataObject, target: tuple[str, str], settings: Settings
) -> None:
    api, provider = target
    wire = data.draw(BROKEN[api]())
    if api == "chat" and settings.collapse.plan_tools:
        # A summary holds the calls that closed steps, so what was kept of several steps is one in its sight.
        settings = Settings(collapse=Collapse(settings.collapse.policy, plan_tools=PLAN_TOOLS))
        wire = planned(wire, data.draw)
    once = rewritten(wire, api, provider, settings).messages
    assert bytes_of(rewritten(once, api, provider, settings).messages) == bytes_of(once)


@relaxed
@given(st.data(), targets, chosen())
def test_own_summaries_are_left_alone(data: st.DataObject, target: tuple[str, str], settings: Settings) -> None:
    api, provider = target
    wire = data.draw(VALID[api](provider, min_rounds=3))
    once = rewrite_history(wire, api=api, provider=provider).messages
    again = rewritten(once, api, provider, settings).messages
    assert [text for text in _texts(again) if is_summary(text)][: len(_summaries(once))] == _summaries(once)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _texts(item)]


def _summaries(wire: Wire) -> list[str]:
    return [text for text in _texts(wire) if is_summary(text)]


# Conversations of known sizes

Turn = list[dict[str, Any]]


def turn(number: int, rounds: int = 3, tool: str = "look", rows: int = 20) -> Turn:
    """A completed subtask. Each result is a table of `rows` rows, about 25 tokens a row."""
    out: Turn = [{"role": "user", "content": f"Task {number}, please."}]
    for index in range(rounds):
        out += tool_round(f"c{number}_{index}", tool, {"page": index}, table(number * 100 + index, rows))
    return [*out, {"role": "assistant", "content": f"Task {number} is done."}]


def tool_round(call_id: str, tool: str, arguments: Any, result: str) -> Turn:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": call_id, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    ]


def table(seed: int, rows: int) -> str:
    return json.dumps(
        [{"id": f"row-{seed}-{n}", "state": "open", "note": "nothing to be seen here, move along"} for n in range(rows)]
    )


def talk(*turns: Turn) -> Wire:
    return [*[message for one in turns for message in one], {"role": "user", "content": "Go on."}]


def of(policy: Any = "always", running: Running | None = None, **options: Any) -> Settings:
    return Settings(collapse=Collapse(policy=policy, **options), running=running or Running())


def verbatim(out: Wire) -> list[str]:
    """Ids of the calls that left as they came."""
    return [call["id"] for message in out for call in message.get("tool_calls") or ()]


def out_of(wire: Wire, settings: Settings, **options: Any) -> Wire:
    return list(rewritten(wire, "chat", "openai", settings, **options).messages)


def breaks(wire: Wire, settings: Settings) -> list[str]:
    """Causes of the breaks of the prefix on the way to a conversation's end, as seen from outside and reported."""
    causes, previous = [], None
    memo: dict[str, Any] = {}
    for request in prefixes(wire):
        result = rewritten(request, "chat", "openai", settings, memo=memo)
        if previous is not None and result.messages[: len(previous)] != previous:
            causes.append(result.report.prefix_break)
        previous = result.messages
    return causes


# What each setting does


def test_the_newest_subtasks_stay() -> None:
    wire = talk(*[turn(n) for n in range(5)])
    out = out_of(wire, of(keep_recent_subtasks=2))
    assert verbatim(out) == ["c3_0", "c3_1", "c3_2", "c4_0", "c4_1", "c4_2"]
    assert len(_summaries(out)) == 3
    assert out[len(out) - 17 :] == wire[len(wire) - 17 :]
    assert out_of(wire, of(keep_recent_subtasks=5)) == wire


def test_the_newest_rounds_stay_up_to_the_budget() -> None:
    wire = talk(*[turn(n) for n in range(3)])
    rounds = [sum(map(message_tokens, pair)) for pair in _pairs(wire)]
    out = out_of(wire, of(verbatim_budget_tokens=rounds[-1] + rounds[-2] + rounds[-3] + rounds[-4]))
    assert verbatim(out) == ["c1_2", "c2_0", "c2_1", "c2_2"]
    assert verbatim(out_of(wire, of(verbatim_budget_tokens=sum(rounds[-4:]) - 1))) == ["c2_0", "c2_1", "c2_2"]
    assert out_of(wire, of(verbatim_budget_tokens=sum(rounds))) == wire


def _pairs(wire: Wire) -> list[Any]:
    messages = chat.parse(wire)
    return [messages[index - 1 : index + 1] for index, message in enumerate(messages) if message.role is TOOL]


def test_a_subtask_that_the_budget_parts_counts_once_and_keeps_its_first_summary() -> None:
    settings = of(verbatim_budget_tokens=900)
    turns = [turn(n) for n in range(3)]
    first, second = (rewritten(talk(*turns[:n]), "chat", "openai", settings) for n in (1, 2))
    assert verbatim(first.messages)[0] == "c0_2" and verbatim(second.messages)[0] == "c1_2"
    assert _summaries(second.messages)[0] == _summaries(first.messages)[0]
    assert (first.report.subtasks_collapsed, second.report.subtasks_collapsed) == (1, 2)
    assert len(_summaries(second.messages)) == 3


def test_the_rest_of_a_subtask_that_the_budget_parted_is_not_small_by_itself() -> None:
    settings = of(verbatim_budget_tokens=900, min_tokens=1200)
    wire = talk(*[turn(n) for n in range(4)])
    memo: dict[str, Any] = {}
    for request in prefixes(wire):
        assert out_of(request, settings, memo=memo) == out_of(request, settings)
    assert verbatim(out_of(wire, settings)) == ["c3_2"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_rounds_with_an_excluded_tool_stay(provider: str) -> None:
    mixed = turn(0, rounds=2) + turn(1, rounds=1, tool="keep") + turn(2, rounds=2)
    mixed = [message for message in mixed if message["role"] != "assistant" or message.get("tool_calls")]
    mixed = [mixed[0], *[m for m in mixed[1:] if m["role"] != "user"], {"role": "assistant", "content": "done"}]
    out = rewritten(talk(mixed), "chat", provider, of(exclude_tools=("keep",))).messages
    assert verbatim(out) == ["c1_0"]
    assert len(_summaries(out)) == 1
    assert faults(out, "chat", provider) == []
    assert out_of(talk(turn(0)), of(exclude_tools=("look",))) == talk(turn(0))


def test_a_small_subtask_stays() -> None:
    wire = talk(turn(0, rounds=1), turn(1, rounds=4))
    sizes = [sum(map(message_tokens, pair)) for pair in _pairs(wire)]
    assert verbatim(out_of(wire, of(min_tokens=sizes[0] + 1))) == ["c0_0"]
    assert verbatim(out_of(wire, of(min_tokens=sizes[0]))) == []
    assert verbatim(out_of(wire, of(min_tokens=sum(sizes[1:]) + 1))) == verbatim(wire)


# Economical


@pytest.mark.parametrize(
    ("before", "after", "replies", "expected"),
    [
        (10_000, 1_000, 1, True),  # 3.5 requests: 1000 - 1250 + 2250
        (10_000, 3_000, 1, False),  # 1000 - 3750 + 1750
        (10_000, 3_000, 19, False),  # 4.75 requests: 1000 - 3750 + 2625
        (10_000, 3_000, 20, True),  # 5: 1000 - 3750 + 2800
        (10_000, 10_000, 900, False),
    ],
)
def test_a_collapse_pays_if_what_it_saves_is_more_than_what_is_written_anew(
    before: int, after: int, replies: int, expected: bool
) -> None:
    assert pays(before, after, replies, Prices()) is expected


def test_where_writing_costs_nothing_economical_is_always() -> None:
    wire = talk(*[turn(n) for n in range(4)])
    cheap = of("economical", price_write=0.0)
    assert out_of(wire, cheap) == out_of(wire, of())
    assert out_of(wire, of("economical", price_cached=0.0)) == wire


def test_economical_waits_and_then_collapses_all_that_waits_in_one_step() -> None:
    wire = talk(*[turn(n, rounds=1, rows=5) for n in range(30)])
    seen = breaks(wire, of("economical"))
    assert seen and set(seen) == {"subtask"}
    assert len(seen) < len(breaks(wire, of()))
    counts = [rewritten(r, "chat", "openai", of("economical")).report.subtasks_collapsed for r in prefixes(wire)]
    assert all(later >= earlier for earlier, later in pairwise(counts))
    assert max(later - earlier for earlier, later in pairwise(counts)) > 1


def test_economical_counts_what_is_kept_among_what_is_read_anew() -> None:
    wire = talk(*[turn(n) for n in range(16)])
    kept = breaks(wire, of("economical", keep_recent_subtasks=3))
    assert 0 < len(kept) < len(breaks(wire, of(keep_recent_subtasks=3)))
    assert {f"c{n}_2" for n in (13, 14, 15)} <= set(verbatim(out_of(wire, of("economical", keep_recent_subtasks=3))))


# Plan tools


def plan(call_id: str, done: int, tool: str = "TodoWrite", steps: int = 6) -> Turn:
    states = ["completed" if n < done else "pending" for n in range(steps)]
    items: dict[str, Any] = {
        "TodoWrite": {"todos": [{"content": f"s{n}", "activeForm": "…", "status": s} for n, s in enumerate(states)]},
        "write_todos": {"todos": [{"description": f"s{n}", "status": s} for n, s in enumerate(states)]},
        "update_plan": {"explanation": "on", "plan": [{"step": f"s{n}", "status": s} for n, s in enumerate(states)]},
        "task_tracker": {
            "command": "plan",
            "task_list": [
                {"id": n, "title": "t", "notes": "", "status": "done" if s == "completed" else "todo"}
                for n, s in enumerate(states)
            ],
        },
    }
    return tool_round(call_id, tool, items[tool], "ok")


def worked(tool: str = "TodoWrite", steps: int = 3, rounds: int = 3) -> Wire:
    """One user message; a plan, and behind each step's rounds the call that says it is done."""
    wire = [{"role": "user", "content": "Do all of it."}, *plan("p0", 0, tool)]
    for step in range(steps):
        for index in range(rounds):
            wire += tool_round(f"w{step}_{index}", "look", {"n": index}, table(step * 10 + index, 20))
        wire += plan(f"p{step + 1}", step + 1, tool)
    return wire


@pytest.mark.parametrize("tool", PLAN_TOOLS)
@pytest.mark.parametrize("provider", ["openai", "anthropic", "hosted_vllm"])
def test_a_step_that_a_plan_tool_shows_as_done_closes_what_is_in_front_of_it(tool: str, provider: str) -> None:
    wire = worked(tool)
    result = rewritten(wire, "chat", provider, of(plan_tools=(tool,)))
    assert verbatim(result.messages) == ["p3"]
    assert result.messages[-2:] == wire[-2:]
    assert result.report.subtasks_collapsed == 3
    assert "row-20-19" in "".join(_summaries(result.messages))
    assert faults(result.messages, "chat", provider) == []
    assert rewritten(wire, "chat", provider, of()).messages is wire


def test_one_break_a_step() -> None:
    assert breaks(worked(), of(plan_tools=("TodoWrite",))) == ["plan_step"] * 3


def test_a_plan_that_shows_no_progress_closes_nothing() -> None:
    wire = worked()[:9] + plan("p8", 0) + plan("p9", 0)
    assert out_of(wire, of(plan_tools=("TodoWrite",))) == wire
    assert out_of(worked(), of(plan_tools=("update_plan",))) == worked()


@pytest.mark.parametrize(
    "arguments", ["", "[]", "{", '{"todos": 3}', '{"todos": [{"status": ["completed"]}]}', "\ud800"]
)
def test_arguments_that_are_no_plan_are_none(arguments: str) -> None:
    messages = chat.parse(worked()[1:2])
    odd = messages[0]._replace(calls=(messages[0].calls[0]._replace(arguments=arguments),))
    assert [call.closes for call in plan_calls([odd], ("TodoWrite",), {})] in ([], [False])


# Pressure


def hours(rounds: int, rows: int = 20) -> Wire:
    wire: Wire = [{"role": "system", "content": "Be careful."}, {"role": "user", "content": "Work through all of it."}]
    for index in range(rounds):
        wire += tool_round(f"w{index}", "look", {"page": index}, table(index, rows))
    return wire


def size_of(wire: Wire) -> int:
    return sum(map(message_tokens, chat.parse(wire)))


@pytest.mark.parametrize("provider", ["openai", "anthropic", "mistral", "hosted_vllm"])
def test_hours_of_work_under_one_user_message_take_few_large_steps(provider: str) -> None:
    window, keep = 40_000, 5
    settings = of(running=Running(window_tokens=window, keep_rounds=keep))
    wire = hours(300)
    assert size_of(wire) > 4 * window
    memo: dict[str, Any] = {}
    broken, previous, steps = 0, None, 0
    for request in prefixes(wire):
        result = rewritten(request, "chat", provider, settings, memo=memo)
        out = result.messages
        assert size_of(out) <= window
        assert faults(out, "chat", provider) == [] or provider == "mistral"  # whose ids have nine characters
        assert [c[:4] for c in verbatim(request)[-keep:]] == [
            c[:4] for c in verbatim(out)[-keep:]
        ] or provider == "mistral"
        if previous is not None and bytes_of(out[: len(previous)]) != bytes_of(previous):
            broken += 1
            assert result.report.prefix_break == "pressure"
            assert result.report.pressure_steps == steps + 1
        else:
            assert result.report.prefix_break == ""
        previous, steps = out, result.report.pressure_steps
    assert broken == steps
    assert 1 <= broken <= 20
    assert out == rewritten(wire, "chat", provider, settings).messages


def test_nothing_happens_below_the_trigger_without_a_window_or_with_never() -> None:
    wire = hours(40)
    assert out_of(wire, of(running=Running(window_tokens=0))) == wire
    assert out_of(wire, of("never", running=Running(window_tokens=1_000))) == wire
    assert out_of(wire, of(running=Running(window_tokens=2 * size_of(wire)))) == wire


def test_a_step_takes_along_what_waits_in_closed_subtasks() -> None:
    wire = [*talk(*[turn(n) for n in range(4)]), *hours(12)[2:]]
    settings = of(keep_recent_subtasks=4, running=Running(window_tokens=size_of(wire), keep_rounds=3))
    result = rewritten(wire, "chat", "openai", settings)
    assert verbatim(out_of(talk(*[turn(n) for n in range(4)]), settings)) != []
    assert not [call for call in verbatim(result.messages) if call.startswith("c")]
    assert verbatim(result.messages)[-3:] == ["w9", "w10", "w11"]
    assert result.report.pressure_steps == 1


@relaxed
@given(st.lists(st.integers(0, 60), min_size=5, max_size=60), st.integers(1, 4), st.integers(2_000, 20_000))
def test_a_request_that_a_collapse_makes_fit_fits(sizes: list[int], keep: int, window: int) -> None:
    wire: Wire = [{"role": "user", "content": "Work."}]
    for index, rows in enumerate(sizes):
        wire += tool_round(f"w{index}", "look", {"page": index}, table(index, rows))
    settings = of(running=Running(window_tokens=window, keep_rounds=keep))
    steps = 0
    for request in prefixes(wire):
        result = rewritten(request, "chat", "openai", settings)
        assert verbatim(result.messages)[-keep:] == verbatim(request)[-keep:]
        size, rounds = size_of(result.messages), [sum(map(message_tokens, pair)) for pair in _pairs(result.messages)]
        # What is still too large would be so without its old rounds too; 200 tokens are hardly worth a summary.
        assert size <= window or size - sum(rounds[:-keep]) > window - 200
        steps = result.report.pressure_steps
    total = size_of(wire)
    assert steps <= 4 + 12 * total / window


# Subtasks that the client names


@relaxed
@given(st.data(), st.sampled_from(PROVIDERS), chosen())
def test_p4_a_memo_changes_no_answer_where_the_client_says_what_ends(
    data: st.DataObject, provider: str, settings: Settings
) -> None:
    wire = planned(data.draw(broken_chats()), data.draw)
    path = read(wire, "chat")
    assert path is not None
    nodes = data.draw(st.lists(st.sampled_from([node for node in path.node_ids if node] or [""]), max_size=3))
    memo: dict[str, Any] = {}
    for request in [*prefixes(wire), wire]:
        seen = read(request, "chat")
        known = frozenset(nodes) & frozenset(seen.node_ids if seen else ())
        said = Context(ends=known)
        with_memo = rewritten(copy.deepcopy(request), "chat", provider, settings, memo=memo, context=said)
        without = rewritten(request, "chat", provider, settings, context=said)
        assert bytes_of(with_memo.messages) == bytes_of(without.messages)
        assert with_memo.report == without.report
