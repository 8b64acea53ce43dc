"""What a real proxy tells of each request: one structured line, and spans below LiteLLM's own, none with content.

LiteLLM's `otel` callback writes its spans to the console here, and its log is JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from secrets import token_hex
from typing import Any, NamedTuple

import httpx
import pytest

from tests.agent import PLAN, Agent
from tests.binaries import require_package
from tests.fake_provider import FakeProvider, fail
from tests.proxy import Proxy, eventually

Json = dict[str, Any]

NEEDLE = "zanzibar-4711"
SAID = [{"role": "user", "content": f"Tell me of {NEEDLE}."}]
ENVIRON = {"LITELLM_LOG": "INFO", "JSON_LOGS": "true", "OTEL_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "200"}
REQUEST_SPAN = "Received Proxy Server Request"


class Telling(NamedTuple):
    proxy: Proxy

    def post(self, path: str, body: Json, **headers: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.proxy.key}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return httpx.post(self.proxy.base_url + path, json=body, headers=headers, timeout=30)

    def lines(self, call_id: str) -> list[Json]:
        """Records of the plugin's that name the call."""
        found = (json.loads(line) for line in self.proxy.log().splitlines() if '"component": "proxy_plugin"' in line)
        return [record for record in found if record.get("call_id") == call_id]

    def line(self, call_id: str) -> Json:
        (found,) = eventually(lambda: self.lines(call_id))
        return found

    def spans(self) -> dict[str, Json]:
        """Everything that was traced so far, by span id."""
        text, found, decode = self.proxy.log(), {}, json.JSONDecoder().raw_decode
        for begin in re.finditer(r'^\{\n {4}"name"', text, re.MULTILINE):
            span, _ = decode(text[begin.start() :])
            found[span["context"]["span_id"]] = span
        return found

    def traced(self, call_id: str, wanted: int) -> tuple[list[Json], dict[str, Json]]:
        """The plugin's spans of a call, and all spans by their id."""

        def both() -> tuple[list[Json], dict[str, Json]] | None:
            known = self.spans()
            own = [
                span
                for span in known.values()
                if span["name"].startswith("proxy_plugin.") and span["attributes"]["litellm.call_id"] == call_id
            ]
            return (own, known) if len(own) >= wanted and all(span["parent_id"] in known for span in own) else None

        found: tuple[list[Json], dict[str, Json]] = eventually(both)
        return found


@pytest.fixture(scope="module")
def telling(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telling]:
    require_package("opentelemetry.sdk")
    models = {
        "gpt": provider.base_url,
        "claude": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"},
    }
    settings = {"callbacks": ["otel"]}
    with Proxy(tmp_path_factory.mktemp("telling"), models, environ=ENVIRON, litellm_settings=settings) as proxy:
        yield Telling(proxy)


def call_id_of(response: httpx.Response) -> str:
    return response.headers["x-litellm-call-id"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("endpoint", "path", "body"),
    [
        ("chat", "/chat/completions", {"model": "gpt", "messages": SAID}),
        ("messages", "/messages", {"model": "claude", "messages": SAID, "max_tokens": 50}),
        ("responses", "/responses", {"model": "gpt", "input": SAID}),
    ],
)
def test_each_request_makes_one_line_and_spans_below_litellms_own(
    telling: Telling, endpoint: str, path: str, body: Json, stream: bool
) -> None:
    session = token_hex(8)
    answer = telling.post(path, {**body, "stream": stream}, x_litellm_session_id=session)
    assert answer.status_code == 200, answer.text
    call_id = call_id_of(answer)
    before, after = map(int, answer.headers["x-proxy-plugin-bytes"].split(","))

    line = telling.line(call_id)
    expected = {"endpoint": endpoint, "outcome": "unchanged", "collapsed": 0, "repairs": 0, "session": session}
    expected |= {"level": "INFO", "bytes_before": before, "bytes_after": after}
    assert {name: line[name] for name in expected} == expected
    assert line["ms"] > 0 and "passed" not in line

    own, known = telling.traced(call_id, 4)
    commits = {span["attributes"].get("proxy_plugin.operation") for span in own}
    assert sorted(span["name"] for span in own) == [
        "proxy_plugin.reply",
        "proxy_plugin.rewrite",
        "proxy_plugin.store.commit",
        "proxy_plugin.store.commit",
    ]
    assert commits == {None, "commit_request", "commit_reply"}
    (parent,) = {span["parent_id"] for span in own}
    assert known[parent]["name"] == REQUEST_SPAN
    assert {span["context"]["trace_id"] for span in own} == {known[parent]["context"]["trace_id"]}
    assert all(known[parent]["start_time"] <= span["start_time"] <= span["end_time"] for span in own)
    (rewrite,) = (span for span in own if span["name"] == "proxy_plugin.rewrite")
    about = {name.removeprefix("proxy_plugin."): value for name, value in rewrite["attributes"].items()}
    assert {name: about[name] for name in expected if name != "level"} == {
        name: value for name, value in expected.items() if name != "level"
    }


