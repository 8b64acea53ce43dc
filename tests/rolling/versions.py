"""An older version of the plugin, unpacked from a wheel or from a commit of this repository."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def unpack(version: str, folder: Path) -> str:
    """`version`: path of a wheel, or anything that git takes for a commit. Returns the value of PYTHONPATH under
    which a proxy runs it. Raises RuntimeError where it cannot be had."""
    if version.endswith(".whl"):
        with zipfile.ZipFile(version) as wheel:
            wheel.extractall(folder)
    else:
        archive = subprocess.run(["git", "archive", version, "proxy_plugin"], cwd=ROOT, capture_output=True)
        if archive.returncode:
            raise RuntimeError(f"{version}: {archive.stderr.decode(errors='replace').strip()}")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
            packed.extractall(folder, filter="data")
    _check(folder)
    return str(folder)


def described(version: str) -> str:
    """A commit by its short hash, a wheel by its name."""
    if version.endswith(".whl"):
        return Path(version).name
    command = ["git", "rev-parse", "--short", version]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _check(folder: Path) -> None:
    """An editable install must not stand in front of it."""
    ask = [sys.executable, "-c", "import proxy_plugin; print(proxy_plugin.__file__)"]
    environ = os.environ | {"PYTHONPATH": str(folder)}
    found = subprocess.run(ask, cwd=folder, env=environ, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_relative_to(folder):
        raise RuntimeError(f"{found} is run in place of {folder}")
