"""Ways to keep a conversation, each behind the same three calls. Foreign packages are imported when one is opened."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import urandom
from typing import Any, Protocol

import orjson
import redis.asyncio as redis

from proxy_plugin.history.model import node_id
from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions import identity
from proxy_plugin.sessions.bodies import Codec
from proxy_plugin.sessions.connection import Connection, Target
from proxy_plugin.sessions.embedded import Endpoint
from proxy_plugin.sessions.encryption import Keyring
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.tree import Commit
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import ENCRYPTION_KEYS, Deadlines, Settings, SettingsError

Messages = Sequence[Mapping[str, Any]]
TENANT = identity.tenant_of("key", key_hash="benchmark")


class Unavailable(Exception):
    """It cannot take part, and why."""


class Contestant(Protocol):
    """`fill` makes a session, `append` adds two messages to one, `count` says how many it has. `new_subtasks`: what
    is appended is an answer and another question, not a call of a tool and its result."""

    name: str
    new_subtasks: bool

    async def open(self, endpoint: Endpoint) -> None:
        """Raises Unavailable."""

    async def fill(self, session: str, messages: Messages) -> None: ...

    async def append(self, session: str, messages: Messages) -> None: ...

    async def count(self, session: str) -> int: ...

    async def settle(self) -> None:
        """Returns when nothing is under way behind the caller's back."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Said:
    """A session as its client knows it: the whole path, as each of its requests has it. `filled`: messages of the
    first one."""

    address: Address
    ids: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    size: int = 0
    filled: int = 0

    def add(self, messages: Messages) -> None:
        """Ids and bodies of what is new, made as the gateway makes them."""
        for neutral, message in zip(CODECS["chat"].parse(list(messages)), messages, strict=True):
            self.ids.append(node_id(self.ids[-1] if self.ids else "", neutral))
            self.bodies.append(b'{"api":"chat","wire":%s}' % orjson.dumps(message))
            self.roles.append(neutral.role)
            self.size += len(self.bodies[-1])


class Plugin:
    """The plugin's store, through what guards it on the request path: an append is a request with two messages that
    are new."""

    name = "proxy_plugin"
    new_subtasks = False

    @staticmethod
    def codec() -> Codec:
        return Codec()

    async def open(self, endpoint: Endpoint) -> None:
        options = {"host": endpoint.host, "port": endpoint.port, "password": endpoint.password}
        self._connection = Connection(Target("single", "benchmark", options=options), codec=self.codec())
        settings = Settings(deadlines=Deadlines(store_ms=60_000, total_ms=60_000))
        self._store = SessionStore(self._connection, settings)
        self._guarded = GuardedStore(self._store, settings)
        self._said: dict[str, _Said] = {}

    async def fill(self, session: str, messages: Messages) -> None:
        self._said[session] = _Said(identity.address(TENANT, session))
        self._said[session].filled = len(messages)
        await self.append(session, messages)

    async def append(self, session: str, messages: Messages) -> None:
        said = self._said[session]
        said.add(messages)
        commit = Commit(
            address=said.address,
            ids=said.ids,
            bodies=said.bodies,
            roles=said.roles,
            first_reply=said.ids[1] if len(said.ids) > 1 else None,
            lead=None,
            kind="request",
            subtask_start=said.roles.index("user", -2) if self.new_subtasks else said.filled - 1,
            size_bytes=said.size,
            at_ms=1_800_000_000_000 + len(said.ids),
        )
        committed = await self._guarded.commit(commit)
        assert committed is not None
        self._guarded.landed(commit)

    async def count(self, session: str) -> int:
        history = await self._store.reader.history(self._said[session].address)
        return history.message_count if history else 0

    async def settle(self) -> None:
        await self._store.index.flush()

    async def close(self) -> None:
        await self._guarded.close(30)
        await self._connection.close()


class PluginSubtasks(Plugin):
    """The same where each append ends a subtask and begins the next: two records and a snapshot besides."""

    name = "proxy_plugin, each append a new subtask"
    new_subtasks = True


class PluginEncrypted(Plugin):
    """The same with encryption at rest."""

    name = "proxy_plugin, encrypted"

    @staticmethod
    def codec() -> Codec:
        try:
            return Codec(Keyring.of({ENCRYPTION_KEYS: b64encode(urandom(32)).decode()}))
        except SettingsError:
            raise Unavailable("needs the package cryptography") from None


class _OwnClient:
    """With a client of redis-py's."""

    new_subtasks = False

    async def open(self, endpoint: Endpoint) -> None:
        self.client: Any = redis.Redis(host=endpoint.host, port=endpoint.port, password=endpoint.password)

    async def settle(self) -> None:
        pass

    async def close(self) -> None:
        await self.client.aclose()


