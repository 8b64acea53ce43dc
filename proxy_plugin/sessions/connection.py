"""The connection to Redis: which server, and how its scripts are called.

The first of these that is set: `store.url`, $PROXY_PLUGIN_REDIS_URL, LiteLLM's own variables
($REDIS_CLUSTER_NODES, $REDIS_URL, $REDIS_SENTINEL_NODES with $REDIS_SERVICE_NAME, $REDIS_HOST, in its own
order); else the embedded server. Opening only reads the configuration. A server that is down shows as an
error of the call, and the next call tries again.

    redis://[user:password@]host[:port][/db]     rediss:// for TLS, unix:///path
    redis+cluster://[user:password@]h1:p1,h2:p2  seeds; rediss+cluster:// for TLS
    redis+sentinel://[user:password@]h1:p1,h2:p2/service[/db]

Query options are redis-py's (`?ssl_ca_certs=…`); `sentinel_username` and `sentinel_password` are for the
sentinels themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis import exceptions as errors
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import BlockingConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from proxy_plugin.events import Emit, ignore
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.embedded import Embedded, EmbeddedError, Endpoint, state_folder
from proxy_plugin.sessions.encryption import Keyring, LockedValues
from proxy_plugin.sessions.outage import as_of_command
from proxy_plugin.settings import Settings, SettingsError

T = TypeVar("T")

CONNECT_SECONDS = 2.0
SOCKET_SECONDS = 5.0
MAX_SOCKETS = 64
_SCHEMES = frozenset(
    {
        "unix",
        *(scheme + topology for scheme in ("redis", "rediss") for topology in ("", "+cluster", "+sentinel")),
    }
)
_RESTART_EVERY_SECONDS = 1.0
_SCRIPTS = Path(__file__).with_name("scripts")
_log = logging.getLogger("proxy_plugin")

_TRANSIENT = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.ReadOnlyError,
    errors.OutOfMemoryError,
    errors.NoPermissionError,
    errors.ClusterError,
    errors.TryAgainError,
    errors.RedisClusterException,
    OSError,
)
_TRANSIENT_REPLIES = ("LOADING", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED")


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: the server is away, starting, failing over or full, or
    denies a right."""
    return isinstance(error, _TRANSIENT) or (
        isinstance(error, errors.ResponseError) and str(error).startswith(_TRANSIENT_REPLIES)
    )


def is_damage(error: object) -> bool:
    """Whether another kind of value stands under a key than the store ever put there."""
    return isinstance(error, errors.ResponseError) and "WRONGTYPE" in str(error)


def _worth_another_try(error: BaseException) -> bool:
    # Not after a timeout: the caller has waited long enough. Refused credentials stay refused.
    refused = (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError, EmbeddedError)
    timed_out = (errors.TimeoutError, TimeoutError)
    return is_transient(error) and not isinstance(error, (*refused, *timed_out, errors.OutOfMemoryError))


RETRY = AsyncRetrying(
    retry=retry_if_exception(_worth_another_try),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=0.02, max=0.2),
    reraise=True,
)
"""Every script gives the same state when it runs twice, so all of them may be retried."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script of the folder `scripts`; its header says what it takes and returns."""

    name: str
    source: str
    sha: str


