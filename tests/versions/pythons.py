"""Interpreters on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def find_python(release: str) -> Path | None:
    """An interpreter of a release such as "3.12" that runs: `pythonX.Y` on PATH, else one of pyenv's own."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    on_path = shutil.which(f"python{release}")
    candidates = [*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"{release}.*/bin/python{release}"))]
    return next((python for python in candidates if _release(python) == release), None)


def _release(python: Path) -> str:
    """ "" for one that does not run, such as a shim of pyenv whose version is not switched on."""
    command = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""
