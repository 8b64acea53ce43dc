"""Reading recordings: which requests were made, whatever wrote them down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy_plugin.replay.files import Recording
from tests.replay import recordings as made

Requests = list[list[Any]]


def read(path: Path, **options: Any) -> dict[str, tuple[str, str, Requests]]:
    """Conversation id -> (api, provider, its requests); fails on a line that cannot be used."""

    def complain(number: int, what: str) -> None:
        pytest.fail(f"line {number}: {what}")

    return {
        conversation.id: (
            conversation.api,
            conversation.provider,
            [[json.loads(item) for item in exchange.items] for exchange in conversation.exchanges],
        )
        for conversation in Recording(path, complain, **options).conversations()
    }


def prefixes(wire: list[Any], *ends: int) -> Requests:
    return [wire[:end] for end in ends]


@pytest.mark.parametrize(
    ("line", "api", "provider", "ends"),
    [
        ({"messages": made.chat()}, "chat", "openai", (1, 3, 5, 7)),
        (made.chat(), "chat", "openai", (1, 3, 5, 7)),
        ({"messages": made.messages()}, "messages", "anthropic", (1, 3, 5, 7)),
        (made.messages(), "messages", "anthropic", (1, 3, 5, 7)),
        ({"input": made.responses()}, "responses", "openai", (1, 4, 6, 8)),
        (made.responses(), "responses", "openai", (1, 4, 6, 8)),
        ({"messages": made.chat(), "model": "mistral/mistral-large-latest"}, "chat", "mistral", (1, 3, 5, 7)),
        ({"messages": made.chat(), "custom_llm_provider": "bedrock"}, "chat", "bedrock", (1, 3, 5, 7)),
    ],
)
def test_a_line_is_the_requests_before_each_answer(
    tmp_path: Path, line: Any, api: str, provider: str, ends: tuple[int, ...]
) -> None:
    found = read(made.write(tmp_path / "some.jsonl", [line]))
    wire = line if isinstance(line, list) else line.get("messages") or line["input"]
    assert found == {"some-1": (api, provider, prefixes(wire, *ends))}


def test_what_the_options_say_wins(tmp_path: Path) -> None:
    texts = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    path = made.write(tmp_path / "some.jsonl", [{"id": "one", "messages": texts}])
    assert read(path, api="messages", provider="bedrock") == {"one": ("messages", "bedrock", prefixes(texts, 1))}


def test_text_that_orjson_refuses_is_read(tmp_path: Path) -> None:
    path = made.write(
        tmp_path / "odd.jsonl",
        ['[{"role":"user","content":"\\ud800"},{"role":"assistant","content":"x"}]'],
    )
    assert read(path)["odd-1"][2] == [[{"role": "user", "content": "\ud800"}]]


class TestLiteLLM:
    def test_requests_are_sorted_into_their_sessions(self, tmp_path: Path) -> None:
        """Two sessions in which the same was said, and a side request of one of them."""
        one = made.payloads(made.chat(), trace_id="one")
        two = made.payloads(made.chat(), trace_id="two")
        title = made.payloads([{"role": "user", "content": "A title?"}, {"role": "assistant", "content": "Ada"}])
        title[0]["trace_id"] = "one"
        mixed = [line for pair in zip(one, two, strict=True) for line in pair]
        found = read(made.write(tmp_path / "log.jsonl", [mixed[0], *title, *mixed[1:]]))
        expected = prefixes(made.chat(), 1, 3, 5, 7)
        assert {name: requests for name, (_, _, requests) in found.items()} == {
            "one": expected,
            "one#2": [title[0]["messages"]],
            "two": expected,
        }

    def test_without_a_session_the_opening_and_the_first_answer_tell(self, tmp_path: Path) -> None:
        other = made.chat()
        other[1] = made.call("call_other", "look_up", made.LOOK_UP)
        other[2] = made.result("call_other", made.FOUND)
        mixed = [line for pair in zip(made.payloads(made.chat()), made.payloads(other), strict=True) for line in pair]
        found = read(made.write(tmp_path / "log.jsonl", mixed))
        assert [requests for _, _, requests in found.values()] == [
            prefixes(made.chat(), 1, 3, 5, 7),
            prefixes(other, 1, 3, 5, 7),
        ]

    def test_the_endpoint_and_the_provider_are_the_logged_ones(self, tmp_path: Path) -> None:
        fields = {"call_type": "anthropic_messages", "custom_llm_provider": "bedrock"}
        converted = {"choices": [{"message": made.call("call_1", "look_up", made.LOOK_UP)}]}
        lines = made.payloads(made.messages(), **fields, response=converted)
        embedding = {**lines[0], "call_type": "aembedding", "messages": ["some text"]}
        found = read(made.write(tmp_path / "log.jsonl", [embedding, *lines]))
        ((api, provider, requests),) = found.values()
        assert (api, provider) == ("messages", "bedrock")
        assert requests == prefixes(made.messages(), 1, 3, 5, 7)

    def test_a_plain_string_as_input_is_one_user_message(self, tmp_path: Path) -> None:
        line = {"call_type": "aresponses", "messages": "Hello", "response": {"output": []}, "trace_id": "r"}
        found = read(made.write(tmp_path / "log.jsonl", [line]))
        assert found == {"r": ("responses", "openai", [[{"role": "user", "content": "Hello"}]])}


class TestClaudeCode:
    def test_a_session_that_went_straight_on(self, tmp_path: Path) -> None:
        found = read(made.write(tmp_path / "x.jsonl", made.claude_code(made.messages())))
        assert found == {"session-cc": ("messages", "anthropic", prefixes(made.messages(), 1, 3, 5, 7))}

    def test_blocks_and_parallel_results_become_one_message_again(self, tmp_path: Path) -> None:
        """An answer of three lines; the first result was there before its last line was written."""
        asked = {"role": "user", "content": "Both, please."}
        blocks = [{"type": "text", "text": "Two look-ups."}, made.use("a", "f", "{}"), made.use("b", "f", "{}")]
        done = {"role": "assistant", "content": [{"type": "text", "text": "Done."}]}

        def block(index: int) -> made.Json:
            return {"role": "assistant", "id": "msg_1", "model": "claude", "content": [blocks[index]]}

        lines = [
            made.transcript_line(0, None, asked),
            made.transcript_line(1, 0, block(0)),
            made.transcript_line(2, 1, block(1)),
            made.transcript_line(3, 2, {"role": "user", "content": [made.answer("a", "1")]}),
            made.transcript_line(4, 2, block(2)),
            made.transcript_line(5, 4, {"role": "user", "content": [made.answer("b", "2")]}),
            made.transcript_line(6, 5, {"role": "user", "content": "And quickly."}),
            made.transcript_line(7, 6, {**done, "id": "msg_2", "model": "claude"}),
        ]
        results = [made.answer("a", "1"), made.answer("b", "2"), {"type": "text", "text": "And quickly."}]
        ((_, _, requests),) = read(made.write(tmp_path / "x.jsonl", lines)).values()
        assert requests == [
            [asked],
            [asked, {"role": "assistant", "content": blocks}, {"role": "user", "content": results}],
        ]

    def test_a_rewound_session_goes_on_from_where_it_was_rewound_to(self, tmp_path: Path) -> None:
        def user(text: str) -> made.Json:
            return {"role": "user", "content": text}

        def model(text: str) -> made.Json:
            return {"role": "assistant", "content": [{"type": "text", "text": text}]}

        lines = [
            made.transcript_line(0, None, user("A")),
            made.transcript_line(1, 0, {**model("1"), "id": "m1"}),
            made.transcript_line(2, 1, user("B")),
            made.transcript_line(3, 2, {**model("2"), "id": "m2"}),
            made.transcript_line(4, 1, user("C")),
            made.transcript_line(5, 4, {**model("3"), "id": "m3"}),
        ]
        ((_, _, requests),) = read(made.write(tmp_path / "x.jsonl", lines)).values()
        assert requests == [
            [user("A")],
            [user("A"), model("1"), user("B")],
            [user("A"), model("1"), user("C")],
        ]

    def test_a_subagent_is_a_conversation_of_its_own(self, tmp_path: Path) -> None:
        side = [
            made.transcript_line(number + 100, number + 99 if number else None, {**m, "id": f"s{number}"})
            for number, m in enumerate(made.messages()[:4])
        ]
        lines = [*made.claude_code(made.messages()), *({**line, "isSidechain": True} for line in side)]
        found = read(made.write(tmp_path / "x.jsonl", lines))
        assert {name: len(requests) for name, (_, _, requests) in found.items()} == {
            "session-cc": 4,
            "session-cc#2": 2,
        }

    def test_what_the_client_wrote_itself_was_no_request(self, tmp_path: Path) -> None:
        lines = made.claude_code(made.messages()[:2])
        refused = {"role": "assistant", "model": "<synthetic>", "content": [{"type": "text", "text": "API Error"}]}
        lines.insert(-1, made.transcript_line(2, 1, refused, isApiErrorMessage=True))
        ((_, _, requests),) = read(made.write(tmp_path / "x.jsonl", lines)).values()
        assert requests == prefixes(made.messages(), 1)


class TestCodex:
    def test_a_session(self, tmp_path: Path) -> None:
        found = read(made.write(tmp_path / "rollout-1.jsonl", made.codex(made.responses())))
        assert found == {"session-codex": ("responses", "openai", prefixes(made.responses(), 1, 4, 6, 8))}

    def test_a_compaction_replaces_what_came_before(self, tmp_path: Path) -> None:
        lines = made.codex(made.responses()[:5])
        left = [made.said("user", "What was said before: Ada is a customer.")]
        lines.append({"type": "compacted", "payload": {"message": "", "replacement_history": left}})
        lines += made.codex(made.responses()[5:7])
        ((_, _, requests),) = read(made.write(tmp_path / "rollout-1.jsonl", lines)).values()
        assert requests == [*prefixes(made.responses(), 1, 4), [*left, made.responses()[5]]]
