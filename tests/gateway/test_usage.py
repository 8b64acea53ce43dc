"""The provider's own usage, of every endpoint and provider, and the names of models in labels."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from proxy_plugin.events import Event, ModelsNamed, UsageReported
from proxy_plugin.gateway.usage import MODELS, ModelNames, usage_of
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy, eventually

SAID = [{"role": "user", "content": "Read this: " + "a long text " * 300}]


def names(*groups: str) -> ModelNames:
    return ModelNames(lambda event: None, lambda: groups)


def logged(usage: Any, **more: Any) -> dict[str, Any]:
    """What LiteLLM hands to a logging callback, as far as it is read."""
    return {"standard_logging_object": {"model_group": "gpt", "metadata": {"usage_object": usage}}, **more}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("path", "model", "more"),
    [
        ("/chat/completions", "gpt", {"messages": SAID}),
        ("/chat/completions", "claude", {"messages": SAID}),
        ("/messages", "gpt", {"messages": SAID, "max_tokens": 50}),
        ("/messages", "claude", {"messages": SAID, "max_tokens": 50}),
        ("/responses", "gpt", {"input": SAID}),
        ("/responses", "claude", {"input": SAID}),
    ],
)
def test_each_call_counts_what_its_provider_says(
    proxy: Proxy, provider: FakeProvider, path: str, model: str, more: dict[str, Any], stream: bool
) -> None:
    """Asked twice, so that the provider's cache knows it; nobody asks for usage in a stream."""

    def counted() -> dict[str, float]:
        name = "proxy_plugin_model_prompt_tokens_total"
        return {kind: proxy.metric(name, kind=kind, model=model) for kind in ("cached", "uncached")}

    before = counted()
    for _ in range(2):
        answer = httpx.post(
            proxy.base_url + path,
            json={"model": model, "stream": stream, **more},
            headers={"authorization": f"Bearer {proxy.key}"},
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
    cached = sum(request.cached_tokens for request in provider.requests)
    said = sum(request.prompt_tokens for request in provider.requests)
    assert cached
    wanted = {"cached": before["cached"] + cached, "uncached": before["uncached"] + said - cached}
    eventually(lambda: counted() == wanted)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 1000, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 600}},
        {
            "prompt_tokens": 1000,
            "completion_tokens": 5,
            "prompt_cache_hit_tokens": 600,
            "prompt_cache_miss_tokens": 400,
        },
        {"prompt_tokens": 1000, "completion_tokens": 5, "cache_read_input_tokens": 600},
    ],
    ids=["openai", "deepseek", "anthropic"],
)
def test_the_usage_of_a_provider_as_litellm_brings_it_into_one_form(usage: dict[str, int]) -> None:
    from litellm import Usage

    found = usage_of(logged(Usage(**usage).model_dump()), names("gpt"))
    assert found == UsageReported("gpt", 1000, 600, 0)


def test_the_usage_of_gemini() -> None:
    from litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini import VertexGeminiConfig

    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 5, "totalTokenCount": 1005}
    usage = VertexGeminiConfig._calculate_usage({"usageMetadata": {**counts, "cachedContentTokenCount": 600}})
    assert usage_of(logged(usage.model_dump()), names("gpt")) == UsageReported("gpt", 1000, 600, 0)


def test_what_a_provider_wrote_to_its_cache_is_known_where_it_says_so() -> None:
    usage = {"prompt_tokens": 1000, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 0}
    assert usage_of(logged(usage), names("gpt")) == UsageReported("gpt", 1000, 0, 300)


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"standard_logging_object": None}, logged(None), logged({}), logged({"prompt_tokens": 9}, cache_hit=True)],
)
def test_nothing_is_counted_where_no_provider_said_anything(kwargs: dict[str, Any]) -> None:
    assert usage_of(kwargs, names("gpt")) is None


def test_a_label_holds_only_names_of_the_routers_list_and_no_more_than_fifty() -> None:
    told: list[Event] = []
    groups = [f"model-{n:03}" for n in range(60)]
    known = ModelNames(told.append, lambda: reversed(groups))
    assert [known.label(name) for name in ("model-000", "model-049", "model-050", "made/up")] == [
        "model-000",
        "model-049",
        "",
        "",
    ]
    assert told == [ModelsNamed(tuple(groups[:MODELS]))]
