"""`proxy-plugin demo`: the real thing once, and how it ends when it fails or is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "proxy_plugin.cli", "demo"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A fresh home and folder for temporary files, and settings of the user's that the demo must not see."""
    for name in ("home", "tmp", "stub"):
        (tmp_path / name).mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": f"{tmp_path / 'stub'}{os.pathsep}{ROOT}",
        "PYTHONUTF8": "1",
        "PROXY_PLUGIN_MODE": "off",
        "PROXY_PLUGIN_REDIS_URL": "redis://127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1",
        "NUM_WORKERS": "3",
    }


def stub_litellm(environment: dict[str, str], body: str) -> None:
    """A LiteLLM that does something else instead of serving."""
    package = Path(environment["PYTHONPATH"].split(os.pathsep)[0]) / "litellm"
    (package / "proxy").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "proxy" / "__init__.py").touch()
    (package / "proxy" / "proxy_cli.py").write_text(body, encoding="utf-8")


def left_running(environment: dict[str, str]) -> set[str]:
    """Command lines of the processes that have the demo's home in their environment."""
    home, found = f"HOME={environment['HOME']}".encode(), set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if home in (process / "environ").read_bytes().split(b"\0"):
                found.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is another user's
            continue
    return found


def tables(output: str) -> Iterator[tuple[str, str]]:
    """Bytes received and bytes sent of each call that was shown."""
    for came, sent in re.findall(r"received ([\d,]+) bytes +sent to the provider ([\d,]+) bytes", output):
        yield came.replace(",", ""), sent.replace(",", "")


def test_demo_shows_the_refusals_and_the_plan_that_survives_them(environment: dict[str, str]) -> None:
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=300)
    output = done.stdout
    assert (done.returncode, done.stderr) == (0, ""), output + done.stderr

    # Without the plugin: refused, also through a gateway.
    assert "400 openai.BadRequestError" in output
    assert "403 openai.PermissionDeniedError" in output
    assert "Duplicate value for 'tool_call_id' of 'call_abc123'" in output

    # With it: the lost session once, then the plan's three, three and two calls, no request larger than it came.
    sizes = [(int(came), int(sent)) for came, sent in tables(output)]
    assert len(sizes) == 9
    repaired, *plan = sizes
    assert repaired[1] > repaired[0]
    assert all(sent <= came for came, sent in plan)
    assert all(sent < came for came, sent in plan[3:])
    assert "x-proxy-plugin-collapsed: 2" in output
    assert len(set(re.findall(r"the client saw (call_abc123_\w+)", output))) == 5
    assert output.count("1 made as the subtask began, 1 restored with its result") == 3
    assert "customer cus_8Qm2ZtR4, order ord_77NXKD" in output
    assert re.search(r"GET http://127\.0\.0\.1:\d+/api/v1/sessions/[0-9a-f]{32}\.1/history", output)
    assert "18 messages" in output
    assert re.search(r"^ +proxy_plugin_snapshot_created_total +4$", output, re.MULTILINE)
    assert "    NO " not in output

    # Readable where there is no terminal, and gone without a trace.
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 100
    assert list(Path(environment["TMPDIR"]).iterdir()) == []
    assert list(Path(environment["HOME"]).iterdir()) == []
    assert left_running(environment) == set()


def test_a_proxy_that_does_not_start_is_explained_with_its_log(environment: dict[str, str]) -> None:
    stub_litellm(environment, "import sys\nprint('no such thing as a port')\nsys.exit(3)\n")
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the proxy ended while it started (exit code 3)" in done.stderr
    assert "no such thing as a port" in done.stderr
    (log,) = Path(environment["TMPDIR"]).glob("*/proxy.log")
    assert str(log) in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize(("stopped_by", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left_running_when_it_is_stopped(
    environment: dict[str, str], stopped_by: signal.Signals, code: int
) -> None:
    stub_litellm(environment, "import signal\nsignal.pause()\n")
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline()  # the first line comes when the proxy's process is there
        assert any("litellm" in command for command in left_running(environment))
        demo.send_signal(stopped_by)
        assert demo.wait(timeout=60) == code
    deadline = time.monotonic() + 60
    while left_running(environment):  # the kernel ends orphans a moment after their parent
        assert time.monotonic() < deadline
    if stopped_by is signal.SIGTERM:
        assert list(Path(environment["TMPDIR"]).iterdir()) == []
