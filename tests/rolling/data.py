"""Everything that a store holds, as JSON that a person can read, and back.

    {"<key>": {"type": "hash", "ttl": true, "value": {"<field>": "<text>"}}, …}

A list and a set are lists, a sorted set is {member: score}. Bytes that are no printable UTF-8 are
{"base64": "…"}. `ttl`: whether the key expires.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import redis

from proxy_plugin.sessions import keys

TTL_MS = 30 * 24 * 3600 * 1000


def taken(store: redis.Redis) -> dict[str, Any]:
    """All of the plugin's keys but the leases of workers, which are of the moment."""
    found: dict[str, Any] = {}
    for key in sorted(store.scan_iter(keys.PREFIX + "*")):
        name = key.decode()
        if name in (keys.WORKERS, keys.RECOVERY) or name.endswith((":calls", ":flights")):
            continue
        kind: Any = store.type(key)
        found[name] = {"type": kind.decode(), "ttl": store.pttl(key) > 0, "value": _READ[kind](store, key)}  # type: ignore[operator]
    return found


def put(store: redis.Redis, data: Mapping[str, Any], now_ms: int) -> None:
    """Writes them back. The indexes say that their sessions were used now, or they would be taken for expired."""
    for name, entry in data.items():
        value = entry["value"]
        if entry["type"] == "hash":
            store.hset(name, mapping={field: _bytes(text) for field, text in value.items()})
        elif entry["type"] == "string":
            store.set(name, _bytes(value))
        elif entry["type"] == "list":
            store.rpush(name, *map(_bytes, value))
        elif entry["type"] == "set":
            store.sadd(name, *map(_bytes, value))
        else:
            of_sessions = name == keys.TENANTS or name.endswith(":sessions")
            store.zadd(name, {member: now_ms if of_sessions else score for member, score in value.items()})
        if entry["ttl"]:
            store.pexpire(name, TTL_MS)


def _text(value: bytes) -> Any:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}
    return text if text.isprintable() else {"base64": b64encode(value).decode()}


def _bytes(value: Any) -> bytes:
    return b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()


def _hash(store: redis.Redis, key: bytes) -> Any:
    found: Any = store.hgetall(key)
    return {field.decode(): _text(value) for field, value in sorted(found.items())}


def _zset(store: redis.Redis, key: bytes) -> Any:
    found: Any = store.zrange(key, 0, -1, withscores=True)
    return {member.decode(): "+inf" if score == float("inf") else score for member, score in found}


def _set(store: redis.Redis, key: bytes) -> Any:
    found: Any = store.smembers(key)
    return sorted(map(_text, found), key=str)


def _list(store: redis.Redis, key: bytes) -> Any:
    found: Any = store.lrange(key, 0, -1)
    return list(map(_text, found))


def _string(store: redis.Redis, key: bytes) -> Any:
    found: Any = store.get(key)
    return _text(found)


_READ = {b"hash": _hash, b"zset": _zset, b"set": _set, b"list": _list, b"string": _string}