@cache
def script(name: str) -> Script:
    source = (_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Target:
    """Where the store is. kind: "single" | "cluster" | "sentinel" | "embedded". `options` hold secrets."""

    kind: str
    origin: str
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Connection:
    """A lazily connected client. Its sockets belong to the event loop they were made on; used on another
    loop it connects anew. `codec`: how what holds texts lies there."""

    def __init__(self, target: Target, embedded: Embedded | None = None, codec: Codec | None = None) -> None:
        self.target = target
        self.codec = codec or Codec()
        self._embedded = embedded
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._ensuring: asyncio.Task[None] | None = None
        self._start_failed_at = -_RESTART_EVERY_SECONDS
        self._embedded_error = ""
        self._endpoint: Endpoint | None = None

    @classmethod
    def open(
        cls, settings: Settings, environ: Mapping[str, str] | None = None, emit: Emit = ignore
    ) -> Connection | None:
        """None where no server is configured and the embedded one is switched off. Raises SettingsError,
        which names the variable and never the password or a key."""
        env = os.environ if environ is None else environ
        target = find_target(settings, env)
        if target is None:
            return None
        codec = Codec(Keyring.of(env), LockedValues(emit))
        if target.kind != "embedded":
            return cls(target, None, codec)
        folder = state_folder(settings.store.embedded_dir, env)
        return cls(target, Embedded(folder, settings.store.embedded_port), codec)

    async def run(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Runs a script, by its hash where the server has it."""
        chosen = script(name)
        # Encoded here: redis-py asks of each value what it is, and with this many keys that takes longer.
        sent = [value.encode() if type(value) is str else value for value in (*keys, *args)]

        async def once(client: Any) -> Any:
            try:
                return await client.evalsha(chosen.sha, len(keys), *sent)
            except errors.NoScriptError:
                return await client.eval(chosen.source, len(keys), *sent)

        return await self.call(once)

    async def command(self, name: str, *args: Any, **options: Any) -> Any:
        """Runs one command of redis-py's client that gives the same state when it runs twice."""

        async def once(client: Any) -> Any:
            return await getattr(client, name)(*args, **options)

        return await self.call(once)

    async def call(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Runs an operation that gives the same state when it runs twice, with retries."""

        async def attempt() -> T:
            client = await self._connected()
            try:
                if self.target.kind == "cluster":
                    return await _on_cluster(client, operation)
                return await operation(client)
            except (errors.ConnectionError, ConnectionError):
                if self._embedded is not None:
                    await self._ensure()  # its owner may have ended: whoever notices starts it again
                raise
            except errors.ResponseError as error:
                raise as_of_command(error) from None

        try:
            return await attempt()  # the policy costs as much as the call: only where something failed
        except Exception as error:
            if not _worth_another_try(error):
                raise
        return await RETRY.copy()(attempt)

    @property
    def kind(self) -> str:
        """Where it leads: "embedded" or "external"."""
        return "external" if self._embedded is None else "embedded"

    async def close(self) -> None:
        """Closes the sockets. An embedded server that this process started is stopped; its data stays."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()
        if self._embedded is not None:
            await asyncio.to_thread(self._embedded.stop)

    async def _connected(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._client, self._ensuring = loop, None, None
        if self._client is None and self._embedded is not None:
            await self._ensure()
        if self._client is None:
            if self._embedded is not None:
                raise EmbeddedError(self._embedded_error or "embedded store: not started")
            self._client = _client(self.target)
        return self._client

    async def _ensure(self) -> None:
        """Starts or finds the embedded server, once for all callers, and after a failure not at once again."""
        if self._ensuring is None or self._ensuring.done():
            if time.monotonic() - self._start_failed_at < _RESTART_EVERY_SECONDS:
                return
            self._ensuring = asyncio.get_running_loop().create_task(self._start_embedded())
        await asyncio.shield(self._ensuring)

    async def _start_embedded(self) -> None:
        assert self._embedded is not None
        try:
            endpoint = await asyncio.to_thread(self._embedded.ensure)
        except EmbeddedError as error:
            if str(error) != self._embedded_error:
                _log.warning("%s; conversations are not stored", error)
            self._embedded_error = str(error)
            self._start_failed_at = time.monotonic()
            return
        self._embedded_error = ""
        if self._client is None or endpoint != self._endpoint:
            options = {"host": endpoint.host, "port": endpoint.port, "password": endpoint.password}
            self._client = _client(Target("single", self.target.origin, options=options))
            self._endpoint = endpoint


async def _on_cluster(client: RedisCluster, operation: Callable[[Any], Awaitable[T]]) -> T:
    """What redis-py's cluster client leaves to be done. A client that has not met its nodes yet sends scripts to any
    of them, and after some answers of MOVED closes all sockets, those of other calls too: so it meets them first.
    Calls whose sockets are closed so, as after a failover, fail with whatever that gives."""
    try:
        await client.initialize()  # once, and again after it has closed its sockets
        return await operation(client)
    except (AttributeError, RuntimeError) as error:
        raise errors.ConnectionError("the socket was closed under way") from error


def find_target(settings: Settings, env: Mapping[str, str]) -> Target | None:
    """Raises SettingsError for an address that cannot be used."""
    for origin, url in (
        ("store.url", settings.store.url),
        ("PROXY_PLUGIN_REDIS_URL", env.get("PROXY_PLUGIN_REDIS_URL")),
    ):
        if url:
            return parse_target(url, origin)
    return _of_litellm(env) or (Target("embedded", "embedded") if settings.store.embedded else None)


def parse_target(url: str, origin: str) -> Target:
    """`origin` is the variable's name, for the error."""
    try:
        parts = urlsplit(url.strip())
        scheme, _, topology = parts.scheme.partition("+")
        if parts.scheme not in _SCHEMES:
            raise ValueError("must begin with redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://")
        if not topology:
            if scheme != "unix" and not parts.hostname:
                raise ValueError("names no host")
            return Target("single", origin, options=_options(url.strip()))
        userinfo, _, hosts = parts.netloc.rpartition("@")
        nodes = tuple(_node(node, 6379 if topology == "cluster" else 26379) for node in hosts.split(",") if node)
        if not nodes:
            raise ValueError("names no host")
        service, _, db = parts.path.strip("/").partition("/")
        if topology == "sentinel" and not service:
            raise ValueError("names no service: redis+sentinel://host:port/service")
        if topology == "cluster" and service:
            raise ValueError("a cluster has no database number")
        # redis-py's own parser reads what the forms have in common.
        plain = f"{scheme}://{userinfo + '@' if userinfo else ''}host/{db}{'?' + parts.query if parts.query else ''}"
        options = {key: value for key, value in _options(plain).items() if key not in ("host", "port")}
        watchers = {
            key.removeprefix("sentinel_"): options.pop(key)
            for key in ("sentinel_username", "sentinel_password")
            if key in options
        }
        return Target(topology, origin, nodes, service, options, watchers)
    except ValueError as error:
        # urllib and redis-py quote the address in some messages: only our own texts are passed on.
        reason = str(error) if str(error).startswith(("must ", "names ", "a ")) else "is no valid address"
        raise SettingsError(f"{origin}: {reason}") from None


def _options(url: str) -> dict[str, Any]:
    ignored = ("decode_responses", "encoding", "encoding_errors", "protocol", "legacy_responses")
    return {key: value for key, value in parse_url(url).items() if key not in ignored}


def _node(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit("//" + text)
    if not parts.hostname:
        raise ValueError("names no host")
    return parts.hostname, parts.port or default_port


def _of_litellm(env: Mapping[str, str]) -> Target | None:
    """The variables that LiteLLM reads, in its order."""
    user, password = env.get("REDIS_USERNAME", ""), env.get("REDIS_PASSWORD", "")
    secure = env.get("REDIS_SSL", "").lower() in ("true", "1", "yes")
    options: dict[str, Any] = {key: value for key, value in (("username", user), ("password", password)) if value}
    if secure:
        options["connection_class"] = SSLConnection
    if env.get("REDIS_CLUSTER_NODES"):
        return Target("cluster", "REDIS_CLUSTER_NODES", _listed(env, "REDIS_CLUSTER_NODES"), "", options)
    if env.get("REDIS_URL"):
        return parse_target(env["REDIS_URL"], "REDIS_URL")
    db = env.get("REDIS_DB", "")
    if db and not db.isdigit():
        raise SettingsError("REDIS_DB: is no number")
    if db:
        options["db"] = int(db)
    if env.get("REDIS_SENTINEL_NODES") and env.get("REDIS_SERVICE_NAME"):
        nodes = _listed(env, "REDIS_SENTINEL_NODES")
        watchers = {"password": env["REDIS_SENTINEL_PASSWORD"]} if env.get("REDIS_SENTINEL_PASSWORD") else {}
        return Target("sentinel", "REDIS_SENTINEL_NODES", nodes, env["REDIS_SERVICE_NAME"], options, watchers)
    if env.get("REDIS_HOST"):
        port = env.get("REDIS_PORT") or "6379"
        if not port.isdigit():
            raise SettingsError("REDIS_PORT: is no number")
        return Target("single", "REDIS_HOST", options={**options, "host": env["REDIS_HOST"], "port": int(port)})
    return None


def _listed(env: Mapping[str, str], name: str) -> tuple[tuple[str, int], ...]:
    """[{"host": …, "port": …}] or [["host", port]], the forms that LiteLLM takes."""
    try:
        entries = json.loads(env[name])
        nodes = [(e["host"], e["port"]) if isinstance(e, dict) else (e[0], e[1]) for e in entries]
        if not nodes:
            raise ValueError
        return tuple((str(host), int(port)) for host, port in nodes)
    except (ValueError, TypeError, KeyError, IndexError):
        raise SettingsError(f"{name}: is no JSON list of nodes") from None


def _client(target: Target) -> Any:
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 30,
        **target.options,
        "protocol": 2,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),  # the policy is RETRY, in one place
    }
    if target.kind == "single":
        if "path" in options:
            del options["socket_keepalive"]  # a Unix socket has none
        # A burst waits for a socket instead of opening one for each of its requests.
        pool = {"max_connections": MAX_SOCKETS, "timeout": SOCKET_SECONDS}
        return redis.Redis.from_pool(BlockingConnectionPool(**{**pool, **options}))
    options.setdefault("max_connections", 1_000)  # these pools refuse where the other one waits
    secure = options.pop("connection_class", None)
    if secure is not None:
        options["ssl"] = True
    if target.kind == "cluster":
        options["retry"] = Retry(NoBackoff(), 3)  # moved slots are followed inside the client
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in target.nodes], **options)
    watchers = {
        "socket_connect_timeout": options["socket_connect_timeout"],
        "socket_timeout": options["socket_timeout"],
        "retry": Retry(NoBackoff(), 0),
        **({"ssl": True} if secure is not None else {}),
        **target.sentinel_options,
    }
    sentinel: Any = Sentinel
    return sentinel(list(target.nodes), sentinel_kwargs=watchers, **options).master_for(target.service)
