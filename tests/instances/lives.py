"""What a proxy of several workers goes through: a worker is lost, all of them are told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import httpx
import openai
import pytest
import redis

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.embedded import Embedded
from tests.agent import PLAN, TOOLS, Agent
from tests.fake_provider import FakeProvider, ReusingModel
from tests.instances.fleet import Fleet
from tests.instances.plays import SESSION, Hopping, Seat
from tests.proxy import Proxy, eventually

STOP_SECONDS = 30.0
"""Far above what a proxy takes to stop: one that waits for a store that is away does so without an end."""
ENVIRON = {"PROXY_PLUGIN_RECOVERY__LEASE_S": "4"}
"""Short, and still longer than a loaded machine keeps a worker from renewing it."""


def servers_of(proxy: Proxy) -> list[tuple[int, int]]:
    """Process ids of the embedded servers on the proxy's port, each with its parent's."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in listed.splitlines() if f"-server 127.0.0.1:{proxy.store_port}" in line]
    return [(int(pid), int(parent)) for pid, parent, _ in lines]


@contextmanager
def embedded_store(proxy: Proxy) -> Iterator[redis.Redis]:
    """What its embedded server holds, started again if it has ended."""
    server = Embedded(proxy.folder / "store", proxy.store_port)
    try:
        with client_of(server) as client:
            yield client
    finally:
        server.stop()


@contextmanager
def client_of(server: Embedded) -> Iterator[redis.Redis]:
    place = server.ensure()
    with redis.Redis(host=place.host, port=place.port, password=place.password) as client:
        yield client


@contextmanager
def frozen(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def ask(client: openai.OpenAI, session: str, text: str, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(
        model="gpt", messages=messages, tools=TOOLS, extra_headers={SESSION: session}, **options  # type: ignore[call-overload]
    )  # fmt: skip


class Held:
    """A stream of which the client has the first piece, and the provider holds the rest back."""

    def __init__(self, client: openai.OpenAI, provider: FakeProvider, session: str) -> None:
        self._gate = provider.hold(event=2)
        self._chunks = iter(ask(client, session, "one two three four", stream=True))
        next(self._chunks)
        assert self._gate.reached.wait(20)

    def release(self) -> None:
        self._gate.release()

    def read_on(self) -> threading.Thread:
        """Reads the rest beside what the caller does."""
        reading = threading.Thread(target=self.rest)
        reading.start()
        return reading

    def rest(self) -> None:
        self.text = ""
        for chunk in self._chunks:
            self.text += "".join(choice.delta.content or "" for choice in chunk.choices)


def loses_a_worker(fleet: Fleet, provider: FakeProvider) -> None:
    """kill -9 in the middle of a stream, of the worker that the embedded server ends with where there is one."""
    provider.brain = ReusingModel()
    workers = fleet.workers()
    parents = [parent for _, parent in servers_of(fleet)]
    victim = next((worker for worker in workers if worker in parents), workers[0])
    other = next(worker for worker in workers if worker != victim)
    with closing(fleet.lend(victim)) as connection:
        client = openai.OpenAI(base_url=fleet.base_url, api_key=fleet.key, max_retries=0, http_client=connection)
        cut = Held(client, provider, "cut")
        eventually(lambda: fleet.get("/sessions/cut").status_code == 200)
        os.kill(victim, signal.SIGKILL)
        cut.release()
        with pytest.raises((openai.APIError, httpx.HTTPError)):
            cut.rest()

    beside = Agent(Hopping([Seat(fleet, other, fleet.key)]), extra_headers={SESSION: "beside"})  # type: ignore[arg-type]
    for text in PLAN:
        beside.run(text)
    eventually(lambda: is_whole(fleet, beside))
    eventually(lambda: found_lost(fleet), 30)
    assert victim not in fleet.workers()
    assert len(servers_of(fleet)) <= 1


def found_lost(proxy: Proxy) -> bool:
    """Whether the session of the cut stream is marked, and the loss is counted."""
    known = proxy.get("/recovery").json()
    interrupted = [session["session_id"] for session in known.get("sessions", ()) if session["interrupted"]]
    return bool(known.get("unclean_stops")) and "cut" in interrupted


def is_whole(proxy: Proxy, agent: Agent, key: str | None = None) -> bool:
    answer = proxy.get(f"/sessions/{agent.session}/history", key=key)
    return answer.status_code == 200 and answer.json()["message_count"] == len(agent.messages)


def told_to_stop(proxy: Proxy, provider: FakeProvider, number: int = signal.SIGTERM) -> None:
    """The signal comes right after a reply, which is stored a moment later only, and while a stream runs. The
    client gets all of the stream; the proxy ends."""
    provider.brain = ReusingModel()
    client = openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0)
    streamed = Held(client, provider, "streamed")
    assert ask(client, "just-answered", "call find {}").choices[0].message.tool_calls
    assert proxy.process is not None
    os.kill(proxy.process.pid, number)
    reading = streamed.read_on()
    eventually(lambda: "hutting down" in proxy.log(), STOP_SECONDS)
    streamed.release()
    proxy.process.wait(STOP_SECONDS)
    reading.join()
    assert streamed.text.endswith("one two three four")


def stops_without_its_store(proxy: Proxy, provider: FakeProvider) -> None:
    """The store is away, commits wait for it: the requests are answered, and the proxy ends within its time."""
    provider.brain = ReusingModel()
    client = openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0)
    for number in range(6):
        ask(client, f"waits-{number}", "call find {}")
    assert proxy.process is not None
    os.kill(proxy.process.pid, signal.SIGTERM)
    proxy.process.wait(STOP_SECONDS)


def all_is_stored(store: redis.Redis) -> None:
    """What `told_to_stop` left: both sessions whole, their requests noted, every lease given back."""
    (index,) = store.scan_iter(keys.index("*"))
    tenant = index.decode().partition("{")[2].partition("}")[0]
    for session in ("streamed", "just-answered"):
        names = keys.of_session(identity.address(tenant, session))
        heads: Any = store.hgetall(names.nodes)
        assert sorted(head[1:3] for head in heads.values()) == [b"a0", b"u0"]  # the reply too, and none incomplete
        assert store.hget(names.requests, "n") == b"1"
        assert store.hlen(names.flights) == 0
    assert store.zcard(keys.WORKERS) == 0
    assert store.hexists(keys.RECOVERY, "last_clean_stop")


def leaves_nothing_running(proxy: Proxy) -> None:
    assert servers_of(proxy) == []
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", proxy.store_port), 1):
        pytest.fail("an embedded server outlived its proxy")
