"""Checks of the session store: which one, does it answer, and will it keep what it is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from redis import exceptions as errors

from proxy_plugin.doctor.encryption import check_stored
from proxy_plugin.doctor.finding import Finding, error, ok, warning
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection, find_target
from proxy_plugin.sessions.outage import ADVICE, kind_of
from proxy_plugin.sessions.rights import rights
from proxy_plugin.settings import Settings, SettingsError

ANSWER_SECONDS = 10.0
_OLDEST = (6, 2)
_CLOCK_SECONDS = 2.0
_PROBE = keys.PREFIX + "{doctor}:probe"


async def check_store(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Opens the store as the plugin would; an embedded one is started for the moment of the check."""
    try:
        target = find_target(settings, environ)
        connection = Connection.open(settings, environ)
    except SettingsError as problem:
        return [error("store", str(problem), "mend the address")]
    if target is None or connection is None:
        cure = "set PROXY_PLUGIN_REDIS_URL or store.embedded: true"
        return [warning("store", "none: conversations are not kept", cure)]
    findings = [ok("store", f"{target.kind}, from {target.origin}")]
    if target.kind == "embedded":
        cure = "for more than one machine set PROXY_PLUGIN_REDIS_URL"
        findings.append(Finding("store kind", "ok", "the plugin's own server on this machine", cure))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.command("ping")
            async for finding in _look(connection):
                findings.append(finding)
            async for finding in check_stored(connection, settings):
                findings.append(finding)
    except Exception as problem:
        if kind_of(problem) == "rights":
            findings.append(_denied(connection, problem))
            return findings
        wrong, _, cure = ADVICE[kind_of(problem)].partition(": ")
        findings.append(error("store answers", f"no, it {wrong} ({type(problem).__name__})", cure))
    finally:
        await connection.close()
    return findings


async def _look(connection: Connection) -> AsyncIterator[Finding]:
    info = await _info(connection)
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    name = "Valkey" if info.get("valkey_version") else "Redis"
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not info:
        yield warning("store version", "unknown: the user may not run INFO", "give the store's user +info")
    elif release < _OLDEST:
        yield error("store version", f"{name} {version}", "6.2 is the oldest that is supported")
    else:
        yield ok("store version", f"{name} {version}")
    yield _persistence(info)
    yield _eviction(info)
    yield await _rights(connection)
    yield await _clock(connection)


async def _info(connection: Connection) -> dict[str, Any]:
    """INFO of the server; of a cluster, of one of its nodes. {} where the user may not ask."""

    async def read(client: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await client.info()
        first = next(iter(answer.values()), None)
        return first if isinstance(first, dict) and "redis_version" in first else answer

    try:
        return await connection.call(read)
    except errors.NoPermissionError:
        return {}


def _persistence(info: Mapping[str, Any]) -> Finding:
    check = "store persistence"
    if not info:
        return warning(check, "the user may not run INFO", "look at the store's configuration yourself")
    if info.get("aof_enabled"):
        return ok(check, "append-only file")
    if info.get("role") == "master" and info.get("connected_slaves"):
        return ok(check, f"{info['connected_slaves']} replicas")
    return warning(check, "no append-only file: a restart of the store loses sessions", "appendonly yes")


def _eviction(info: Mapping[str, Any]) -> Finding:
    check, policy, limit = "store eviction", str(info.get("maxmemory_policy", "")), int(info.get("maxmemory") or 0)
    if policy.startswith("allkeys") and limit:
        cure = "maxmemory-policy noeviction (or volatile-ttl), or a store of its own"
        return warning(check, f"{policy}: parts of sessions may be thrown out", cure)
    return ok(check, policy or "unknown")


async def _rights(connection: Connection) -> Finding:
    """Runs what the plugin runs: a script, and the kinds of commands it uses, on a key of its prefix."""

    async def use(client: Any) -> None:
        await client.eval("return redis.call('SET', KEYS[1], ARGV[1], 'PX', '1000')", 1, _PROBE, "1")
        await client.unlink(_PROBE)
        await client.hset(_PROBE, "field", "value")
        await client.hscan(_PROBE)
        await client.unlink(_PROBE)
        await client.zadd(_PROBE, {"member": 1})
        await client.zremrangebyscore(_PROBE, 0, 1)

    try:
        await connection.call(use)
    except errors.NoPermissionError as problem:
        return _denied(connection, problem)
    except (errors.ReadOnlyError, errors.OutOfMemoryError) as problem:
        return error("store rights", type(problem).__name__, "the store takes no writes: see its role and its memory")
    return ok("store rights", "scripts, reads and writes below " + keys.PREFIX)


def _denied(connection: Connection, problem: Exception) -> Finding:
    return error("store rights", str(problem)[:200], f"give the store's user {rights(connection.target.kind)}")


async def _clock(connection: Connection) -> Finding:
    async def read(client: Any) -> tuple[int, int]:
        answer = await client.time()
        seconds, micros = next(iter(answer.values())) if isinstance(answer, dict) else answer
        return int(seconds), int(micros)

    before = time.time()
    try:
        seconds, micros = await connection.call(read)
    except errors.NoPermissionError:
        return ok("clock", "the user may not ask for the store's time")
    apart = seconds + micros / 1e6 - (before + time.time()) / 2
    if abs(apart) > _CLOCK_SECONDS:
        cure = "synchronise the clocks (NTP): expiry and order of sessions hang on them"
        return warning("clock", f"the store's is {apart:+.1f} s from this machine's", cure)
    return ok("clock", "as the store's")
