"""Commits of real conversations: what the gateway would store of a chat request and of its reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy_plugin.gateway.commits import reply_commit, request_commit
from proxy_plugin.history.path import Path
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import Commit, Committed
from tests.sessions.paths import session

Wire = list[dict[str, Any]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def calling(call_id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(call_id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def asked(wire: Sequence[Any], address: Address | None = None, api: str = "chat", **body: Any) -> Commit:
    return request_commit(Path(list(wire), api, None), address or session(), {}, body)


async def talk(worker: SessionStore, wire: Wire, address: Address | None = None, **body: Any) -> Committed:
    """The conversation as a client has it: each assistant message of `wire` is a reply to what comes before."""
    committed = None
    for index, message in enumerate(wire):
        if message["role"] != "assistant":
            continue
        commit = asked(wire[:index], address, **body)
        await worker.commit(commit)
        reply = Path([message], "chat", None)
        committed = await worker.commit(reply_commit(commit, Path(wire[:index], "chat", None), reply, True))
    if wire[-1]["role"] != "assistant":
        committed = await worker.commit(asked(wire, address, **body))
    assert committed is not None
    return committed
