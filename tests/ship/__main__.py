"""`python -m tests.ship`: builds the wheel, installs it with all that it needs into clean environments, and runs it.

The second environment is made as LiteLLM's image makes its own, by uv and without a pip, and the plugin comes into it
by the very command of config/Dockerfile. Takes some minutes and several hundred MB in a temporary folder.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tests.fake_provider import FakeProvider
from tests.proxy import Proxy
from tests.ship.packages import ROOT, Built, build, run, serves

_INTO_THE_IMAGE = re.compile(r"^RUN (for python in .+?)(?<!\\)$", re.MULTILINE | re.DOTALL)


def by_pip(folder: Path, built: Built) -> Path:
    run(sys.executable, "-m", "venv", folder / "pip")
    run(folder / "pip" / "bin" / "pip", "install", "--quiet", built.wheel)
    return folder / "pip" / "bin" / "python"


def into_the_image(folder: Path, built: Built) -> Path:
    """As config/Dockerfile does it, with other folders."""
    run(sys.executable, "-m", "venv", folder / "tools")
    run(folder / "tools" / "bin" / "pip", "install", "--quiet", "uv")
    uv, home = folder / "tools" / "bin" / "uv", folder / "app"
    run(uv, "venv", "--quiet", "--python", sys.executable, home)
    run(uv, "pip", "install", "--quiet", "--python", home / "bin" / "python", f"litellm[proxy]=={version('litellm')}")
    copied = folder / "plugin"
    copied.mkdir()
    (copied / "uv").symlink_to(uv)
    (copied / built.wheel.name).write_bytes(built.wheel.read_bytes())
    found = _INTO_THE_IMAGE.search((ROOT / "config" / "Dockerfile").read_text(encoding="utf-8"))
    assert found is not None
    command = found[1].replace("\\\n", "").replace("/tmp/plugin", str(copied))
    path = f"{home / 'bin'}:/usr/bin:/bin"
    run("/bin/sh", "-c", command, environ={"PATH": path, "VIRTUAL_ENV": ""}, cwd=folder)
    return home / "bin" / "python"


WAYS: dict[str, Callable[[Path, Built], Path]] = {"pip install": by_pip, "config/Dockerfile": into_the_image}


def main() -> None:
    with tempfile.TemporaryDirectory() as name, FakeProvider() as provider:
        folder = Path(name)
        built = build(folder / "dist")
        print("| installed by | LiteLLM | a plan of three subtasks | seconds |\n|---|---|---|---:|", flush=True)
        for way, made in WAYS.items():
            began = time.monotonic()
            python = made(folder, built)
            litellm = run(python, "-c", "from importlib.metadata import version as v; print(v('litellm'))").strip()
            home = folder / python.parents[1].name / "served"
            home.mkdir()
            proxy = Proxy(home, {"gpt": provider.base_url}, environ={"PYTHONPATH": "", "HOME": str(home)})
            proxy.python = str(python)
            with proxy:
                serves(proxy)
            print(f"| {way} | {litellm} | ok | {time.monotonic() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
