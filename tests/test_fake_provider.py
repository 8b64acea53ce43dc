"""The fake provider: judges like a provider, answers like a model, and breaks on demand."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import fake_provider
from tests.fake_provider import FakeProvider, Reply, ReusingModel, cut, fail, hang, long_ids, one_id, thought_ids

Json = dict[str, Any]
PLAN = 'Please:\ncall search {"q": "boats"}\ncall search {"q": "trains"}\n\ncall book {"id": 7}'


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def post(provider: FakeProvider, messages: list[Any], **more: Any) -> httpx.Response:
    body = {"model": "m", "messages": messages, **more}
    return httpx.post(f"{provider.base_url}/chat/completions", json=body, timeout=20)


def reply_of(response: httpx.Response) -> Json:
    message: Json = response.json()["choices"][0]["message"]
    return message


def events(response: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def results(message: Json) -> list[Json]:
    return [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result {n}"}
        for n, call in enumerate(message["tool_calls"])
    ]


def test_a_plan_is_played_round_by_round_with_the_same_ids(provider: FakeProvider) -> None:
    messages = [user(PLAN)]
    first = reply_of(post(provider, messages))
    assert [(c["id"], c["function"]["arguments"]) for c in first["tool_calls"]] == [
        ("call_abc123", '{"q": "boats"}'),
        ("call_abc124", '{"q": "trains"}'),
    ]
    messages += [first, *results(first)]
    second = reply_of(post(provider, messages))
    assert [(c["id"], c["function"]["name"]) for c in second["tool_calls"]] == [("call_abc123", "book")]
    second["tool_calls"][0]["id"] = "call_renamed"
    messages += [second, *results(second)]
    final = reply_of(post(provider, messages))
    assert final["content"] == "Done after 3 results, the last of them: result 0"
    assert [request.outcome for request in provider.requests] == ["answered"] * 3


def test_the_model_plays_only_the_running_subtask(provider: FakeProvider) -> None:
    done = {"role": "assistant", "content": "done"}
    answer = reply_of(post(provider, [user("call a {}"), done, user("call b {}")]))
    assert [call["function"]["name"] for call in answer["tool_calls"]] == ["b"]
    assert reply_of(post(provider, [user("call a {}"), done, user("thanks")])).get("tool_calls") is None


def test_reused_ids_are_refused_in_the_providers_words(provider: FakeProvider) -> None:
    first = reply_of(post(provider, [user(PLAN)]))
    messages = [user(PLAN), first, *results(first)]
    messages += messages
    refused = post(provider, messages)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert refused.json()["error"]["message"].startswith(
        "Invalid parameter: Duplicate value for 'tool_call_id' of 'call_abc123'"
    )
    assert provider.refused() == provider.requests[-1:]
    assert provider.requests[-1].violations[0] == "messages[5].tool_calls[0]: reused-id: 'call_abc123'"


def test_a_gateway_hides_it_behind_403() -> None:
    with FakeProvider(gateway=True) as provider:
        orphan = {"role": "tool", "tool_call_id": "x", "content": "r"}
        refused = post(provider, [user("hi"), orphan])
        assert refused.status_code == 403
        assert "must be a response to a preceeding message" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        ("mistral", "Tool call id was a.b but must be a-z, A-Z, 0-9, with a length of 9."),
        ("anthropic", "String should match pattern"),
        ("gemini", "number of function response parts"),
        ("deepseek", "insufficient tool messages following tool_calls message"),
        ("hosted_vllm", "did not have response messages: a.b"),
    ],
)
def test_each_dialect_has_its_own_words(dialect: str, words: str) -> None:
    call = {"id": "a.b", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with FakeProvider(dialect) as provider:
        body = post(provider, [user("hi"), {"role": "assistant", "content": None, "tool_calls": [call]}]).json()
    told = body["message"] if dialect == "mistral" else body["error"]["message"]
    assert words in told


def test_ids_fit_the_dialect() -> None:
    with FakeProvider("mistral") as provider:
        assert reply_of(post(provider, [user("call f {}")]))["tool_calls"][0]["id"] == "abc123XYZ"


def test_a_history_that_only_strictness_refuses_is_still_answered() -> None:
    odd = {"role": "assistant", "content": "x", "tool_calls": ["no object"]}
    with FakeProvider(brain=ReusingModel()) as provider:
        assert post(provider, [user("hi"), odd]).status_code == 400
    with FakeProvider("gemini", strict=False) as provider:
        assert post(provider, [user("hi"), {**odd, "tool_calls": 7}]).status_code == 200


def test_a_request_is_kept_as_it_came(provider: FakeProvider) -> None:
    body = b'{"model": "m",  "messages": [{"role":"user","content":"hi"}]}'
    httpx.post(f"{provider.base_url}/chat/completions", content=body, headers={"X-Trace": "7"})
    request = provider.requests[0]
    assert (request.path, request.body, request.headers["x-trace"]) == ("/v1/chat/completions", body, "7")
    assert request.parsed["messages"] == request.messages == [user("hi")]
    assert provider.sent() == [[user("hi")]]


def test_usage_counts_the_common_prefix_as_cached(provider: FakeProvider) -> None:
    def usage(*messages: Json, model: str = "m") -> tuple[int, int]:
        told = post(provider, list(messages), model=model).json()["usage"]
        return told["prompt_tokens"], told["prompt_tokens_details"]["cached_tokens"]

    opening, answer = user("A long opening. " * 20), {"role": "assistant", "content": "yes"}
    first, cached = usage(opening)
    assert cached == 0
    longer, cached = usage(opening, answer, user("next"))
    assert first - 1 <= cached <= first < longer
    assert usage(opening, model="other")[1] == 0
    assert usage(user("Else. " * 20))[1] < first // 4


def test_a_stream_names_an_id_once_and_splits_the_arguments(provider: FakeProvider) -> None:
    response = post(provider, [user(PLAN)], stream=True, stream_options={"include_usage": True})
    assert response.text.endswith("data: [DONE]\n\n")
    chunks = events(response)
    deltas = [call for c in chunks if c["choices"] for call in c["choices"][0]["delta"].get("tool_calls", [])]
    assert [(d["index"], d["id"]) for d in deltas if "id" in d] == [(0, "call_abc123"), (1, "call_abc124")]
    pieces = [d["function"]["arguments"] for d in deltas if d["index"] == 1]
    assert len(pieces) == 4 and "".join(pieces) == '{"q": "trains"}'
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"]["prompt_tokens"] == provider.requests[0].prompt_tokens


def test_a_stream_of_text(provider: FakeProvider) -> None:
    provider.next(Reply(text="abcdef", chunks=2))
    chunks = events(post(provider, [user("hi")], stream=True))
    assert [c["choices"][0]["delta"].get("content") for c in chunks] == ["", "abc", "def", None]
    assert not any("usage" in chunk for chunk in chunks)


def test_failures_come_once_and_in_order(provider: FakeProvider) -> None:
    provider.next(fail(500), fail(429, "slow down"))
    responses = [post(provider, [user("hi")]) for _ in range(3)]
    assert [response.status_code for response in responses] == [500, 429, 200]
    assert responses[1].json()["error"] == {
        "message": "slow down",
        "type": "rate_limit_error",
        "param": None,
        "code": None,
    }
    assert [request.outcome for request in provider.requests] == ["failed", "failed", "answered"]


def test_a_refusal_uses_up_no_failure(provider: FakeProvider) -> None:
    provider.next(fail(500))
    assert post(provider, [{"role": "tool", "tool_call_id": "x", "content": ""}]).status_code == 400
    assert post(provider, [user("hi")]).status_code == 500


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_breaks_off(provider: FakeProvider, stream: bool) -> None:
    provider.next(cut(after=2))
    with pytest.raises(httpx.RemoteProtocolError):
        post(provider, [user("call f {}")], stream=stream)
    assert provider.requests[0].outcome == "cut"
    assert post(provider, [user("call f {}")], stream=stream).status_code == 200


def test_a_reply_hangs_until_its_event(provider: FakeProvider) -> None:
    event, answered = threading.Event(), threading.Event()
    provider.next(hang(event))

    def ask() -> None:
        post(provider, [user("hi")])
        answered.set()

    thread = threading.Thread(target=ask)
    thread.start()
    provider.wait_for(1)
    assert post(provider, [user("and me?")]).status_code == 200  # another one is served meanwhile
    assert not answered.is_set()
    event.set()
    thread.join(20)
    assert answered.is_set()


def test_a_stream_is_held_where_the_test_wants_it(provider: FakeProvider) -> None:
    gate = provider.hold(event=2)
    provider_reply = {"model": "m", "messages": [user("call f {}")], "stream": True}
    with httpx.stream("POST", f"{provider.base_url}/chat/completions", json=provider_reply, timeout=20) as response:
        data = (line for line in response.iter_lines() if line.startswith("data: "))
        assert "role" in next(data) and "call_abc123" in next(data)
        assert gate.reached.wait(20)
        gate.release()
        assert list(data)[-1] == "data: [DONE]"
    assert provider.requests[0].outcome == "answered"


def test_a_client_that_leaves_is_seen_and_the_server_still_ends() -> None:
    with FakeProvider() as provider:
        gate = provider.hold(event=1)
        body = {"model": "m", "messages": [user("hi")], "stream": True}
        with httpx.stream("POST", f"{provider.base_url}/chat/completions", json=body, timeout=20):
            assert gate.reached.wait(20)
    assert provider.requests[0].outcome == "disconnected"


def test_odd_ids_on_demand(provider: FakeProvider) -> None:
    provider.next(one_id, long_ids, thought_ids)
    ids = [[c["id"] for c in reply_of(post(provider, [user(PLAN)]))["tool_calls"]] for _ in range(3)]
    assert ids[0] == ["call_abc123", "call_abc123"]
    assert ids[1][0] != ids[1][1] and min(map(len, ids[1])) > 64
    head, signature = ids[2][0].split("__thought__")
    assert len(head) == len("call_") + 28 and signature and ids[2][0] != ids[2][1]


def test_a_brain_of_ones_own() -> None:
    with FakeProvider(brain=lambda request: Reply(text=f"{len(request.messages)} messages")) as provider:
        assert reply_of(post(provider, [user("a"), user("b")]))["content"] == "2 messages"


def test_the_clients_own_faults_are_refused_only_strictly() -> None:
    for strict in (True, False):
        with FakeProvider(strict=strict) as provider:
            assert post(provider, [{"role": "user", "content": None}]).status_code == (400 if strict else 200)


def test_the_endpoints_beside(provider: FakeProvider) -> None:
    vectors = httpx.post(f"{provider.base_url}/embeddings", json={"model": "e", "input": ["a", "b"]}).json()
    assert [len(entry["embedding"]) for entry in vectors["data"]] == [8, 8]
    completed = httpx.post(f"{provider.base_url}/completions", json={"model": "c", "prompt": "x"}).json()
    assert completed["choices"][0]["text"] == "Completed."
    assert httpx.get(f"{provider.base_url}/models").json()["data"][0]["id"] == "fake"
    assert [request.path for request in provider.requests] == ["/v1/embeddings", "/v1/completions", "/v1/models"]


# /v1/messages


def ask(provider: FakeProvider, messages: list[Any], **more: Any) -> httpx.Response:
    body = {"model": "claude", "max_tokens": 100, "messages": messages, **more}
    return httpx.post(f"{provider.url}/v1/messages", json=body, timeout=20)


def test_messages_plays_a_plan(provider: FakeProvider) -> None:
    messages = [user(PLAN)]
    for expected in (["toolu_abc123", "toolu_abc124"], ["toolu_abc123x"]):
        reply = ask(provider, messages).json()
        assert reply["stop_reason"] == "tool_use"
        content = reply["content"]
        if len(expected) == 1:
            assert [(block["id"], block["input"]) for block in content] == [("toolu_abc123", {"id": 7})]
            content[0]["id"] = "toolu_abc123x"
        assert [block["id"] for block in content] == expected
        answered = [{"type": "tool_result", "tool_use_id": block["id"], "content": "r"} for block in content]
        messages += [{"role": "assistant", "content": content}, {"role": "user", "content": answered}]
    final = ask(provider, messages).json()
    assert final["stop_reason"] == "end_turn"
    assert final["content"] == [{"type": "text", "text": "Done after 3 results, the last of them: r"}]
    usage = final["usage"]
    request = provider.requests[-1]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == request.prompt_tokens
    assert usage["cache_read_input_tokens"] == request.cached_tokens > 0


def test_messages_refuses_in_anthropics_shape(provider: FakeProvider) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    refused = ask(provider, [user("hi"), {"role": "assistant", "content": [use, use]}])
    assert refused.status_code == 400
    body = refused.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert "messages.1" in body["error"]["message"] and "`tool_use` ids" in body["error"]["message"]


def test_messages_streams_blocks(provider: FakeProvider) -> None:
    provider.next(Reply(text="abcd", reasoning="hm", calls=[("toolu_1", "f", '{"a": 1}')], chunks=2))
    response = ask(provider, [user("hi")], stream=True)
    told = events(response)
    assert response.text.startswith("event: message_start\ndata: ")
    kinds = [event["type"] for event in told]
    assert kinds[:2] == ["message_start", "ping"] and kinds[-2:] == ["message_delta", "message_stop"]
    deltas: dict[int, str] = {}
    for event in told:
        if event["type"] == "content_block_delta":
            delta = event["delta"]
            piece = delta.get("text") or delta.get("partial_json") or delta.get("thinking") or ""
            deltas[event["index"]] = deltas.get(event["index"], "") + piece
    assert deltas == {0: "hm", 1: "abcd", 2: '{"a": 1}'}
    opened = [event["content_block"] for event in told if event["type"] == "content_block_start"]
    assert opened[2] == {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    assert any(event.get("delta", {}).get("type") == "signature_delta" for event in told)


def test_tokens_are_counted(provider: FakeProvider) -> None:
    def count(text: str) -> int:
        body = {"model": "claude", "messages": [user(text)]}
        counted = httpx.post(f"{provider.url}/v1/messages/count_tokens", json=body).json()["input_tokens"]
        assert isinstance(counted, int)
        return counted

    assert count("x" * 400) - count("") == 100


# /v1/responses


def respond(provider: FakeProvider, items: Any, **more: Any) -> httpx.Response:
    return httpx.post(f"{provider.base_url}/responses", json={"model": "m", "input": items, **more}, timeout=20)


def outputs(reply: Json) -> list[Json]:
    return [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "r"}
        for item in reply["output"]
        if item["type"] == "function_call"
    ]


def test_responses_plays_a_plan_and_counts_its_items_anew(provider: FakeProvider) -> None:
    first = respond(provider, PLAN).json()
    assert [(i["id"], i["call_id"]) for i in first["output"]] == [
        ("fc_abc123", "call_abc123"),
        ("fc_abc124", "call_abc124"),
    ]
    items = [user(PLAN), *first["output"], *outputs(first)]
    second = respond(provider, items).json()
    refused = respond(provider, [*items, *second["output"], *outputs(second)])
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("Duplicate item found with id ")
    assert {fault.rule for fault in provider.requests[-1].faults} == {"duplicate-item", "reused-id"}


def test_a_stored_response_is_continued(provider: FakeProvider) -> None:
    first = respond(provider, "call f {}").json()
    second = respond(provider, outputs(first), previous_response_id=first["id"]).json()
    assert second["output"][0]["content"][0]["text"] == "Done after 1 results, the last of them: r"
    assert respond(provider, "more", previous_response_id="resp_unknown").status_code == 400
    unstored = respond(provider, "call f {}", store=False).json()
    assert respond(provider, outputs(unstored), previous_response_id=unstored["id"]).status_code == 400


def test_responses_streams_events_in_order(provider: FakeProvider) -> None:
    provider.next(Reply(text="abcd", reasoning="hm", calls=[("call_1", "f", '{"a": 1}')], chunks=2))
    told = events(respond(provider, "hi", stream=True))
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert [event["type"] for event in told][:2] == ["response.created", "response.in_progress"]
    pieces = [e["delta"] for e in told if e["type"] == "response.function_call_arguments.delta"]
    assert len(pieces) == 2 and "".join(pieces) == '{"a": 1}'
    assert "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta") == "abcd"
    items = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in items] == ["reasoning", "message", "function_call"]
    assert told[-1]["type"] == "response.completed" and told[-1]["response"]["output"] == items


@pytest.mark.parametrize("api", ["messages", "responses"])
def test_a_gate_holds_every_wire_form(provider: FakeProvider, api: str) -> None:
    gate = provider.hold(event=1)
    body = {"model": "m", "stream": True, "max_tokens": 9, "input" if api == "responses" else api: [user("hi")]}
    with httpx.stream("POST", f"{provider.base_url}/{api}", json=body, timeout=20) as response:
        assert gate.reached.wait(20)
        assert provider.requests[0].outcome != "answered"
        gate.release()
        assert "".join(response.iter_text()).count("data: ") > 2


def test_it_runs_from_a_shell() -> None:
    script = [sys.executable, fake_provider.__file__, "--port", "0", "--dialect", "mistral"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            dialect, address = process.stdout.readline().strip().split(" on ")
            assert dialect == "mistral"
            assert httpx.get(f"{address}/models", timeout=20).status_code == 200
        finally:
            process.terminate()