def test_the_line_and_the_span_say_what_was_done(telling: Telling, provider: FakeProvider) -> None:
    import openai

    client = openai.OpenAI(base_url=telling.proxy.base_url, api_key=telling.proxy.key, max_retries=0)
    agent = Agent(client, extra_headers={"x-litellm-session-id": token_hex(8)})
    for task in PLAN[:2]:
        agent.run(task)
    call = {"id": "call_x", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    unanswered = {"role": "assistant", "content": None, "tool_calls": [call]}
    wire = [*agent.messages, {"role": "user", "content": "Go on."}, unanswered, {"role": "user", "content": "Well?"}]
    answer = telling.post("/chat/completions", {"model": "gpt", "messages": wire}, **agent.extra_headers)
    headers = answer.headers
    line = telling.line(call_id_of(answer))
    assert line["outcome"] == "rewritten" and line["collapsed"] == int(headers["x-proxy-plugin-collapsed"]) == 2
    assert line["repairs"] == int(headers["x-proxy-plugin-repaired"]) == 1
    assert line["bytes_after"] < line["bytes_before"]
    own, _ = telling.traced(call_id_of(answer), 3)
    (rewrite,) = (span["attributes"] for span in own if span["name"] == "proxy_plugin.rewrite")
    same = ("outcome", "collapsed", "repairs", "bytes_before", "bytes_after", "session")
    assert {name: rewrite[f"proxy_plugin.{name}"] for name in same} == {name: line[name] for name in same}


def test_a_request_that_passes_says_why(telling: Telling) -> None:
    answer = telling.post("/chat/completions", {"model": "gpt", "messages": SAID}, x_proxy_plugin="off")
    line = telling.line(call_id_of(answer))
    assert (line["outcome"], line["passed"]) == ("passed", "header_off")
    own, _ = telling.traced(call_id_of(answer), 1)
    assert [(span["name"], span["attributes"]["proxy_plugin.passthrough"]) for span in own] == [
        ("proxy_plugin.rewrite", ["header_off"])
    ]


def test_a_call_that_the_provider_fails_is_told_all_the_same(telling: Telling, provider: FakeProvider) -> None:
    provider.next(fail(400, "Invalid 'messages'."))
    chosen = f"chosen-{token_hex(4)}"
    answer = telling.post("/chat/completions", {"model": "gpt", "messages": SAID}, x_litellm_call_id=chosen)
    assert answer.status_code == 400
    assert telling.line(chosen)["outcome"] == "unchanged"
    own, _ = telling.traced(chosen, 2)
    assert {span["name"] for span in own} == {"proxy_plugin.rewrite", "proxy_plugin.store.commit"}


def test_what_is_no_history_makes_no_line(telling: Telling) -> None:
    before = telling.proxy.log().count('"component": "proxy_plugin"')
    answer = telling.post("/embeddings", {"model": "gpt", "input": "hello"})
    assert call_id_of(answer) and telling.lines(call_id_of(answer)) == []
    assert telling.proxy.log().count('"component": "proxy_plugin"') == before


def test_no_line_and_no_span_of_the_plugins_holds_content_or_a_key(telling: Telling) -> None:
    answer = telling.post("/chat/completions", {"model": "gpt", "messages": SAID})
    telling.traced(call_id_of(answer), 4)
    own = [line for line in telling.proxy.log().splitlines() if '"component": "proxy_plugin"' in line]
    own += [json.dumps(span) for span in telling.spans().values() if span["name"].startswith("proxy_plugin.")]
    assert len(own) > 10
    handled = [json.loads(line)["call_id"] for line in own if '"message": "request ' in line]
    assert len(handled) == len(set(handled)) > 10
    for secret in (NEEDLE, telling.proxy.key, "sk-upstream-secret", "find_customer", "a@example.com"):
        assert [text for text in own if secret in text] == []


def test_by_default_no_line_is_written_for_a_request(proxy: Proxy) -> None:
    answer = httpx.post(
        proxy.base_url + "/chat/completions",
        json={"model": "gpt", "messages": SAID},
        headers={"authorization": f"Bearer {proxy.key}"},
        timeout=30,
    )
    assert answer.status_code == 200
    assert call_id_of(answer) not in proxy.log()
