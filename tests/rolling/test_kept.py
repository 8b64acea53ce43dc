"""What earlier versions stored stays readable, and can be gone on from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest

from tests.fake_provider import FakeProvider, ReusingModel
from tests.instances import lives
from tests.instances.plays import KEY, SESSION, portrait
from tests.proxy import Proxy, eventually
from tests.rolling import data

KEPT = {path.stem: orjson.loads(path.read_bytes()) for path in sorted(Path(__file__).with_name("kept").glob("*.json"))}
SESSIONS = [(version, name) for version, kept in KEPT.items() for name in kept["sessions"]]
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module", params=KEPT)
def kept(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[dict[str, Any]]:
    """What a version left, in the store of the proxy that all tests share."""
    found: dict[str, Any] = KEPT[request.param]
    with lives.embedded_store(proxy) as store:
        data.put(store, found["keys"], int(time.time() * 1000))
    yield found
    for told in found["sessions"].values():
        httpx.delete(f"{proxy.root}/api/v1/sessions/{told['session']}", headers=AUTHORIZED, timeout=20)


@pytest.mark.parametrize("name", sorted({name for _, name in SESSIONS}))
def test_it_is_read_and_gone_on_from(
    name: str, kept: dict[str, Any], proxy: Proxy, alice: openai.OpenAI, provider: FakeProvider
) -> None:
    told = kept["sessions"][name]
    session = f"/sessions/{told['session']}"
    shown = proxy.get(f"{session}/history", key=KEY).json()
    assert orjson.dumps(shown["messages"]) == orjson.dumps(told["history"])
    seen = portrait(proxy, told["session"])
    for part in ("nodes", "branches", "subtasks", "agents"):
        assert orjson.loads(orjson.dumps(seen[part])) == told[part], part
    assert seen["requests"] == told["requests"] and b"null" not in seen["left"]
    profile = proxy.get(session, key=KEY).json()
    assert {field: profile[field] for field in told["profile"]} == told["profile"]

    (pinned,) = [s for s in proxy.get(f"{session}/snapshots", key=KEY).json()["snapshots"] if s["name"] == "the end"]
    restored = f"{proxy.root}/api/v1{session}/snapshots/{pinned['snapshot_id']}/restore"
    httpx.post(restored, json={}, headers=AUTHORIZED, timeout=20).raise_for_status()
    if all("role" in message for message in told["history"]):  # not where the provider has to know it too
        provider.brain = ReusingModel()
        messages = [*shown["messages"], {"role": "user", "content": "and what now?"}]
        headers = {SESSION: told["session"]}
        alice.chat.completions.create(model="gpt", messages=messages, extra_headers=headers)
        longer = eventually(lambda: grown(proxy, session, len(messages) + 1))
        assert longer[:-1] == messages
    assert provider.refused() == []


def grown(proxy: Proxy, session: str, size: int) -> Any:
    messages = proxy.get(f"{session}/history", key=KEY).json()["messages"]
    return messages if len(messages) == size else None
