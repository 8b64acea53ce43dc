"""What a newer version stored is neither destroyed nor fatal: the older one serves, and leaves alone what it does
not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import redis

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.keys import SessionKeys
from tests.agent import Agent
from tests.fake_provider import FakeProvider, ReusingModel
from tests.instances import lives
from tests.instances.plays import KEY, SESSION
from tests.proxy import Proxy, eventually


@pytest.fixture
def store(proxy: Proxy) -> Iterator[redis.Redis]:
    with lives.embedded_store(proxy) as store:
        yield store


def talk(alice: openai.OpenAI, proxy: Proxy, provider: FakeProvider, name: str) -> Agent:
    """Two subtasks, stored; the next one is the test's."""
    provider.brain = ReusingModel()
    agent = Agent(alice, extra_headers={SESSION: name})
    agent.run("call find {}")
    agent.run("thanks")
    eventually(lambda: lives.is_whole(proxy, agent, KEY))
    return agent


def names_of(proxy: Proxy, session: str) -> SessionKeys:
    listed = proxy.get("/sessions", limit=500).json()["sessions"]
    (tenant,) = [entry["tenant"] for entry in listed if entry["session_id"] == session]
    return keys.of_session(identity.address(tenant, session))


def all_of(store: redis.Redis, key: str) -> dict[bytes, bytes]:
    found: Any = store.hgetall(key)
    return dict(found)


@pytest.mark.parametrize("part", ["nodes", "bodies", "both"])
def test_nodes_of_a_newer_layout(
    part: str, alice: openai.OpenAI, proxy: Proxy, provider: FakeProvider, store: redis.Redis
) -> None:
    agent = talk(alice, proxy, provider, f"newer-{part}")
    names = names_of(proxy, agent.session)
    for key in (names.nodes, names.bodies):
        if key.endswith(part) or part == "both":
            store.hset(key, mapping={node: b"2" + value[1:] + b"more" for node, value in all_of(store, key).items()})
    store.hset(names.meta, "layout", 2)
    passed = proxy.metric("proxy_plugin_passthrough_total", reason="newer_layout")
    before = {key: all_of(store, key) for key in (names.nodes, names.bodies)}

    agent.run("call report {}")
    assert proxy.get(f"/sessions/{agent.session}/history", key=KEY).status_code == 200  # as far as it can be read
    agent.run("and again")
    assert provider.refused() == []
    assert {key: all_of(store, key) for key in before} == before
    assert proxy.metric("proxy_plugin_passthrough_total", reason="newer_layout") == passed + 3  # once a request


def test_fields_that_only_a_newer_version_knows(
    alice: openai.OpenAI, proxy: Proxy, provider: FakeProvider, store: redis.Redis
) -> None:
    agent = talk(alice, proxy, provider, "newer-fields")
    names = names_of(proxy, agent.session)
    url = f"{proxy.root}/api/v1/sessions/{agent.session}"
    authorized = {"authorization": f"Bearer {KEY}"}
    httpx.patch(url, json={"title": "before"}, headers=authorized, timeout=20).raise_for_status()
    for key in (names.meta, names.profile, names.requests):
        store.hset(key, "of-a-newer-version", "kept")
    for node, head in all_of(store, names.nodes).items():
        store.hset(names.nodes, node, head[:2] + b"4" + head[3:])  # a flag of its own

    agent.run("call report {}")
    httpx.patch(url, json={"title": "after"}, headers=authorized, timeout=20).raise_for_status()
    eventually(lambda: lives.is_whole(proxy, agent, KEY))
    assert proxy.get(f"/sessions/{agent.session}", key=KEY).json()["title"] == "after"
    for key in (names.meta, names.profile, names.requests):
        assert store.hget(key, "of-a-newer-version") == b"kept"
    flags = [head[2:3] for head in all_of(store, names.nodes).values()]
    assert flags.count(b"4") == len(agent.messages) - 4  # all that were there, and none of the new ones
    assert provider.refused() == []
