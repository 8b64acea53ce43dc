"""Building what is shipped, and environments to install it into."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openai

from tests.agent import PLAN, Agent
from tests.proxy import Proxy

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Built:
    wheel: Path
    sdist: Path


def run(*command: str | Path, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a command prints. RuntimeError with its words where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environ} if environ else None,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder: Path) -> Built:
    """The sdist, and the wheel that is built from it."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def borrowing(folder: Path) -> Path:
    """The interpreter of a new environment that finds the packages of this one, but nothing installed editable: lines
    of .pth files count only in an environment's own folder."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "borrowed.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return folder / "bin" / "python"


def install(python: Path, wheel: Path) -> None:
    """The wheel alone, without what it needs."""
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--ignore-installed", wheel)


def serves(proxy: Proxy) -> str:
    """Plays a plan of three subtasks through a proxy, checks what the client and the store have, and gives the
    session's id."""
    agent = Agent(openai.OpenAI(base_url=proxy.base_url, api_key=proxy.key, max_retries=0))
    for task in PLAN:
        agent.run(task)
    assert len(set(agent.ids)) == len(agent.ids)
    assert agent.headers[-1]["x-proxy-plugin-collapsed"] == "2"
    assert proxy.get(f"/sessions/{agent.session}/history").json()["message_count"] == len(agent.messages)
    return agent.session
