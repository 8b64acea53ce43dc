"""Environments of Python's own venv and pip, kept in `.versions` and made again when what they are made of changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.versions.plan import Environment, constraints, declared_floors, tools

VERSIONS = """
import json, platform
from importlib.metadata import version
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in %r}}))
"""


def specification(environment: Environment, project: Mapping[str, Any]) -> str:
    """All that an environment is made of."""
    lines = [f"python {environment.python}", *project["dependencies"], *tools(project)]
    return "".join(f"{line}\n" for line in lines) + constraints(environment, project)


def make(root: Path, cache: Path, environment: Environment, python: Path, project: Mapping[str, Any]) -> Path:
    """The interpreter of the environment. Raises CalledProcessError where pip finds no way to install it; why says
    `pip.log` in its folder."""
    text = specification(environment, project)
    folder = cache / f"env-{sha256(text.encode()).hexdigest()[:12]}"
    interpreter = folder / "bin" / "python"
    done = folder / "specification.txt"
    if not done.exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        held = folder / "constraints.txt"
        held.write_text(constraints(environment, project))
        pip = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check"]
        with (folder / "pip.log").open("w") as log:
            for wanted in (
                ["--upgrade", "pip"],  # older resolvers take many times as long
                ["--constraint", str(held), "--editable", str(root), *tools(project)],
            ):
                subprocess.run([*pip, *wanted], stdout=log, stderr=log, check=True)
        done.write_text(text)
    return interpreter


def installed(interpreter: Path, project: Mapping[str, Any]) -> dict[str, str]:
    """ "python" and each dependency -> the version that is there."""
    names = sorted(declared_floors(project))
    ran = subprocess.run([interpreter, "-c", VERSIONS % names], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(ran.stdout)
    return versions
