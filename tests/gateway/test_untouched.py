"""Endpoints that hold no history pass as if the plugin were not there: what the provider gets is compared, byte
for byte, with what it gets from a proxy without the plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.fake_provider import FakeProvider
from tests.proxy import Proxy

HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "found " * 200}]},
    {"role": "assistant", "content": [{"type": "text", "text": "done"}]},
    {"role": "user", "content": "and now?"},
]
"""What the plugin would collapse on an endpoint of its own."""

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "gpt", "prompt": "once upon a time", "max_tokens": 5},
    "/v1/embeddings": {"model": "gpt", "input": ["a", "b"]},
    "/anthropic/v1/messages": {"model": "claude-3-5-haiku-20241022", "max_tokens": 9, "messages": HISTORY},
}


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[tuple[Proxy, Proxy]]:
    """One with the plugin and one without."""
    models = {
        "gpt": provider.base_url,
        "socket": {"model": "hosted_vllm/qwen3", "api_base": provider.base_url, "api_key": "sk-up"},
    }
    environ = {"ANTHROPIC_API_BASE": provider.url, "ANTHROPIC_API_KEY": "sk-up"}
    with (
        Proxy(tmp_path_factory.mktemp("with"), models, environ=environ) as handled,
        Proxy(tmp_path_factory.mktemp("without"), models, environ=environ, plugin=False) as bare,
    ):
        yield handled, bare


@pytest.mark.parametrize("path", REQUESTS)
def test_the_provider_gets_the_same_bytes(proxies: tuple[Proxy, Proxy], provider: FakeProvider, path: str) -> None:
    for proxy in proxies:
        headers = {"authorization": f"Bearer {proxy.key}"}
        answer = httpx.post(proxy.root + path, json=REQUESTS[path], headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        assert not [name for name in answer.headers if name.startswith("x-proxy-plugin")]
    with_plugin, without = provider.requests
    assert with_plugin.path == without.path
    assert with_plugin.body == without.body


def test_a_websocket_of_responses_carries_what_the_client_said(
    proxies: tuple[Proxy, Proxy], provider: FakeProvider
) -> None:
    """To a provider without a WebSocket of its own LiteLLM makes an HTTP request of every `response.create`."""
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "found " * 200},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and now?"}]},
    ]
    for proxy in proxies:
        address = f"{proxy.root.replace('http', 'ws', 1)}/v1/responses?model=socket"
        with connect(address, additional_headers={"authorization": f"Bearer {proxy.key}"}, open_timeout=20) as socket:
            socket.send(json.dumps({"type": "response.create", "model": "socket", "input": items}))
            while json.loads(socket.recv(timeout=20))["type"] != "response.completed":
                pass
    with_plugin, without = provider.requests
    assert with_plugin.body == without.body
    assert with_plugin.messages == items
