"""What a server refuses inside a script is told apart on every release: each words it in a way of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from redis import exceptions as errors

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection, Target, is_transient
from proxy_plugin.sessions.outage import kind_of
from tests.sessions.servers import client, free_ports, running

KEY = keys.PREFIX + "{refused}"
WRITE = "local at = KEYS[1]\nredis.call('HSET', at, 'field', '1')\nreturn 'written'"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    (port,) = free_ports(1)
    with running(tmp_path_factory.mktemp("refusing"), f'port {port}\nsave ""'):
        yield port


@pytest.fixture
def admin(port: int) -> Iterator[Any]:
    """Of a server that is as it was started again afterwards."""
    control = client(port)
    before = {name: control.config_get(name)[name] for name in ("maxmemory", "min-replicas-to-write", "requirepass")}
    yield control
    control.replicaof("NO", "ONE")
    for name, value in before.items():
        control.config_set(name, value)
    control.flushall()


def written(port: int, *more: str, **user: str) -> Any:
    """What a script that writes gives, or the error that it meets. `more`: further arguments of the script."""

    async def play() -> Any:
        connection = Connection(Target("single", "test", options={"host": "127.0.0.1", "port": port, **user}))

        async def write(redis: Any) -> Any:
            return await redis.eval(WRITE, 1, KEY, *more)

        try:
            return await connection.call(write)
        except errors.RedisError as error:
            return error
        finally:
            await connection.close()

    return asyncio.run(play())


def test_a_full_server(port: int, admin: Any) -> None:
    admin.config_set("maxmemory", "1")
    assert (kind_of(error := written(port)), is_transient(error)) == ("memory", True)
    admin.config_set("maxmemory", "0")
    assert written(port) == b"written"


def test_a_replica(port: int, admin: Any) -> None:
    admin.replicaof("127.0.0.1", free_ports(1)[0])
    assert (kind_of(error := written(port)), is_transient(error)) == ("read_only", True)


def test_a_server_that_lacks_replicas(port: int, admin: Any) -> None:
    admin.config_set("min-replicas-to-write", "1")
    assert is_transient(written(port))


@pytest.mark.parametrize("rights", [(f"~{KEY}", "+@all", "-hset"), ("~other*", "+@all")], ids=["command", "key"])
def test_a_right_that_the_user_lacks(port: int, admin: Any, rights: tuple[str, ...]) -> None:
    admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">secret", *rights)
    error = written(port, username="limited", password="secret")
    assert (kind_of(error), is_transient(error)) == ("rights", True)


@pytest.mark.parametrize("more", [(), ("x",) * 20, ("x" * 20_000,)], ids=["short", "many arguments", "a long one"])
def test_a_password_that_nobody_gave(port: int, admin: Any, more: tuple[str, ...]) -> None:
    admin.config_set("requirepass", "s3cret")
    assert (kind_of(error := written(port, *more)), is_transient(error)) == ("auth", True)
    assert written(port, *more, password="s3cret") == b"written"


def test_a_mistake_is_not_taken_for_an_outage(port: int, admin: Any) -> None:
    admin.set(KEY, "a string")
    error = written(port)
    assert (kind_of(error), is_transient(error)) == ("response", False)
    assert str(error).startswith("WRONGTYPE")
