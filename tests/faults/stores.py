"""Stores that a proxy meets with a fault: the faults as context managers, broken inside and mended after.

A store of one server stands behind a front; a cluster, a set of sentinels and the plugin's embedded server
are the real ones.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai

from proxy_plugin.sessions import embedded, keys
from tests.agent import PLAN, Agent
from tests.fake_provider import FakeProvider
from tests.faults.client import SESSION, chat_bodies, client_of, is_whole
from tests.faults.front import LOOPBACK, Certificate, Front
from tests.proxy import Proxy, eventually, free_port
from tests.sessions import servers

PASSWORD = "store-secret"
SLOW_SECONDS = 2.0


class Place:
    """Where a proxy keeps its sessions. `url` None: in its embedded server."""

    url: str | None = None

    def __init__(self, folder: Path) -> None:
        """Starts it, with its files in the folder."""

    def serves(self, proxy: Proxy, provider: FakeProvider) -> None:
        """Called once the proxy serves."""

    def end(self) -> None:
        """Ends what was started here."""


class Single(Place):
    """One server behind a TLS front. It is closed at first: the proxy starts without its store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "single"
        self._folder.mkdir()
        self._port = free_port()
        self._trusted, self._foreign = Certificate(folder, "trusted"), Certificate(folder, "foreign")
        self._front = Front(free_port(), self._port)
        self.url = f"rediss://:{PASSWORD}@{LOOPBACK}:{self._front.port}?ssl_ca_certs={self._trusted.public}"
        self._start()

    def end(self) -> None:
        self._front.end()
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        binary = next(embedded._binaries(self._folder))
        options = {
            "port": self._port, "bind": LOOPBACK, "requirepass": PASSWORD, "dir": self._folder,
            "save": "", "appendonly": "yes", "logfile": "log",
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen([str(binary), *arguments], stdout=subprocess.DEVNULL)
        self.control = servers.client(self._port, PASSWORD)

    def _disconnect(self) -> None:
        """Those that are connected have to come again."""
        self.control.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    @contextmanager
    def down_at_start(self) -> Iterator[None]:
        yield
        self._front.open(self._trusted)

    @contextmanager
    def killed(self) -> Iterator[None]:
        self._process.kill()
        self._process.wait()
        yield
        self._start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def slow(self) -> Iterator[None]:
        self._front.delay = SLOW_SECONDS
        yield
        self._front.delay = 0.0

    @contextmanager
    def full(self) -> Iterator[None]:
        self.control.config_set("maxmemory-policy", "noeviction")
        self.control.config_set("maxmemory", "1mb")
        yield
        self.control.config_set("maxmemory", "0")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self.control.replicaof(LOOPBACK, free_port())
        yield
        self.control.replicaof("NO", "ONE")

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Restarted without what it held, as a server that persists nothing."""
        self.control.flushall()
        yield

    @contextmanager
    def scripts_flushed(self) -> Iterator[None]:
        self.control.script_flush()
        yield

    @contextmanager
    def other_password(self) -> Iterator[None]:
        self.control.config_set("requirepass", PASSWORD + "-of-tomorrow")
        self._disconnect()
        yield
        self.control.config_set("requirepass", PASSWORD)

    @contextmanager
    def rights_taken(self) -> Iterator[None]:
        self.control.execute_command("ACL", "SETUSER", "default", "-@scripting")
        yield
        self.control.execute_command("ACL", "SETUSER", "default", "+@scripting")

    @contextmanager
    def foreign_certificate(self) -> Iterator[None]:
        self._front.close()
        self._front.open(self._foreign)
        yield
        self._front.close()
        self._front.open(self._trusted)

    @contextmanager
    def too_many_clients(self) -> Iterator[None]:
        before = self.control.config_get("maxclients")["maxclients"]
        self.control.config_set("maxclients", 1)
        self._disconnect()
        yield
        self.control.config_set("maxclients", before)


class Cluster(Place):
    """Three masters. Slots move while the proxy uses them."""

    def __init__(self, folder: Path) -> None:
        home = folder / "cluster"
        home.mkdir()
        self._stack = contextlib.ExitStack()
        self.url = self._stack.enter_context(servers.cluster(home, PASSWORD))
        seed = int(self.url.rpartition(":")[2])
        known = servers.client(seed, PASSWORD).cluster("nodes")
        self._ids = {int(place.rpartition(":")[2]): node["node_id"] for place, node in known.items()}
        self._masters = {port: servers.client(port, PASSWORD) for port in self._ids}

    def end(self) -> None:
        self._stack.close()

    @contextmanager
    def resharded(self) -> Iterator[None]:
        """Inside, the slot of the newest session moves, and half of its keys have: what of it is asked
        for is answered by ASK or TRYAGAIN. Afterwards it has moved, and clients are told so by MOVED."""
        source, slot = self._slot_of_newest_session()
        target = next(port for port in self._ids if port != source)
        self._masters[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[source])
        self._masters[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[target])
        held = self._held(source, slot)
        self._move(source, target, held[: len(held) // 2])
        yield
        self._move(source, target, self._held(source, slot))
        for port in (target, source, *(other for other in self._ids if other not in (source, target))):
            self._masters[port].execute_command("CLUSTER", "SETSLOT", slot, "NODE", self._ids[target])

    def _slot_of_newest_session(self) -> tuple[int, int]:
        """Port of the master that has it, and the slot."""
        found = [
            (int(master.hget(key, "last")), port, key)
            for port, master in self._masters.items()
            for key in master.scan_iter(f"{keys.PREFIX}*:meta")
        ]
        _, port, key = max(found)
        return port, int(self._masters[port].execute_command("CLUSTER", "KEYSLOT", key))

    def _held(self, port: int, slot: int) -> list[Any]:
        return list(self._masters[port].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100_000))

    def _move(self, source: int, target: int, names: list[Any]) -> None:
        if names:
            where = (LOOPBACK, target, "", 0, 5_000, "AUTH", PASSWORD, "KEYS")
            self._masters[source].execute_command("MIGRATE", *where, *names)


class Sentinels(Place):
    """A master, a replica and three sentinels."""

    def __init__(self, folder: Path) -> None:
        home = folder / "sentinel"
        home.mkdir()
        self._stack = contextlib.ExitStack()
        url, self._master = self._stack.enter_context(servers.sentinel(home, PASSWORD))
        self.url = url

    def end(self) -> None:
        self._stack.close()

    @contextmanager
    def failed_over(self) -> Iterator[None]:
        """Nobody mends it: the sentinels do."""
        self._master.kill()
        yield


class Own(Place):
    """The plugin's embedded server."""

    def serves(self, proxy: Proxy, provider: FakeProvider) -> None:
        self._proxy, self._provider = proxy, provider

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """No file of the server may grow: the kernel's limit says so in place of a full disk (EFBIG for ENOSPC,
        which the server takes alike)."""
        store = self._proxy.folder / "store"
        (password,) = store.glob("password*")
        control = servers.client(self._proxy.store_port, password.read_text())
        pid = int(control.info("server")["process_id"])
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        largest = max(file.stat().st_size for file in store.rglob("*.aof"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, before[1]))
        yield
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    @contextmanager
    def worker_killed(self) -> Iterator[None]:
        """In the middle of a stream, and started again; the embedded server ended with it. The client that was
        cut off sends its request again."""
        agent = Agent(client_of(self._proxy), stream=True, extra_headers={SESSION: "cut-off"})
        gate = self._provider.hold(event=2)
        with ThreadPoolExecutor(1) as pool:
            cut_off = pool.submit(agent.run, PLAN[2])
            assert gate.reached.wait(20)
            self._proxy.kill()
            gate.release()
            assert isinstance(cut_off.exception(20), openai.APIError | httpx.HTTPError)
        self._proxy.start()
        agent.messages.clear()
        agent.run(PLAN[2])
        cut, again, *_ = chat_bodies(self._provider)
        assert again == cut
        yield
        eventually(lambda: is_whole(self._proxy, agent))
