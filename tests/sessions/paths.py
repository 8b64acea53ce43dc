"""Commits of small conversations: "u1 a1 u2" is a path of three messages, named by role and text."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any

import orjson

from proxy_plugin.history.model import node_id
from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions import identity
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.tree import Base, Commit, Lead

TENANT = identity.tenant_of("key", key_hash="alice")
OTHER_TENANT = identity.tenant_of("key", key_hash="bob")
START_MS = 1_800_000_000_000
_ROLES = {"u": "user", "a": "assistant", "c": "assistant", "t": "tool"}  # c: an assistant message with calls
_clock = count(START_MS)


def ids_of(path: str) -> list[str]:
    ids, parent = [], ""
    for name in path.split():
        parent = sha256(f"{parent}/{name}".encode()).hexdigest()[:32]
        ids.append(parent)
    return ids


def tip_of(path: str) -> str:
    return ids_of(path)[-1]


def session(name: str = "s-1", tenant: str = TENANT) -> Address:
    return identity.address(tenant, name)


def opened(opening: str = "hello", tenant: str = TENANT) -> Address:
    return identity.find_session({}, {}, tenant, opening)


def lead(text: str) -> Lead:
    return Lead(sha256(text.encode()).hexdigest()[:32], b'[{"role":"system","content":"%s"}]' % text.encode())


def request(path: str, address: Address | None = None, **changes: Any) -> Commit:
    names = path.split()
    ids = ids_of(path)
    roles = [_ROLES[name[0]] for name in names]
    asked = roles.index("user") if "user" in roles else len(roles)
    replies = [i for i in range(asked, len(roles)) if roles[i] == "assistant"]
    starts = [i for i, name in enumerate(names) if name[0] == "u" and (i == 0 or names[i - 1][0] == "a")]
    values: dict[str, Any] = {
        "address": address or session(),
        "ids": ids,
        "bodies": [b'{"text":"%s"}' % name.encode() for name in names],
        "roles": roles,
        "first_reply": ids[replies[0]] if replies else None,
        "lead": None,
        "kind": "request",
        "subtask_start": starts[-1] if starts and names[-1][0] != "a" else len(names),
        "explicit_base": starts[-1] if starts else 0,
        "size_bytes": 100 * len(names),
        "at_ms": next(_clock),
        **changes,
    }
    return Commit(**values)


def reply(path: str, address: Address | None = None, **changes: Any) -> Commit:
    """The path's last message is the reply."""
    asked = request(path.rpartition(" ")[0], address)
    closes = path.split()[-1][0] == "a"
    given = {
        "subtask_start": asked.subtask_start,
        "explicit_base": asked.explicit_base,
        "closes": closes,
        **changes,
    }
    return request(path, address, kind="reply", **given)


def kept_under(response: str, tenant: str = TENANT) -> str:
    return identity.kept_under(tenant, "response", response)


def keep(commit: Commit, *responses: str) -> Commit:
    """The same, found by these ids of responses; so is what is stored where its base is gone."""
    tenant = commit.address.tenant
    end = Base(commit.tip, commit.depth, commit.closes, commit.first_reply, 0, commit.address, commit.token)
    alone = keep(commit.alone, *responses) if commit.alone else None
    return replace(commit, alone=alone, kept=tuple((kept_under(name, tenant), end) for name in responses))


def behind(base: Base, path: str, new: str, address: Address | None = None, **changes: Any) -> Commit:
    """`new` as a request that goes on from `path`, whose end is `base`. kind="reply": its last message is one."""
    make = reply if changes.pop("kind", "request") == "reply" else request
    whole, alone = make(f"{path} {new}", address, **changes), make(new, address, **changes)
    sent = len(path.split())
    return replace(
        whole,
        address=address or base.address,
        ids=whole.ids[sent:],
        bodies=whole.bodies[sent:],
        roles=whole.roles[sent:],
        subtask_start=max(whole.subtask_start - sent, -1),
        explicit_base=max(whole.explicit_base - sent, 0),
        token=changes.get("token") or base.token or whole.token,
        base=base,
        alone=alone,
    )


def meant(path: str) -> tuple[list[str], list[bytes]]:
    """Ids and bodies of the path as the gateway makes them, of chat messages."""
    ids: list[str] = []
    bodies: list[bytes] = []
    wire: list[dict[str, Any]] = []
    for before, name in zip(["", *path.split()], path.split(), strict=False):
        message: dict[str, Any] = {"role": _ROLES[name[0]], "content": name}
        if name[0] == "c":
            function = {"name": "look", "arguments": "{}"}
            message |= {
                "content": None,
                "tool_calls": [{"id": f"call-{name}", "type": "function", "function": function}],
            }
        elif name[0] == "t":
            message["tool_call_id"] = f"call-{before}"
        wire.append(message)
        bodies.append(b'{"api":"chat","wire":%s}' % orjson.dumps(message))
    for neutral in CODECS["chat"].parse(wire):
        ids.append(node_id(ids[-1] if ids else "", neutral))
    return ids, bodies


def spoken(commit: Commit, path: str) -> Commit:
    """The same commit with such ids and bodies. Needs one that has no base."""
    ids, bodies = meant(path)
    first_reply = ids[commit.ids.index(commit.first_reply)] if commit.first_reply else None
    return replace(commit, ids=ids, bodies=bodies, first_reply=first_reply)
