"""Every panel and alert against a real Prometheus that scraped the real plugin under real traffic."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from tests.fake_provider import FakeProvider
from tests.observability.dashboards import Answer, answers
from tests.observability.prometheus import Prometheus, job_of, scraping
from tests.observability.traffic import mixed
from tests.proxy import Proxy, eventually

_USAGE = "proxy_plugin_model_prompt_tokens_total"


@pytest.fixture(scope="module")
def shown(
    proxy: Proxy, provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, list[Answer]]]:
    with scraping(tmp_path_factory.mktemp("prometheus"), job_of(proxy), "500ms") as prometheus:
        prometheus.scraped_since(0)
        before = {model: proxy.metric(_USAGE, model=model) for model in ("gpt", "claude")}
        mixed(proxy, provider)
        for model, value in before.items():  # LiteLLM says what a call used a little later
            eventually(lambda model=model, value=value: proxy.metric(_USAGE, model=model) > value)
        prometheus.scraped_since(time.time())
        yield prometheus, answers(prometheus)


def test_every_expression_answers_with_data(shown: tuple[Prometheus, list[Answer]]) -> None:
    _, found = shown
    assert len({answer.place for answer in found}) == 5
    assert [answer for answer in found if not answer.values] == []
    assert [answer for answer in found if not all(map(math.isfinite, answer.values.values()))] == []


def test_the_panels_show_what_the_traffic_did(shown: tuple[Prometheus, list[Answer]]) -> None:
    _, found = shown
    values = {(answer.place, answer.title): answer.values.get("") for answer in found if "" in answer.values}
    moved = [
        ("overview", "History saved"),
        ("overview", "Tokens saved"),
        ("overview", "Dollars saved"),
        ("overview", "Audit: tokens it would save"),
        ("overview", "Refused after a rewrite"),
        ("overview", "Provider's cache hits"),
        ("sessions", "Restores failed"),
        ("sessions", "Subtasks failed"),
        ("sessions", "Subtasks rolled back"),
        ("cache", "Cache hits observed"),
        ("cache", "Breaks by the client"),
        ("cache", "Saved of the cost"),
        ("store", "Workers with the embedded server"),
    ]
    assert [place for place in moved if not (values[place] or 0) > 0] == []
    assert values["cache", "Breaks unexplained"] == 0
    assert values["store", "Workers that leave it alone"] == 0
    assert (values["cache", "Cache hits possible"] or 0) <= 1
