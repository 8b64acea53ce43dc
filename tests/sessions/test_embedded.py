from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy_plugin.sessions import embedded
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.embedded import Embedded, EmbeddedError, state_folder
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.settings import Settings, Store
from tests.sessions.conftest import free_port, target_of
from tests.sessions.paths import request, session

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Embedded]]:
    """Servers of one folder and port, as workers on one host have them."""
    port, made = free_port(), []

    def one() -> Embedded:
        made.append(Embedded(tmp_path / "state", port))
        return made[-1]

    yield one
    for server in made:
        server.stop()


def is_gone(pid: int) -> bool:
    """Whether the process ended within ten seconds (it is a zombie where its parent has not looked yet)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_it_starts_answers_and_stops(make: Callable[[], Embedded]) -> None:
    server = make()
    assert server.pid is None
    first = server.ensure()
    assert server.ensure() == first
    assert first.host == "127.0.0.1"
    pid = server.pid
    assert pid is not None
    server.stop()
    assert server.pid is None and is_gone(pid)


def test_the_password_is_needed_and_no_one_else_can_read_it(make: Callable[[], Embedded], tmp_path: Path) -> None:
    server = make()
    endpoint = server.ensure()
    with socket.create_connection((endpoint.host, endpoint.port)) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
    (file,) = (tmp_path / "state").glob("password*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert server.pid is not None
    command = Path(f"/proc/{server.pid}/cmdline")
    if command.exists():
        assert endpoint.password.encode() not in command.read_bytes()


def test_of_many_starters_one_wins_and_all_use_it(make: Callable[[], Embedded]) -> None:
    servers = [make() for _ in range(6)]
    found, barrier = [], threading.Barrier(6)

    def start(server: Embedded) -> None:
        barrier.wait()
        found.append(server.ensure())

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1
    deadline = time.monotonic() + 10
    while sum(server.pid is not None for server in servers) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)  # those that lost the port end by themselves
    assert sum(server.pid is not None for server in servers) == 1


def test_a_killed_server_is_started_again_with_its_data(make: Callable[[], Embedded]) -> None:
    async def scenario() -> None:
        server = make()
        connection = Connection(target_of(server.ensure()), server)
        store = SessionStore(connection, Settings())
        for turn in range(50):
            await store.commit(request(f"u{turn}", session(f"s-{turn}")))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        infos = [await store.reader.session(session(f"s-{turn}")) for turn in range(50)]
        assert all(info is not None and info.message_count == 1 for info in infos)
        await connection.close()

    asyncio.run(scenario())


OWNER = """
import sys, time
from pathlib import Path
from proxy_plugin.sessions.embedded import Embedded
server = Embedded(Path(sys.argv[1]), int(sys.argv[2]))
server.ensure()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_the_process_that_started_it_and_the_next_one_takes_over(tmp_path: Path) -> None:
    port = free_port()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert owner.stdout is not None and owner.stdin is not None
    server_pid = int(owner.stdout.readline())
    heir = Embedded(tmp_path, port)
    try:
        endpoint = heir.ensure()
        assert heir.pid is None  # it uses the owner's

        async def write(name: str) -> int:
            connection = Connection(target_of(endpoint), heir)
            store = SessionStore(connection, Settings())
            await store.commit(request("u1", session(name)))
            total = (await store.index.sessions(session().tenant)).total
            await connection.close() if name == "second" else None
            return total

        assert asyncio.run(write("first")) == 1
        owner.kill()
        owner.wait()
        assert is_gone(server_pid)
        assert asyncio.run(write("second")) == 2
    finally:
        owner.kill()
        owner.communicate()
        heir.stop()


def test_a_port_that_is_taken_by_a_stranger_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]

        def answer() -> None:
            for _ in range(2):
                connection, _ = stranger.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        passwords: list[Path] = []
        for _ in range(2):
            with pytest.raises(EmbeddedError, match=f"port {port} is taken by another program"):
                Embedded(tmp_path, port).ensure()
            passwords += tmp_path.glob("password*")
        thread.join()
        assert passwords == []  # the stranger has read it: it is not used again


def test_the_plugin_goes_on_without_a_store_where_none_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_binaries", lambda folder: iter(()))
    settings = Settings(store=Store(embedded_dir=str(tmp_path), embedded_port=free_port()))

    async def scenario() -> None:
        connection = Connection.open(settings, {})
        assert connection is not None
        with pytest.raises(EmbeddedError, match="no valkey-server or redis-server found"):
            await SessionStore(connection, settings).commit(request("u1"))
        await connection.close()

    asyncio.run(scenario())


def test_a_binary_without_its_mode_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = tmp_path / "valkey-server"
    carried.write_text("#!/bin/sh\n")
    carried.chmod(0o644)
    monkeypatch.setattr(embedded, "_carried_binary", lambda: carried)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    for _ in range(2):
        (binary,) = embedded._binaries(tmp_path)
        assert binary != carried
        assert binary.stat().st_mode & stat.S_IXUSR
        assert binary.read_text() == "#!/bin/sh\n"


def test_a_server_on_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "redis-server"
    mine.write_text("#!/bin/sh\nexit 1\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next(embedded._binaries(tmp_path)) == mine
    server = Embedded(tmp_path / "state", free_port())
    try:
        server.ensure()  # it does not start, so the next one is taken
        assert server.pid is not None
    finally:
        server.stop()


def test_where_the_data_goes() -> None:
    assert state_folder("/x/y", {}) == Path("/x/y")
    assert state_folder("", {"XDG_STATE_HOME": "/state", "HOME": "/h"}) == Path("/state/litellm-session-plugin")
    assert state_folder("", {"HOME": "/h"}) == Path("/h/.local/state/litellm-session-plugin")
