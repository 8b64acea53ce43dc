"""One proxy for the tests of a module, and what they drive it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.fake_provider import FakeProvider
from tests.proxy import Proxy


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Proxy]:
    """Custom auth, so that there are several tenants; LiteLLM's own prometheus callback beside the plugin."""
    folder: Path = tmp_path_factory.mktemp("proxy")
    models = {
        "gpt": provider.base_url,
        "claude": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"},
        "flaky": provider.base_url,
        "spare": provider.base_url,
    }
    settings = {"callbacks": ["prometheus"], "require_auth_for_metrics_endpoint": False}
    router = {"fallbacks": [{"flaky": ["spare"]}], "num_retries": 1, "retry_after": 0}
    with Proxy(folder, models, custom_auth=True, litellm_settings=settings, router_settings=router) as running:
        yield running


@pytest.fixture(autouse=True)
def forget(provider: FakeProvider) -> None:
    provider.requests.clear()


@pytest.fixture
def alice(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.base_url, api_key="sk-alice", max_retries=0)


@pytest.fixture
def bob(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.base_url, api_key="sk-bob", max_retries=0)
