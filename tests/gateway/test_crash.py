"""A proxy of its own: killed and started again, without a store, with settings that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.agent import PLAN, Agent
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy, eventually, free_port


def play(proxy: Proxy, stream: bool) -> Agent:
    """Three subtasks in one session, with the official client."""
    client = openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0)
    agent = Agent(client, stream=stream, extra_headers={"x-litellm-session-id": f"plan-{stream}"})
    for task in PLAN:
        agent.run(task)
    return agent


def send_again(proxy: Proxy, agent: Agent) -> None:
    """The same requests, as a client would that starts over from its own records."""
    again = Agent(
        openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0),
        stream=agent.stream,
        extra_headers=agent.extra_headers,
    )
    for index, message in enumerate(agent.messages):
        if message["role"] == "assistant":
            again.messages = agent.messages[:index]
            again.ask()


def chat_bodies(provider: FakeProvider) -> list[bytes]:
    return [request.body for request in provider.requests if request.api == "chat"]


def test_killed_and_started_again_the_same_requests_leave_byte_for_byte(tmp_path: Path, provider: FakeProvider) -> None:
    with Proxy(tmp_path, {"gpt": provider.base_url}) as proxy:
        agents = [play(proxy, stream) for stream in (False, True)]
        first = chat_bodies(provider)
        histories = [eventually(lambda a=agent: complete(proxy, a)) for agent in agents]
        proxy.kill()
        provider.requests.clear()

        proxy.fresh = True  # with another seed of hashes, too
        proxy.start()
        for agent, history in zip(agents, histories, strict=True):
            assert eventually(lambda a=agent: complete(proxy, a)) == history
            send_again(proxy, agent)
        assert chat_bodies(provider) == first
        assert provider.refused() == []
        for agent, history in zip(agents, histories, strict=True):
            assert complete(proxy, agent) == history  # sent again, nothing was added


def complete(proxy: Proxy, agent: Agent) -> Any:
    """The stored messages once they are all there, else None."""
    answer = proxy.get(f"/sessions/{agent.session}/history")
    messages = answer.json().get("messages", []) if answer.status_code == 200 else []
    shown = [(m["role"], m.get("content"), [c["id"] for c in m.get("tool_calls") or []]) for m in messages]
    wanted = [(m["role"], m.get("content"), [c["id"] for c in m.get("tool_calls") or []]) for m in agent.messages]
    return messages if shown == wanted else None


def test_without_a_store_the_same_bytes_leave(tmp_path: Path, proxy: Proxy, provider: FakeProvider) -> None:
    client = openai.OpenAI(base_url=proxy.base_url, api_key="sk-alice", max_retries=0)
    healthy = Agent(client, extra_headers={"x-litellm-session-id": "healthy"})
    for task in PLAN:
        healthy.run(task)
    expected = provider.sent()
    provider.requests.clear()

    with Proxy(tmp_path, {"gpt": provider.base_url}, redis_url=f"redis://127.0.0.1:{free_port()}/0") as alone:
        agent = play(alone, stream=False)
        assert provider.sent() == expected
        assert agent.ids == healthy.ids
        assert agent.headers[-1] == {**healthy.headers[-1], "x-proxy-plugin-session": "plan-False"}
        assert alone.get("/health", key="").json() == {"status": "degraded"}
        assert alone.get("/sessions").status_code == 503
        assert alone.metric("proxy_plugin_passthrough_total", reason="store_down") > 0


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"PROXY_PLUGIN_COLLAPSE__POLICI": "never"}, "PROXY_PLUGIN_COLLAPSE__POLICI"),
        ({"PROXY_PLUGIN_CONFIG": "plugin.yaml"}, "plugin.yaml: store.session_ttl_s"),
    ],
    ids=["environment", "file"],
)
def test_a_setting_that_cannot_be_used_stops_the_start_and_is_named(
    tmp_path: Path, variables: dict[str, str], line: str
) -> None:
    (tmp_path / "plugin.yaml").write_text("store: {session_ttl_s: soon}")
    proxy = Proxy(tmp_path, {"gpt": "http://127.0.0.1:9"}, environ=variables)
    proxy.launch()
    assert proxy.process is not None
    try:
        assert proxy.process.wait(60) != 0
    finally:
        proxy.stop()
    (said,) = [text for text in proxy.log().splitlines() if text.startswith("litellm-session-plugin:")]
    assert line in said
