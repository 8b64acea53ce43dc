"""Servers of other topologies, on loopback, from the embedded one's binary."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from proxy_plugin.sessions import embedded

SLOTS = 16_384


def free_ports(count: int) -> list[int]:
    """Ports of which the one 10,000 higher is free too, which a cluster's nodes talk on."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", (port + 10_000) % 65_536 or 1)):
                    if port < 55_000 and port not in found:
                        found.append(port)
            except OSError:
                continue
    return found


@dataclass(frozen=True, slots=True)
class Tls:
    """A server program that speaks TLS (the embedded one does not), and the files of its certificate."""

    binary: Path
    ca: Path
    certificate: Path
    key: Path

    def config(self, port: int) -> str:
        """Speaks TLS alone, on this port and between the nodes of a cluster."""
        return (
            f"tls-port {port}\nport 0\ntls-auth-clients no\ntls-replication yes\ntls-cluster yes\n"
            f"tls-ca-cert-file {self.ca}\ntls-cert-file {self.certificate}\ntls-key-file {self.key}"
        )

    @property
    def options(self) -> str:
        """Of an address."""
        return f"?ssl_ca_certs={self.ca}"


@contextmanager
def running(folder: Path, *configs: str, binary: Path | None = None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One server for each configuration, which has its port in the first line. "sentinel" anywhere makes one."""
    binary = binary or next(embedded._binaries(folder))
    processes = []
    try:
        for config in configs:
            port = config.split()[1]
            home = folder / port
            home.mkdir()
            file = home / "server.conf"
            file.write_text(f"{config}\nbind 127.0.0.1\ndir {home}\nlogfile {home / 'log'}\n")
            mode = ["--sentinel"] if "sentinel" in config else []
            processes.append(subprocess.Popen([str(binary), str(file), *mode], stdout=subprocess.DEVNULL))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def client(port: int, password: str | None = None, tls: Tls | None = None) -> Any:
    """A client of a server that answers by now."""
    options: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(tls.ca)} if tls else {}
    connected = redis.Redis(host="127.0.0.1", port=port, password=password, **options)
    deadline = time.monotonic() + 10
    while True:
        try:
            connected.ping()
            return connected
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the servers did not get ready"
        time.sleep(0.05)


@contextmanager
def single(folder: Path, password: str, tls: Tls | None = None) -> Iterator[str]:
    """One server; yields its address."""
    (port,) = free_ports(1)
    config = f'{_listening(port, tls)}\nrequirepass {password}\nsave ""'
    with running(folder, config, binary=tls and tls.binary):
        client(port, password, tls)
        yield f"redis{'s' if tls else ''}://:{password}@127.0.0.1:{port}{tls.options if tls else ''}"


@contextmanager
def cluster(folder: Path, password: str, tls: Tls | None = None) -> Iterator[str]:
    """Three masters; yields their address."""
    ports = free_ports(3)
    configs = [
        f'{_listening(port, tls)}\ncluster-enabled yes\nrequirepass {password}\nmasterauth {password}\nsave ""'
        for port in ports
    ]
    with running(folder, *configs, binary=tls and tls.binary):
        nodes = [client(port, password, tls) for port in ports]
        for index, node in enumerate(nodes):
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            slots = range(index * SLOTS // 3, (index + 1) * SLOTS // 3)
            node.execute_command("CLUSTER", "ADDSLOTS", *slots)  # ADDSLOTSRANGE is of Redis 7.0
            if index:
                node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], ports[0] + 10_000)
        wait_until(lambda: all(b"cluster_state:ok" in _raw(node) for node in nodes))
        seeds = ",".join(f"127.0.0.1:{port}" for port in ports[:2])
        yield f"redis{'s' if tls else ''}+cluster://:{password}@{seeds}{tls.options if tls else ''}"


def _listening(port: int, tls: Tls | None) -> str:
    return tls.config(port) if tls else f"port {port}"


def _raw(node: Any) -> bytes:
    info = node.execute_command("CLUSTER", "INFO")  # redis-py parses it, or not, by version
    return info if isinstance(info, bytes) else b"\n".join(f"{k}:{v}".encode() for k, v in info.items())


def _knows_all(watcher: Any) -> bool:
    state = watcher.sentinel_master("main")
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


@contextmanager
def sentinel(folder: Path, password: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A master, a replica and three sentinels; yields their address and the master's process."""
    master, replica, *watchers = free_ports(5)
    auth = f'requirepass {password}\nmasterauth {password}\nsave ""'
    watch = (
        f"sentinel monitor main 127.0.0.1 {master} 2\nsentinel auth-pass main {password}\n"
        "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 1000"
    )
    configs = [f"port {master}\n{auth}", f"port {replica}\nreplicaof 127.0.0.1 {master}\n{auth}"]
    with running(folder, *configs) as servers:
        linked = client(replica, password)
        wait_until(lambda: linked.info("replication")["master_link_status"] == "up")
        with running(folder, *(f"port {port}\n{watch}" for port in watchers)):
            for port in watchers:
                wait_until(partial(_knows_all, client(port)))
            hosts = ",".join(f"127.0.0.1:{port}" for port in watchers)
            yield f"redis+sentinel://:{password}@{hosts}/main", servers[0]
