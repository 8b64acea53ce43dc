"""`proxy-plugin replay` of a recording, and the live metrics of a real proxy that the same requests went through."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest

from proxy_plugin.history.report import Report
from tests.benchmarks import conversations as generated
from tests.benchmarks.peers.malformed import MALFORMED
from tests.proxy import Proxy
from tests.replay import recordings as made

Json = dict[str, Any]

ANSWER = {"role": "assistant", "content": "So it is."}
PLACES = {"chat": ("/chat/completions", "messages"), "messages": ("/messages", "messages")}
PLACES |= {"responses": ("/responses", "input")}
ESTIMATOR = {"coding": 0.08, "odd": 0.2}
"""How far the estimate may be from the tokenizer's count (README): over a day's traffic of one kind, and over text that
is mostly made of random ids, which counts too little."""


def recorded() -> dict[str, list[tuple[str, list[Any]]]]:
    """A day's traffic of one kind, and what clients get wrong: (wire form, history that ends with an answer)."""
    coding = generated.coding(1)
    ends = [index for index, message in enumerate(coding) if model_made(message, "chat")]
    odd = [("chat", generated.two_subtasks(1)), *(("chat", [*history, ANSWER]) for history in MALFORMED.values())]
    for second_id in ("call_1", "call_2"):
        odd += [
            ("chat", made.chat(second_id)),
            ("messages", made.messages(second_id)),
            ("responses", made.responses(second_id)),
        ]
    return {"coding": [("chat", coding[: ends[39] + 1])], "odd": odd}


def model_made(item: Json, api: str) -> bool:
    return item.get("role") == "assistant" or (
        api == "responses" and item.get("type") in ("reasoning", "function_call", "custom_tool_call")
    )


def requests(wire: list[Json], api: str) -> Iterator[list[Json]]:
    """What an agent had sent: all that stood before each answer."""
    for end in range(1, len(wire)):
        if model_made(wire[end], api) and not (api == "responses" and model_made(wire[end - 1], api)):
            yield wire[:end]


def live(proxy: Proxy) -> Json:
    """In the words of `proxy-plugin replay --json`."""
    metric = proxy.metric
    return {
        "requests": sum(metric("proxy_plugin_requests_total", outcome=what) for what in ("rewritten", "unchanged")),
        "bytes_before": metric("proxy_plugin_history_bytes_total", stage="received"),
        "bytes_after": metric("proxy_plugin_history_bytes_total", stage="sent"),
        "subtasks_collapsed": metric("proxy_plugin_subtasks_collapsed_total"),
        "tool_messages_cleared": metric("proxy_plugin_tool_messages_cleared_total"),
        "repairs": {kind: metric("proxy_plugin_repairs_total", kind=kind) for kind in Report.REPAIRS},
        "tokens_before": metric("proxy_plugin_estimated_tokens_total", mode="enforce", side="received"),
        "tokens_after": metric("proxy_plugin_estimated_tokens_total", mode="enforce", side="rewritten"),
    }


def minus(after: Json, before: Json) -> Json:
    return {
        name: minus(value, before[name]) if isinstance(value, dict) else value - before[name]
        for name, value in after.items()
    }


def send(proxy: Proxy, api: str, wire: list[Json], session: str) -> None:
    path, key = PLACES[api]
    body = {"model": "claude" if api == "messages" else "gpt", key: wire, "max_tokens": 200}
    if api == "responses":
        body["max_output_tokens"] = body.pop("max_tokens")
    headers = {"authorization": f"Bearer {proxy.key}", "x-litellm-session-id": session}
    answer = httpx.post(proxy.base_url + path, json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def both(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Json, Json]]:
    """Of the same traffic, by its kind: what the metrics counted, and what a replay says."""
    folder = tmp_path_factory.mktemp("recorded")
    counted = {}
    for kind, conversations in recorded().items():
        lines, sent, before = [], 0, live(proxy)
        for api, wire in conversations:
            session = token_hex(8)
            provider = "anthropic" if api == "messages" else "openai"
            lines.append({"id": session, PLACES[api][1]: wire, "provider": provider})
            for request in requests(wire, api):
                send(proxy, api, request, session)
                sent += 1
        counted[kind] = minus(live(proxy), before)
        assert counted[kind]["requests"] == sent
        made.write(folder / f"{kind}.jsonl", lines)
    files = [str(folder / f"{kind}.jsonl") for kind in counted]
    command = [sys.executable, "-m", "proxy_plugin.cli", "replay", *files, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    replayed = {Path(figures["file"]).stem: figures for figures in json.loads(done.stdout)["files"]}
    return {kind: (counted[kind], replayed[kind]) for kind in counted}


@pytest.mark.parametrize("kind", ["coding", "odd"])
def test_they_agree_exactly_on_bytes_collapses_and_repairs(both: dict[str, tuple[Json, Json]], kind: str) -> None:
    counted, replayed = both[kind]
    exact = [name for name in counted if not name.startswith("tokens")]
    assert {name: replayed[name] for name in exact} == {name: counted[name] for name in exact}
    assert counted["bytes_after"] < counted["bytes_before"]
    assert counted["subtasks_collapsed"] > 10
    if kind == "odd":
        assert [
            name for name in ("ids_renamed", "results_added", "orphans_moved") if not counted["repairs"][name]
        ] == []


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("kind", ESTIMATOR)
def test_they_agree_on_tokens_within_the_estimators_error(
    both: dict[str, tuple[Json, Json]], kind: str, side: str
) -> None:
    counted, replayed = both[kind]
    assert counted[f"tokens_{side}"] == pytest.approx(replayed[f"tokens_{side}"], rel=ESTIMATOR[kind])
