"""`python -m tests.rolling.keep REF > tests/rolling/kept/VERSION.json`: what a version of the plugin stores.

Plays conversations through a proxy that runs REF, a commit or a wheel, and prints all that is in its store, and what
the version itself shows of it. Later versions have to read it (test_kept.py); a file is never made anew.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import orjson

import tests.agent
from tests.fake_provider import FakeProvider
from tests.instances import lives
from tests.instances.plays import KEY, Seat, portrait, whole
from tests.instances.plays import play as played
from tests.proxy import Proxy
from tests.rolling import data
from tests.rolling.versions import described, unpack

KEPT = ("chat", "responses that continue", "subtasks that the client names")
"""Of tests.instances.plays: one of each way in which sessions are found and subtasks named."""

PLAN = ("For the record.\n" + tests.agent.PLAN[0], *tests.agent.PLAN[1:])
"""An opening of its own: a session that is found by it is no other test's."""


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as folder, FakeProvider() as provider:
        home, packed = Path(folder) / "proxy", Path(folder) / "package"
        home.mkdir()
        packed.mkdir()
        environ = {"PYTHONPATH": unpack(version, packed)}
        models = {"gpt": provider.base_url}
        with Proxy(home, models, environ=environ, custom_auth=True) as proxy:
            sessions = {name: _told(proxy, provider, name) for name in KEPT}
            with lives.embedded_store(proxy) as store:
                kept = {"version": described(version), "sessions": sessions, "keys": data.taken(store)}
    sys.stdout.buffer.write(orjson.dumps(kept, option=orjson.OPT_INDENT_2) + b"\n")


def _told(proxy: Proxy, provider: FakeProvider, name: str) -> dict[str, Any]:
    """What the version shows of the session, once it is stored and has a pinned snapshot and a profile."""
    session = "kept-" + name.replace(" ", "-")
    conversation = played(name, [Seat(proxy)], provider, session, PLAN)
    whole(proxy, conversation)
    _send(proxy, "POST", f"/sessions/{conversation.session}/snapshots", {"name": "the end", "pin": True})
    profile = {"title": "An order", "description": "cancelled and refunded", "metadata": {"ticket": 4711}}
    _send(proxy, "PATCH", f"/sessions/{conversation.session}", profile)
    history = proxy.get(f"/sessions/{conversation.session}/history", key=KEY).json()["messages"]
    shown = portrait(proxy, conversation.session)
    return {"session": conversation.session, "profile": profile, "history": history} | {
        part: shown[part] for part in ("nodes", "branches", "snapshots", "subtasks", "agents", "requests")
    }


def _send(proxy: Proxy, method: str, path: str, body: Any) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    httpx.request(method, f"{proxy.root}/api/v1{path}", json=body, headers=headers, timeout=20).raise_for_status()


if __name__ == "__main__":
    main(sys.argv[1])
