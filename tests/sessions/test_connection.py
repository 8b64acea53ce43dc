from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis import exceptions as errors
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from proxy_plugin.sessions import connection as module
from proxy_plugin.sessions.connection import Connection, Target, find_target, parse_target
from proxy_plugin.sessions.outage import kind_of
from proxy_plugin.settings import Settings, SettingsError, Store
from tests.sessions.conftest import Scenario, World, free_port
from tests.sessions.paths import request, session

NO_STORE = Settings(store=Store(embedded=False))


def found(env: dict[str, str], settings: Settings = NO_STORE) -> Target | None:
    return find_target(settings, env)


def test_which_server_counts() -> None:
    env = {"PROXY_PLUGIN_REDIS_URL": "redis://plugin", "REDIS_URL": "redis://litellm", "REDIS_HOST": "host"}
    chosen = found(env, Settings(store=Store(url="redis://settings")))
    assert chosen is not None and (chosen.origin, chosen.options["host"]) == ("store.url", "settings")
    for origin in ("PROXY_PLUGIN_REDIS_URL", "REDIS_URL", "REDIS_HOST"):
        chosen = found(env)
        assert chosen is not None and chosen.origin == origin
        del env[origin]
    assert found(env) is None
    embedded = found(env, Settings())
    assert embedded is not None and embedded.kind == "embedded"
    assert Connection.open(NO_STORE, {}) is None


def test_the_variables_of_litellm() -> None:
    chosen = found({"REDIS_HOST": "h", "REDIS_PORT": "7000", "REDIS_USERNAME": "u", "REDIS_PASSWORD": "p",
                    "REDIS_SSL": "True", "REDIS_DB": "2"})  # fmt: skip
    assert chosen is not None
    assert chosen.options == {"host": "h", "port": 7000, "username": "u", "password": "p", "db": 2,
                              "connection_class": SSLConnection}  # fmt: skip
    nodes = json.dumps([{"host": "a", "port": 1}, {"host": "b", "port": "2"}])
    chosen = found({"REDIS_CLUSTER_NODES": nodes, "REDIS_URL": "redis://x", "REDIS_PASSWORD": "p"})
    assert chosen is not None and (chosen.kind, chosen.nodes) == ("cluster", (("a", 1), ("b", 2)))
    assert chosen.options == {"password": "p"}
    chosen = found({"REDIS_SENTINEL_NODES": '[["a", 1], ["b", 2]]', "REDIS_SERVICE_NAME": "main",
                    "REDIS_SENTINEL_PASSWORD": "sp", "REDIS_HOST": "h"})  # fmt: skip
    assert chosen is not None and (chosen.kind, chosen.nodes, chosen.service) == (
        "sentinel",
        (("a", 1), ("b", 2)),
        "main",
    )
    assert chosen.sentinel_options == {"password": "sp"}


def parsed(url: str) -> Target:
    return parse_target(url, "X")


def test_addresses() -> None:
    assert parsed("redis://u:p%40ss@h:1/3").options == {
        "username": "u",
        "password": "p@ss",
        "host": "h",
        "port": 1,
        "db": 3,
    }
    assert parsed("rediss://h").options["connection_class"] is SSLConnection
    assert parsed("unix:///run/x.sock").options == {
        "path": "/run/x.sock",
        "connection_class": UnixDomainSocketConnection,
    }
    assert "decode_responses" not in parsed("redis://h?decode_responses=yes&protocol=3").options
    cluster = parsed("redis+cluster://u:p%2Fw@h1:1,h2,[::1]:3")
    assert (cluster.kind, cluster.nodes) == ("cluster", (("h1", 1), ("h2", 6379), ("::1", 3)))
    assert cluster.options == {"username": "u", "password": "p/w"}
    assert parsed("rediss+cluster://h:1?ssl_ca_certs=/ca").options["ssl_ca_certs"] == "/ca"
    sentinel = parsed("redis+sentinel://:p@h1:1,h2/main/4?sentinel_password=sp")
    assert (sentinel.kind, sentinel.nodes, sentinel.service) == (
        "sentinel",
        (("h1", 1), ("h2", 26379)),
        "main",
    )
    assert (sentinel.options, sentinel.sentinel_options) == ({"password": "p", "db": 4}, {"password": "sp"})


