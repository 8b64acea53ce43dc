"""The comparison with other tools: its conversations, its measures on cases counted by hand, every adapter."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conversations import KINDS, requests, tables
from tests.benchmarks.peers.malformed import MALFORMED, repaired
from tests.benchmarks.peers.measures import Bill, Home, beside, evaluate, figures, replayed
from tests.benchmarks.peers.own import OWN
from tests.benchmarks.peers.peer import Editor, Peer
from tests.benchmarks.peers.report import PEERS, recorded, table
from tests.benchmarks.peers.text import tokens
from tests.validators import violations

ALWAYS = OWN[0]
SAVES = {
    "proxy_plugin, always",
    "litellm.compress",
    "litellm clear_tool_uses",
    "litellm.trim_messages",
    "LangChain ClearToolUsesEdit",
    "LangChain SummarizationMiddleware",
    "openai-agents ToolOutputTrimmer",
    "pydantic-ai-harness ClearToolResults",
    "Anthropic clear_tool_uses",
    "OpenHands condenser",
    "OpenHands observation masking",
    "SWE-agent last_n_observations",
}


def call(call_id: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": "do", "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(call_id: str, value: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": json.dumps(value)}


ROWS = [{"order": "ORD-11111", "total": 12.75}, {"order": "ORD-22222", "total": 98.25}]
CASE: list[dict[str, Any]] = [
    {"role": "user", "content": "List my orders for a@example.org."},
    call("c1", mail="a@example.org"),
    result("c1", ROWS),
    {"role": "assistant", "content": "There are two."},
    {"role": "user", "content": "Pay the second one."},
    call("c2", order="ORD-22222", amount=98.25),
    result("c2", {"payment": "pay_777777"}),
    call("c3", payment="pay_777777"),
]


class Bag(Editor):
    """Keeps the prior subtask's values, and none of them where it belongs."""

    def edit(self, native: Any) -> Any:
        if len(native) < 5:
            return native
        rows = "ORD-11111 ORD-22222" + " " * 400 + "\n12.75 98.25"
        return [native[0], {"role": "user", "content": rows}, *native[3:]]


class Forget(Editor):
    """Drops the prior subtask's tool messages."""

    def edit(self, native: Any) -> Any:
        return native if len(native) < 5 else [native[0], *native[3:]]


def measured(editor: Editor) -> dict[str, float | None]:
    return figures(evaluate(replayed(CASE), editor))


def test_what_later_calls_need() -> None:
    needs = [{(need.value, need.prior) for need in request.needs} for request in replayed(CASE)]
    # the e-mail stands in the user's own text; a final text calls nothing
    assert needs == [set(), set(), {("ORD-22222", True), ("98.25", True)}, {("pay_777777", False)}]


def test_sending_everything_keeps_everything() -> None:
    assert measured(Editor()) == {
        "tokens": 100, "cost_1.0": 100, "cost_1.25": 100, "breaks": 0, "pairs": 3, "values": 100, "prior": 100,
        "beside": 100, "requests": 4, "invalid": 0, "spoiled": 0, "failed": 0,
    }  # fmt: skip


def test_forgetting_is_seen() -> None:
    got = measured(Forget())
    assert (got["prior"], got["values"], got["breaks"], got["invalid"]) == (0, pytest.approx(100 / 3), 1, 0)


def test_values_away_from_their_object_are_kept_but_not_beside() -> None:
    got = measured(Bag())
    assert (got["prior"], got["beside"]) == (100, 0)


def test_an_editor_that_raises_is_counted_and_sends_what_it_got() -> None:
    class Broken(Editor):
        def edit(self, native: Any) -> Any:
            raise RuntimeError

    got = measured(Broken())
    assert (got["failed"], got["tokens"], got["values"]) == (4, 100, 100)


def test_an_orphaned_result_is_an_invalid_request() -> None:
    class Orphan(Editor):
        def edit(self, native: Any) -> Any:
            return [message for message in native if message != CASE[1]]

    got = measured(Orphan())
    assert (got["requests"], got["invalid"], got["spoiled"]) == (4, 3, 3)


def test_cached_cost_counts_the_common_beginning() -> None:
    first, second, other = ({"role": "user", "content": text} for text in ("one two three", "four five", "six"))
    bill = Bill()
    for messages in ([first], [first, second], [first, other]):
        bill.add(messages)
    sent = 3 * tokens(first) + tokens(second) + tokens(other)
    cached = 2 * tokens(first)
    assert (bill.sent, bill.cached, bill.breaks) == (sent, cached, 1)
    assert bill.cost(1.25) == pytest.approx(0.1 * cached + 1.25 * (sent - cached))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id":"A-1001","sum":50.25},{"id":"A-1002","sum":70.75}', True),
        ("A-1001 | 70.75\nA-1002 | 50.25", False),  # in the other row
        ("A-1001 | 50.25\nA-1002 | 70.75", True),
        ("A-1001\n" + "." * 400 + "\n50.25", False),  # far away
        ("A-1001 and nothing else", False),
        ("A-1001 | 150.25", False),  # part of another number
    ],
)
def test_beside(text: str, expected: bool) -> None:
    assert beside(text, "50.25", Home(frozenset({"A-1001"}), frozenset({"A-1002"}))) is expected


@pytest.mark.parametrize("kind", KINDS)
def test_generated_conversations(kind: str) -> None:
    make = KINDS[kind]
    messages = make(1)
    assert messages == make(1) != make(2)
    assert violations(messages, strict=True) == []
    needs = [need for request in replayed(messages) for need in request.needs]
    assert sum(need.prior for need in needs) >= 5
    assert any(not need.prior for need in needs)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_histories_are_refused_and_the_plugin_repairs_them(name: str) -> None:
    assert violations(MALFORMED[name])
    assert not repaired(Editor(), MALFORMED[name])
    assert repaired(ALWAYS.make(), MALFORMED[name])


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.missing], ids=lambda peer: peer.name)
def test_every_adapter(peer: Peer) -> None:
    """Of the tools that are there: those of the extra `bench` are compared with, and nothing depends on them."""
    editor = peer.make()
    for sent in requests(tables(1))[-3:]:
        before = copy.deepcopy(sent)
        out = editor(sent)
        assert sent == before
        assert isinstance(out, list) and all(isinstance(message, dict) for message in out)
        assert out[-1].get("tool_call_id") == sent[-1].get("tool_call_id")  # its text may be gone: litellm.compress
        if peer.name != "litellm.trim_messages":  # drops calls and leaves their results
            assert violations(out, strict=True) == []
    saved = sum(map(tokens, sent)) - sum(map(tokens, out))
    assert saved > 0 if peer.name in SAVES else saved >= 0


def test_a_recorded_folder(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": CASE}) + "\n" + json.dumps(CASE) + "\n")
    assert recorded(tmp_path, None) == {"chats": [CASE, CASE]}
    assert recorded(tmp_path, 1) == {"chats": [CASE]}
    (tmp_path / "chats.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match=r"chats\.jsonl:1"):
        recorded(tmp_path, None)


def test_a_missing_tool_has_a_row() -> None:
    row = {"name": "some tool", "version": "", "settings": "", "missing": "not installed"}
    assert "| some tool | not installed |" in table([row])
