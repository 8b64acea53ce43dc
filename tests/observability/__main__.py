"""`python -m tests.observability`: Prometheus, a real proxy, mixed traffic with faults (the store stops for a while),
and then each panel's expression with its value."""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path

from tests.fake_provider import FakeProvider
from tests.observability.dashboards import answers
from tests.observability.prometheus import job_of, scraping
from tests.observability.traffic import mixed, plans_without_a_store
from tests.proxy import Proxy, eventually
from tests.sessions.servers import client, free_ports, running


def main() -> None:
    with tempfile.TemporaryDirectory() as name, FakeProvider() as provider:
        folder = Path(name)
        (port,) = free_ports(1)
        models = {
            "gpt": provider.base_url,
            "claude": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"},
        }
        with running(folder, f'port {port}\nsave ""') as (store,):
            client(port)
            with (
                Proxy(folder, models, redis_url=f"redis://127.0.0.1:{port}", patient=False) as proxy,
                scraping(folder, job_of(proxy), "500ms") as prometheus,
            ):
                prometheus.scraped_since(0)
                mixed(proxy, provider)
                store.send_signal(signal.SIGSTOP)
                plans_without_a_store(proxy)
                store.send_signal(signal.SIGCONT)
                eventually(lambda: proxy.metric("proxy_plugin_store_breaker_open") == 0)
                mixed(proxy, provider)
                prometheus.scraped_since(time.time() + 1)  # LiteLLM says what a call used a little later
                shown = answers(prometheus)
    for answer in shown:
        print(f"\n{answer.place}: {answer.title}\n  {' '.join(answer.expression.split())}")
        for labels, value in answer.values.items():
            print(f"    {labels or 'value'}: {value:.6g}")
    silent = [answer for answer in shown if not answer.values]
    print(f"\n{len(shown)} expressions, {len(silent)} of them without an answer.")
    raise SystemExit(1 if silent else 0)


if __name__ == "__main__":
    main()
