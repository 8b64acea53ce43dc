"""A provider that refuses what was rewritten cannot keep a session stuck: through a real proxy."""

from __future__ import annotations

import openai
import pytest

from tests.agent import PLAN, Agent, Message
from tests.fake_provider import FakeProvider, fail
from tests.proxy import Proxy


def spoken(messages: list[Message]) -> list[tuple[str, str]]:
    """Who said what; a null content is left out on the way."""
    return [(message["role"], message.get("content") or "") for message in messages]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_after_three_refusals_the_session_goes_on_with_repair_alone(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, stream: bool
) -> None:
    agent = Agent(alice, stream=stream, extra_headers={"x-litellm-session-id": f"refused-{stream}"})
    agent.run(PLAN[0])
    before = proxy.metric("proxy_plugin_passthrough_total", reason="safety_fallback")
    agent.messages.append({"role": "user", "content": "what next?"})
    for _ in range(3):
        provider.next(fail(400))
        with pytest.raises(openai.BadRequestError):
            agent.ask()
        assert len(provider.requests[-1].messages) < len(agent.messages)  # it was collapsed

    agent.messages.append(agent.ask())
    assert spoken(provider.requests[-1].messages) == spoken(agent.messages[:-1])
    assert agent.headers[-1]["x-proxy-plugin-collapsed"] == "0"
    assert proxy.metric("proxy_plugin_passthrough_total", reason="safety_fallback") == before + 1

    agent.run("and now?")  # the next subtask is accepted, with repair alone
    agent.run("and then?")
    assert agent.headers[-1]["x-proxy-plugin-collapsed"] != "0"
