"""Two tenants on one proxy: what the one holds, and looks at it past the plugin."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import redis

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.identity import address
from tests.admin.calls import told
from tests.agent import Agent
from tests.proxy import Proxy, eventually

NEEDLE = "alices-needle-7f3a"
HTTP = httpx.Client(timeout=30)
"""One for all: hundreds of calls, and a new one reads all certificates of this machine."""


def call(
    proxy: Proxy, method: str, path: str, body: Any = None, *, key: str = "sk-alice", **params: Any
) -> httpx.Response:
    """The answer to a request on the plugin's prefix. `body`: bytes as they are, else JSON."""
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return HTTP.request(method, f"{proxy.root}/api/v1{path}", headers=headers, params=params or None, **sent)


@dataclass(frozen=True)
class Held:
    """What alice holds, and every name of it that somebody else could use. `sessions`: ids and an alias, of all
    forms; `own_keys`: a key of each of hers begins with one of these."""

    tenant: str
    sessions: tuple[str, ...]
    alias: str
    nodes: tuple[str, ...]
    branch: str
    snapshot: str
    subtask: str
    cursor: str
    export: bytes
    own_keys: tuple[bytes, ...]
    session: str


def held_by_alice(proxy: Proxy, alice: openai.OpenAI, name: str) -> Held:
    """A session with everything, one of an odd id and one without an id."""
    told(proxy, alice, name, f"remember {NEEDLE}", f'call find {{"q": "{NEEDLE}"}}', "and then?")
    odd = Agent(alice, extra_headers={"x-litellm-session-id": f"{name} odd/{{}}"})
    odd.run(f"odd {NEEDLE}")
    found = Agent(alice)
    found.run(f"opening {NEEDLE} {name}")
    alias, base = f"{name}-alias", f"/sessions/{name}"
    assert call(proxy, "PATCH", base, {"title": NEEDLE, "aliases": [alias]}).status_code == 200
    nodes = [node["id"] for node in call(proxy, "GET", f"{base}/tree").json()["nodes"]]
    assert call(proxy, "POST", f"{base}/branches", {"name": f"{name}-branch", "node": nodes[0]}).status_code == 201
    snapshot = call(proxy, "POST", f"{base}/snapshots", {"name": NEEDLE}).json()["snapshot_id"]
    subtask = f"{name}-subtask"
    assert call(proxy, "POST", f"{base}/subtasks", {"id": subtask, "description": NEEDLE}).status_code == 201
    ended = call(proxy, "POST", f"{base}/subtasks/{subtask}/complete", {"result": NEEDLE})
    assert ended.status_code == 200
    page = call(proxy, "GET", "/sessions", limit=1).json()
    info = call(proxy, "GET", base).json()
    sessions = (name, odd.session, found.session)
    tags = [address(info["tenant"], session).tag for session in sessions] + [info["tenant"]]
    assert page["cursor"]
    return Held(
        tenant=info["tenant"],
        sessions=(*sessions, alias),
        alias=alias,
        nodes=tuple(nodes),
        branch=f"{name}-branch",
        snapshot=snapshot,
        subtask=subtask,
        cursor=page["cursor"],
        export=call(proxy, "GET", f"{base}/export").content,
        own_keys=tuple(f"{keys.PREFIX}{{{tag}}}".encode() for tag in tags),
        session=name,
    )


def dump(store: redis.Redis, held: Held) -> dict[bytes, Any]:
    """All that is stored of alice, byte for byte (what is derived from the clock aside: expiry)."""
    found: dict[bytes, Any] = {}
    for key in store.scan_iter(match=keys.PREFIX + "*", count=1_000):
        if key.startswith(held.own_keys):
            found[key] = store.dump(key)
    assert len(found) > 20
    return found


def quiet(store: redis.Redis, held: Held) -> dict[bytes, Any]:
    """The same once nothing is written behind anybody's back any more."""
    last: list[dict[bytes, Any]] = [{}]

    def same() -> bool:
        before, last[0] = last[0], dump(store, held)
        store.ping()
        return before == last[0] and not any(b":flights" in key for key in before)

    eventually(same)
    return last[0]


def says_nothing_of(held: Held, answers: Iterable[Any]) -> None:
    """No needle, no id of alice's in what somebody else was told (he named some himself, so names are allowed)."""
    for answer in answers:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        assert NEEDLE not in text
