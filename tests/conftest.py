"""One proxy for all tests that need no special one, and what they drive it with.

Hypothesis profiles: `HYPOTHESIS_PROFILE=long` searches twenty times as deep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from hypothesis import settings

from tests.fake_provider import FakeProvider
from tests.proxy import Proxy

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # read when LiteLLM is imported: no network
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull  # all are on loopback: no client takes 25 ms to read certificates

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("long", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


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
    litellm = {"callbacks": ["prometheus"], "require_auth_for_metrics_endpoint": False}
    router = {"fallbacks": [{"flaky": ["spare"]}], "num_retries": 1, "retry_after": 0}
    with Proxy(folder, models, custom_auth=True, litellm_settings=litellm, router_settings=router) as running:
        yield running


@pytest.fixture
def alice(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.base_url, api_key="sk-alice", max_retries=0)


@pytest.fixture
def bob(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.base_url, api_key="sk-bob", max_retries=0)
