"""Runs the tests in one environment against one server."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

TESTS = (
    "tests/history/test_wire.py",
    "tests/history/test_repair.py",
    "tests/history/test_summary.py",
    "tests/sessions",
    "tests/gateway/test_chat.py",
    "tests/gateway/test_endpoints.py",
    "tests/gateway/test_stored.py",
    "tests/admin/test_sessions.py",
    "tests/admin/test_snapshots.py",
    "tests/admin/test_subtasks.py",
    "tests/doctor",
    "tests/faults/test_memory.py",
)
WITHOUT = ("tests/sessions/test_tls.py",)
"""Needs a server that speaks TLS, which most of these programs were built without."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`failures`: names of tests that failed or broke. `problem`: why none ran, or empty."""

    passed: int = 0
    skipped: int = 0
    failures: tuple[str, ...] = ()
    problem: str = ""

    @property
    def good(self) -> bool:
        return self.passed > 0 and not self.failures and not self.problem


def run(root: Path, interpreter: Path, server: Path, log: Path) -> Outcome:
    """What the tests print goes to `log`. They start their servers from PATH, where this one comes first."""
    with tempfile.TemporaryDirectory() as name:
        first = Path(name)
        (first / "valkey-server").symlink_to(server.resolve())
        environ = {**os.environ, "PATH": f"{first}{os.pathsep}{os.environ.get('PATH', '')}"}
        result = first / "result.xml"
        command = [str(interpreter), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile"]
        command += ["--hypothesis-seed=0"]  # every row searches the same: what differs is the version
        command += [f"--junitxml={result}", *TESTS, *(f"--ignore={path}" for path in WITHOUT)]
        with log.open("w") as output:
            code = subprocess.run(command, cwd=root, env=environ, stdout=output, stderr=output, check=False).returncode
        if code not in (0, 1):  # neither all passed nor some failed: interrupted, or broken before or between them
            return Outcome(problem=f"pytest ended with {code}, see {log}")
        return read(result.read_text())


def read(junit: str) -> Outcome:
    """Counts of a JUnit report."""
    cases = ElementTree.fromstring(junit).findall(".//testcase")
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    names = tuple(dict.fromkeys(f"{case.get('classname')}::{case.get('name')}" for case in bad))
    return Outcome(len(cases) - len(bad) - len(skipped), len(skipped), names)
