"""The levels of rewriting: their measures on a conversation counted by hand, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conversations import conversation
from tests.benchmarks.levels.conversations import recorded
from tests.benchmarks.levels.errors import error_line
from tests.benchmarks.levels.figures import Figures, figures
from tests.benchmarks.levels.needs import needs_of
from tests.benchmarks.levels.replay import Recording, Rewriting
from tests.benchmarks.levels.report import main
from tests.benchmarks.levels.timing import Times, times, timing
from tests.benchmarks.peers.peer import Message
from tests.benchmarks.peers.text import tokens


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def call(call_id: str, **arguments: Any) -> Message:
    function = {"name": "do", "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(call_id: str, value: Any) -> Message:
    content = value if isinstance(value, str) else json.dumps(value)
    return {"role": "tool", "tool_call_id": call_id, "content": content}


ROWS = [{"order": "ORD-11111", "total": 1812.75}, {"order": "ORD-22222", "total": 9128.25}]
SCRIPT = "from shop import pay\npay('src/pay/late.py', 9128.25)"
CASE = [
    user("List the orders of a@example.org."),  # 0
    call("c1", mail="a@example.org"),  # 1: the user said it
    result("c1", ROWS),  # 2
    call("c2", file="late"),  # 3: four letters, but nobody said it
    result("c2", "Error: src/pay/late.py is locked\nTry again."),  # 4
    said("There are two."),  # 5
    user("Pay the second one."),  # 6
    call("c3", order="ORD-22222", code=SCRIPT),  # 7
    result("c3", {"payment": "pay_777777"}),  # 8
    call("c4", payment="pay_777777"),  # 9: of the running subtask
    result("c4", "ok"),  # 10
    said("ORD-22222 is paid: pay_777777."),  # 11
]
REQUESTS = (1, 3, 5, 7, 9, 11)
CLOSED_AT = 7  # from this request on the first subtask is completed


def nothing(messages: list[Message]) -> list[Message]:
    return messages


def forgets(messages: list[Message]) -> list[Message]:
    """Drops the completed subtask's tool messages."""
    return messages if len(messages) < CLOSED_AT else [messages[0], *messages[5:]]


def summary(text: str) -> Rewriting:
    def rewriting(messages: list[Message]) -> list[Message]:
        collapsed = [messages[0], {"role": "system", "content": text}, *messages[5:]]
        return messages if len(messages) < CLOSED_AT else collapsed

    return rewriting


def measured(rewriting: Rewriting, messages: list[Message] = CASE) -> Figures:
    return figures([Recording(messages, "openai").replay(rewriting)])


def test_what_later_messages_use() -> None:
    used = {reply: [(need.value, need.kind) for need in needs] for reply, needs in needs_of(CASE).items()}
    assert used == {
        1: [],
        3: [],
        5: [],
        7: [("ORD-22222", "leaf"), ("src/pay/late.py", "atom"), ("9128.25", "atom")],
        9: [],
        11: [],  # call 7 has ORD-22222 again, and it belongs to the running subtask
    }


def test_sending_everything() -> None:
    got = measured(nothing)
    assert {got[name] for name in ("tokens", "cost_1.0", "cost_1.25", "worst", "stable")} == {100}
    assert (got["removed"], got["requests"], got["running_valid"], got["running_changed"]) == (0, 6, 6, 0)
    assert (got["refused_before"], got["refused_after"]) == (0, 0)
    assert {got[name] for name in ("leaf", "atom", "assoc", "errors")} == {100}
    # assoc: ORD-22222 and its amount; errors: requests 7, 9 and 11
    assert [got[f"{name}_n"] for name in ("leaf", "atom", "answer", "assoc", "errors")] == [1, 2, 0, 2, 3]


