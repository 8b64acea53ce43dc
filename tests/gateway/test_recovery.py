"""A proxy that is killed in the middle of an answer, and what the next one makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import redis

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.embedded import Embedded, Endpoint
from tests.fake_provider import FakeProvider, Gate, Reply
from tests.proxy import Proxy, eventually, free_port

SESSION = {"x-litellm-session-id": "cut"}


def client(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0, default_headers=SESSION)


def ask(proxy: Proxy, text: str, stream: bool = False) -> Any:
    body = {"metadata": {"subtask": {"id": "collect", "description": "collects"}}}
    messages: Any = [{"role": "user", "content": text}]
    return client(proxy).chat.completions.create(model="gpt", messages=messages, stream=stream, extra_body=body)


def report(proxy: Proxy) -> Any:
    return proxy.get("/recovery").json()


def of_session(known: Any, session_id: str) -> Any:
    (session,) = [session for session in known["sessions"] if session["session_id"] == session_id]
    return session


def refused(proxy: Proxy) -> None:
    """A call that the provider refuses: it is over, and nothing of it is interrupted later."""
    named = client(proxy).with_options(default_headers={"x-litellm-session-id": "refused"})
    with pytest.raises(openai.BadRequestError):
        named.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "no"}])


def noted_calls(store: Endpoint) -> int:
    with redis.Redis(host=store.host, port=store.port, password=store.password) as there:
        found: Any = [there.hlen(name) for name in there.scan_iter("pp:1:*:flights")]
        return sum(found)


def found_lost(proxy: Proxy) -> Any:
    """The stop is noted first, then what it cut off, session by session."""
    known = report(proxy)
    return known if known["unclean_stops"] and known["totals"]["pending"] else None


def test_killed_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    gate = Gate(event=2)
    replies = iter([Reply(status=400, text="no"), Reply(text="one two three", gate=gate), Reply(text="done")])
    server = Embedded(tmp_path / "store", free_port())
    store = server.ensure()
    url = f"redis://:{store.password}@{store.host}:{store.port}/0"
    quick = {"PROXY_PLUGIN_RECOVERY__LEASE_S": "2"}
    with (
        closing_server(server),
        FakeProvider(brain=lambda request: next(replies)) as provider,
        Proxy(tmp_path, {"gpt": provider.base_url}, redis_url=url, environ=quick) as proxy,
    ):
        refused(proxy)
        eventually(lambda: noted_calls(store) == 0)
        stream = ask(proxy, "collect it", stream=True)
        next(iter(stream))
        assert gate.reached.wait(20)
        assert noted_calls(store) == 1
        eventually(lambda: proxy.get("/sessions/cut").status_code == 200)
        assert report(proxy)["unclean_stops"] == 0
        proxy.kill()
        gate.release()
        with pytest.raises((openai.APIError, httpx.HTTPError)):
            for _ in stream:
                pass

        proxy.start()
        known = eventually(lambda: found_lost(proxy))
        session = of_session(known, "cut")
        assert of_session(known, "refused")["interrupted"] is False
        assert known["unclean_stops"] == 1 and known["last_clean_stop"] is None
        assert known["last_start"] and known["last_unclean_stop"]
        assert known["totals"]["pending"] == 1
        assert (session["session_id"], session["subtask"], session["state"]) == ("cut", "collect", "pending")
        assert (session["interrupted"], session["incomplete"], session["failed"]) == (True, 1, 0)
        assert (session["iteration_count"], session["current_subtask"]) == (1, "collect")
        assert proxy.metric("proxy_plugin_recovered_subtasks_total") == 1
        (line,) = [line for line in proxy.log().splitlines() if "stopped uncleanly" in line]
        assert "1 calls" in line and "collect" not in line

        assert ask(proxy, "collect it").choices[0].message.content == "done"
        session = eventually(lambda: completed(proxy))
        assert (session["attempts"], session["interrupted"], session["incomplete"]) == (2, True, 0)

        proxy.stop()
        known = stopped(store)
        assert known["unclean_stops"] == 1
        assert known["last_unclean_stop"] < known["last_clean_stop"]
        assert known["last_start"] < known["last_clean_stop"]


def stopped(store: Endpoint) -> dict[str, int]:
    """What is known of starts and stops once nobody is there to be asked."""
    with redis.Redis(host=store.host, port=store.port, password=store.password) as there:
        assert there.zcard(keys.WORKERS) == 0
        stored: Any = there.hgetall(keys.RECOVERY)
        return {name.decode(): int(value) for name, value in stored.items()}


@contextmanager
def closing_server(server: Embedded) -> Iterator[None]:
    try:
        yield
    finally:
        server.stop()


def completed(proxy: Proxy) -> Any:
    session = of_session(report(proxy), "cut")
    return session if session["state"] == "completed" else None