@pytest.mark.parametrize(
    "url",
    ["http://:hunter2@h", "hunter2", "redis+cluster://:hunter2@", "redis+sentinel://:hunter2@h:1",
     "redis://:hunter2@h:port", "redis+cluster://:hunter2@h:99999", "redis://:hunter2@h?socket_timeout=hunter2",
     "redis://:hunter2@", "redis+cluster://:hunter2@h/1", "redis://:hunter2@[h"],
)  # fmt: skip
def test_a_bad_address_names_its_variable_and_not_the_password(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        found({"PROXY_PLUGIN_REDIS_URL": url})
    assert str(error.value).startswith("PROXY_PLUGIN_REDIS_URL: ")
    assert "hunter2" not in str(error.value) and "\n" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "env",
    [{"REDIS_CLUSTER_NODES": "x"}, {"REDIS_CLUSTER_NODES": "[]"}, {"REDIS_CLUSTER_NODES": '[{"host": "a"}]'},
     {"REDIS_SENTINEL_NODES": "{", "REDIS_SERVICE_NAME": "s"}, {"REDIS_HOST": "h", "REDIS_PORT": "x"},
     {"REDIS_HOST": "h", "REDIS_DB": "x"}],
)  # fmt: skip
def test_a_bad_variable_of_litellm_is_named(env: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="REDIS_"):
        found(env)


@pytest.mark.parametrize("kind", ["single", "cluster", "sentinel"])
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_server_that_is_down_is_an_error_of_the_call(kind: str, scheme: str) -> None:
    topology = "" if kind == "single" else f"+{kind}"
    url = f"{scheme}{topology}://:p@127.0.0.1:{free_port()}{'/main' if kind == 'sentinel' else ''}"

    async def scenario() -> None:
        connection = Connection.open(Settings(store=Store(url=url)), {})
        assert connection is not None
        with pytest.raises(Exception) as error:
            await connection.run("probe", ["{k}"], ["x"])
        assert module.is_transient(error.value)
        assert kind_of(error.value) == ("primary" if kind == "sentinel" else "connection")
        await connection.close()

    asyncio.run(scenario())


def test_a_unix_socket(tmp_path: Any) -> None:
    async def scenario() -> None:
        connection = Connection.open(Settings(store=Store(url=f"unix://{tmp_path}/no.sock")), {})
        assert connection is not None
        with pytest.raises(errors.ConnectionError):
            await connection.command("ping")
        await connection.close()

    asyncio.run(scenario())


def test_a_connection_serves_one_event_loop_after_the_other(play: Any) -> None:
    kept: list[Connection] = []

    async def first(world: World) -> None:
        kept.append(Connection(world.connection().target))
        assert await kept[0].command("ping")
        await kept[0].close()

    async def second(world: World) -> None:
        assert await kept[0].command("ping")
        await kept[0].close()

    scenarios: list[Scenario] = [first, second]
    for scenario in scenarios:
        play(scenario)


def test_what_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def attempts(error: Exception) -> int:
        connection, tried = Connection(parsed("redis://127.0.0.1:1")), 0

        async def failing(client: Any) -> None:
            nonlocal tried
            tried += 1
            raise error

        with pytest.raises(type(error)):
            await connection.call(failing)
        return tried

    async def scenario() -> None:
        passing = [errors.ConnectionError(), errors.ReadOnlyError(), errors.BusyLoadingError(), errors.TryAgainError()]
        for error in (*passing, errors.ResponseError("MASTERDOWN x"), ConnectionResetError()):
            assert await attempts(error) > 1, error
        for final in (errors.TimeoutError(), errors.AuthenticationError(), errors.OutOfMemoryError(),
                      errors.NoPermissionError(),
                      errors.ResponseError("WRONGTYPE x"), ValueError()):  # fmt: skip
            assert await attempts(final) == 1, final

    asyncio.run(scenario())
    kinds = {errors.TimeoutError(): "timeout", TimeoutError(): "timeout", errors.AuthenticationError(): "auth",
             errors.ConnectionError(): "connection", OSError(): "connection", errors.OutOfMemoryError(): "memory",
             errors.ResponseError(): "response", KeyError(): "internal",
             errors.ReadOnlyError(): "read_only", errors.NoPermissionError(): "rights",
             errors.ClusterDownError("x"): "cluster", errors.TryAgainError(): "cluster",
             errors.ResponseError("MISCONF Errors writing"): "disk",
             errors.ConnectionError("max number of clients reached"): "clients"}  # fmt: skip
    for error, kind in kinds.items():
        assert kind_of(error) == kind


def test_the_scripts_come_back_after_the_server_forgot_them(play: Any) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await worker.commit(request("u1"))
        await world.redis("SCRIPT", "FLUSH")
        assert (await worker.commit(request("u1 a1 u2"))).new_nodes == 2
        assert await worker.reader.session(session()) is not None

    play(scenario)