def test_tokens_cost_and_stability_of_forgetting() -> None:
    size = [tokens(message) for message in CASE]
    before = [sum(size[:end]) for end in REQUESTS]
    gone = sum(size[1:5])  # in the last three requests
    after = [*before[:3], *(total - gone for total in before[3:])]
    # Request 7 begins as the one before it with the first message alone.
    cached = [0, before[0], before[1], size[0], after[3], after[4]]
    shared = {  # both differ from there, in messages of different roles: nothing more in common
        write: sum(0.1 * old + write * (new - old) for old, new in zip(cached, after, strict=True))
        for write in (1.0, 1.25)
    }
    sent = {write: before[-1] * write + 0.1 * sum(before[:-1]) for write in (1.0, 1.25)}
    got = measured(forgets)
    assert got["tokens"] == pytest.approx(100 * sum(after) / sum(before))
    assert got["removed"] == pytest.approx(100)
    assert got["cost_1.0"] == pytest.approx(100 * shared[1.0] / sent[1.0])
    assert got["cost_1.25"] == got["worst"] == pytest.approx(100 * shared[1.25] / sent[1.25])
    assert got["stable"] == 80
    assert [got[name] for name in ("leaf", "atom", "assoc", "errors", "running_changed")] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "leaf", "atom", "assoc", "errors"),
    [
        # An order is known by what was asked for, an amount by its order.
        ("mail=a@example.org: order | total\nORD-11111 | 1812.75\nORD-22222 | 9128.25", 100, 50, 100, 0),
        ("mail=a@example.org: order | total\nORD-11111 | 9128.25\nORD-22222 | 1812.75", 100, 50, 50, 0),
        ("order | total\nORD-11111 | 1812.75\nORD-22222 | 9128.25", 100, 50, 50, 0),
        ("mail=a@example.org:\nORD-11111 | 1812.75\nORD-22222 | 9128.25", 100, 50, 0, 0),  # no field is named
        ("Error: src/pay/late.py is locked", 0, 50, 0, 100),
        ("order ORD-222223", 0, 0, 0, 0),  # another id
    ],
)
def test_what_a_summary_keeps(text: str, leaf: float, atom: float, assoc: float, errors: float) -> None:
    got = measured(summary(text))
    assert [got[name] for name in ("leaf", "atom", "assoc", "errors")] == [leaf, atom, assoc, errors]


def test_a_changed_running_part_and_an_orphan_are_seen() -> None:
    got = measured(lambda messages: [*messages[:-1], {**messages[-1], "content": "…"}])
    assert (got["running_valid"], got["running_changed"], got["refused_after"]) == (6, 6, 0)
    got = measured(lambda messages: [message for message in messages if message != CASE[1]])
    assert (got["running_changed"], got["refused_before"], got["refused_after"]) == (2, 0, 5)


def test_ids_may_change_only_where_the_history_is_refused() -> None:
    def renames(messages: list[Message]) -> list[Message]:
        return json.loads(json.dumps(messages).replace("c3", "c3_2"))

    assert measured(renames)["running_changed"] == 2
    reused = json.loads(json.dumps(CASE).replace('"c1"', '"c3"'))
    got = measured(lambda messages: [*messages[:7], *renames(messages[7:])], reused)
    assert (got["refused_before"], got["refused_after"], got["running_changed"]) == (2, 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Error: no seat is left", "Error: no seat is left"),
        ("<tool_use_error>File does not exist.</tool_use_error>", "File does not exist."),
        ("make: *** [all] failed\nexited with code 2", "make: *** [all] failed"),
        ("Traceback (most recent call last):\n  File 'a.py'\nKeyError: 'total'", "KeyError: 'total'"),
        ('{"status": "failed", "message": "card 4411 expired\\nsorry"}', "card 4411 expired"),
        ('{"error": {"message": "no such order"}}', "no such order"),
        ('{"status": "ok", "message": "paid"}', ""),
        ("0 errors, 3 warnings", ""),
        ("The error page was found in 3 files.", ""),
    ],
)
def test_error_lines(text: str, expected: str) -> None:
    assert error_line(text) == expected


def test_only_requests_near_a_size_are_timed() -> None:
    seen: list[int] = []
    took = times(conversation(130), 100, lambda messages: [seen.append(len(messages)), messages][1])  # type: ignore
    assert len(took.floors) == len(took.rewritings) == len(seen) - 1  # the first one is not timed
    assert all(90 <= length <= 110 for length in seen[1:])
    assert timing([took]) is None or timing([took]).requests >= 10  # type: ignore[union-attr]
    assert timing([Times([1.0] * 20, [2.0] * 20)]).p50 == 2  # type: ignore[union-attr]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chats.jsonl").write_text(json.dumps({"id": "a", "messages": CASE}) + "\n\n" + json.dumps(CASE) + "\n")
    (tmp_path / "more.jsonl").write_text(json.dumps({"messages": CASE}) + "\n")
    main(["--data", str(tmp_path), "--policy", "always", "--policy", "never", "--json"])
    rows = json.loads(capsys.readouterr().out)["levels"]
    names = ("chats", "more", "total")
    assert [(row["source"], row["policy"]) for row in rows] == [(n, p) for n in names for p in ("always", "never")]
    assert [row["figures"]["requests"] for row in rows] == [12, 12, 6, 6, 18, 18]
    for row in rows:
        assert (row["figures"]["refused_after"], row["figures"]["running_changed"]) == (0, 0)
        assert row["figures"]["tokens"] == 100 or row["policy"] == "always"
    main(["--data", str(tmp_path)])
    assert "| total | always | 18 | 0 → 0 | 0 |" in capsys.readouterr().out


def test_a_line_that_is_no_conversation_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no conversation"):
        recorded(tmp_path)
    (tmp_path / "chats.jsonl").write_text("[]\n{}\n")
    with pytest.raises(SystemExit, match=r"chats\.jsonl:2"):
        main(["--data", str(tmp_path)])