class Blob(_OwnClient):
    """The whole conversation as one value."""

    name = "one JSON blob, GET + SET"

    async def fill(self, session: str, messages: Messages) -> None:
        await self.client.set("blob:" + session, orjson.dumps(messages))

    async def append(self, session: str, messages: Messages) -> None:
        kept = orjson.loads(await self.client.get("blob:" + session))
        kept += messages
        await self.client.set("blob:" + session, orjson.dumps(kept))

    async def count(self, session: str) -> int:
        return len(orjson.loads(await self.client.get("blob:" + session)))


class AgentsSession(_OwnClient):
    """openai-agents' RedisSession, told what is new."""

    name = "openai-agents RedisSession, add_items"
    reads = False

    async def open(self, endpoint: Endpoint) -> None:
        try:
            from agents.extensions.memory import RedisSession
        except ImportError:
            raise Unavailable("not installed (openai-agents)") from None
        await super().open(endpoint)
        self._sessions: dict[str, Any] = {}
        self._new = RedisSession

    async def fill(self, session: str, messages: Messages) -> None:
        prefix = "read" if self.reads else "added"
        self._sessions[session] = self._new(session, redis_client=self.client, key_prefix=prefix)
        await self._sessions[session].add_items(list(messages))

    async def append(self, session: str, messages: Messages) -> None:
        if self.reads:
            await self._sessions[session].get_items()
        await self._sessions[session].add_items(list(messages))

    async def count(self, session: str) -> int:
        return len(await self._sessions[session].get_items())


class AgentsTurn(AgentsSession):
    """The same as its runner uses it: each turn reads the session first."""

    name = "openai-agents RedisSession, get_items + add_items"
    reads = True


class LanggraphSaver(_OwnClient):
    """langgraph's Redis checkpointer: a checkpoint with all messages for each turn, as a graph with a `messages`
    channel writes it."""

    name = "langgraph AsyncRedisSaver, aget + aput"

    async def open(self, endpoint: Endpoint) -> None:
        try:
            from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint
            from langgraph.checkpoint.redis.aio import AsyncRedisSaver
        except ImportError:
            raise Unavailable("not installed (langgraph-checkpoint-redis)") from None
        await super().open(endpoint)
        self._empty, self._next = empty_checkpoint, create_checkpoint
        self._saver = AsyncRedisSaver(redis_client=self.client)
        try:
            await self._saver.asetup()
        except Exception as error:
            await self.client.aclose()
            why = str(error.__cause__ or error).splitlines()[0][:80]
            raise Unavailable(f"needs the server modules RediSearch and RedisJSON ({why})") from None
        self._steps: dict[str, int] = {}

    async def fill(self, session: str, messages: Messages) -> None:
        self._steps[session] = 0
        await self._put({"configurable": {"thread_id": session, "checkpoint_ns": ""}}, session, list(messages))

    async def append(self, session: str, messages: Messages) -> None:
        found = await self._saver.aget_tuple({"configurable": {"thread_id": session, "checkpoint_ns": ""}})
        assert found is not None
        await self._put(found.config, session, [*found.checkpoint["channel_values"]["messages"], *messages])

    async def _put(self, config: Any, session: str, messages: list[Any]) -> None:
        step = self._steps[session] = self._steps[session] + 1
        checkpoint = self._next(self._empty(), None, step)
        checkpoint["channel_values"], checkpoint["channel_versions"] = {"messages": messages}, {"messages": str(step)}
        metadata: Any = {"source": "loop", "step": step, "parents": {}}
        await self._saver.aput(config, checkpoint, metadata, {"messages": str(step)})

    async def count(self, session: str) -> int:
        found = await self._saver.aget_tuple({"configurable": {"thread_id": session, "checkpoint_ns": ""}})
        return len(found.checkpoint["channel_values"]["messages"]) if found else 0


CONTESTANTS: tuple[type[Contestant], ...] = (
    Plugin, PluginSubtasks, PluginEncrypted, Blob, AgentsSession, AgentsTurn, LanggraphSaver,
)  # fmt: skip


async def opened(endpoint: Endpoint) -> tuple[list[Contestant], dict[str, str]]:
    """Those that take part, and of the others why not."""
    there: list[Contestant] = []
    absent: dict[str, str] = {}
    for kind in CONTESTANTS:
        contestant = kind()
        try:
            await contestant.open(endpoint)
        except Unavailable as why:
            absent[contestant.name] = str(why)
        else:
            there.append(contestant)
    return there, absent


async def closed(contestants: Sequence[Contestant]) -> None:
    await asyncio.gather(*(contestant.close() for contestant in contestants))
