"""Proxies forked from a process that has imported LiteLLM already: a start costs one second of CPU instead of eight.

What LiteLLM reads from the environment while it is imported, and the seed of hashes, are those of that process for
all of them. It lives as long as the one that started the first proxy.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from threading import Lock
from unittest import mock

POSSIBLE = sys.platform.startswith("linux")
"""macOS has libraries that a forked process must not use."""

_context = multiprocessing.get_context("forkserver") if POSSIBLE else None
_starting = Lock()


class Forked:
    """A running proxy; what subprocess.Popen has for it. `environ` is all of its environment."""

    def __init__(self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> None:
        assert _context is not None
        options = (list(arguments), str(folder), dict(environ), str(log))
        with _starting:  # proxies are started from threads, too
            _context.set_forkserver_preload(["litellm.proxy.proxy_server"])
            with mock.patch.dict(os.environ, environ, clear=True):
                forkserver.ensure_running()
            self._process = _context.Process(target=_serve, args=options, daemon=True)
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("litellm", timeout or 0)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()


def _serve(arguments: list[str], folder: str, environ: dict[str, str], log: str) -> None:
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.path.insert(0, "")
    sys.argv = ["litellm", *arguments]

    from litellm import run_server

    run_server()
