"""Whose rules a deployment has to satisfy, by its model as a LiteLLM config names it."""

from __future__ import annotations

import pytest

from proxy_plugin.gateway.targets import _provider

SONNET = "anthropic.claude-3-5-sonnet-20240620-v1:0"


@pytest.mark.parametrize(
    ("model", "chat", "messages"),
    [
        ("openai/gpt-4o", "openai", "openai"),
        (f"bedrock/invoke/{SONNET}", "anthropic", "anthropic"),
        (f"bedrock/converse/{SONNET}", "bedrock", "bedrock"),
        (f"bedrock/{SONNET}", "bedrock", "anthropic"),
        ("bedrock/amazon.nova-pro-v1:0", "bedrock", "bedrock"),
        ("vertex_ai/claude-sonnet-4@20250514", "anthropic", "anthropic"),
        ("vertex_ai/gemini-2.5-pro", "vertex_ai", "vertex_ai"),
        ("vertex_ai/mistral-large@2411", "mistral", "mistral"),
        ("azure_ai/mistral-large", "mistral", "mistral"),
        ("no-such-provider/model", "", ""),
    ],
)
def test_a_model_is_held_to_the_rules_of_the_form_it_is_served_in(model: str, chat: str, messages: str) -> None:
    assert [_provider({"model": model}, api) for api in ("chat", "messages", "responses")] == [chat, messages, chat]
