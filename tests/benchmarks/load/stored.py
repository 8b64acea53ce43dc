"""Whether the store holds each acknowledged conversation, once and whole; read over HTTP."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson

from tests.benchmarks.load.recordings import Session, reply
from tests.proxy import Proxy

T = TypeVar("T")
_PAGE = 200
SETTLE_SECONDS = 30.0
"""Within which late commits arrive."""
_POLL_SECONDS = 0.2


class Kept(NamedTuple):
    """Of one conversation."""

    sessions: int
    messages: int
    branches: int


def faults(
    proxy: Proxy, sessions: Iterable[Session], sample: int, *, settle_seconds: float = SETTLE_SECONDS
) -> list[str]:
    """What is wrong: of every session that it is there once, unbranched and as long as it should be; of `sample`
    sessions each message."""
    known = sorted(sessions, key=lambda session: session.name)
    out = [f"{session.name}: its client was never told where it is kept" for session in known if not session.key]
    known = [session for session in known if session.key]
    out += [f"{key}: shared" for key, times in Counter(session.key for session in known).items() if times > 1]
    wanted = {session.key: Kept(1, session.acknowledged + 1, 1) for session in known}
    deadline = time.monotonic() + settle_seconds
    found, ids = _settled(lambda: _listed(proxy), lambda listed: listed[0] == wanted, deadline)
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    out += [f"{key}: {found.get(key)} instead of {wanted.get(key)}" for key in differing]
    for session in random.Random(1).sample(known, min(sample, len(known))):
        whole = _expected(session)
        got = _settled(partial(_history, proxy, ids.get(session.key, "")), whole.__eq__, deadline)
        if got != whole:
            first = next((n for n, pair in enumerate(zip(got, whole, strict=False)) if pair[0] != pair[1]), len(got))
            out.append(f"{session.key}: differs from message {first} on; {len(got)} of {len(whole)} are there")
    return out


def _settled(read: Callable[[], T], right: Callable[[T], bool], deadline: float) -> T:
    """What `read` gives once it is right, at the latest at the deadline."""
    while not right(value := read()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return value


def _listed(proxy: Proxy) -> tuple[dict[str, Kept], dict[str, str]]:
    """What is kept under each session's key, and the id of the session there."""
    kept: dict[str, Kept] = {}
    ids: dict[str, str] = {}
    offset = 0
    while page := proxy.get("/sessions", limit=_PAGE, offset=offset).json()["sessions"]:
        for entry in page:
            key = entry["session_id"].partition(".")[0]
            before = kept.get(key, Kept(0, 0, 0))
            kept[key] = Kept(before.sessions + 1, entry["message_count"], entry["branches"])
            ids[key] = entry["session_id"]
        offset += len(page)
    return kept, ids


def _expected(session: Session) -> list[Any]:
    last = reply(session.recording.number, session.acknowledged)
    return [_essence(m) for m in [*orjson.loads(session.history(session.acknowledged)), last]]


def _history(proxy: Proxy, session_id: str) -> list[Any]:
    answer = proxy.get(f"/sessions/{session_id}/history")
    return [_essence(message) for message in answer.json()["messages"]] if answer.status_code == 200 else []


def _essence(message: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that LiteLLM adds to a reply."""
    calls = [{"id": call["id"], "function": call["function"]} for call in message.get("tool_calls") or ()]
    return {
        "role": message["role"],
        "content": message["content"],
        "calls": calls,
        "answers": message.get("tool_call_id"),
    }
