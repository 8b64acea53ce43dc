"""Checks of the interpreter and the installed packages, and of the folder for metrics of several workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from proxy_plugin.doctor.finding import Finding, error, ok, warning
from proxy_plugin.version import DISTRIBUTION

_PYTHON = (3, 11)
_CHECKED = ("litellm", "redis", "starlette", "prometheus-client")


def check_versions() -> Iterator[Finding]:
    """The installed packages against the bounds that the distribution declares."""
    here = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _PYTHON:
        yield error("python", f"Python {here}", "use Python 3.11 or newer")
    else:
        yield ok("python", f"Python {here}")
    try:
        declared = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield error("packages", "the plugin is not installed in this environment", f"pip install {DISTRIBUTION}")
        return
    for requirement in filter(None, map(_parsed, declared)):
        if requirement.name not in _CHECKED or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield error(requirement.name, "is not installed", f"pip install '{requirement}'")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield ok(requirement.name, found)
        else:
            yield error(
                requirement.name, f"{found} is outside of {requirement.specifier}", f"pip install '{requirement}'"
            )


def _parsed(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def check_metrics_folder(environ: Mapping[str, str], workers: int) -> Iterator[Finding]:
    """Several workers count together only through a folder that all of them write."""
    name = "PROMETHEUS_MULTIPROC_DIR"
    folder = environ.get(name)
    if not folder:
        if workers > 1:
            cure = f"set {name} to an empty folder of this proxy's own"
            yield warning("metrics", f"{workers} workers and no {name}: each one shows its own numbers", cure)
        else:
            yield ok("metrics", "one worker: no folder for several is needed")
        return
    path = Path(folder)
    if not path.is_absolute():
        yield warning("metrics", f"{name} is a relative path", "give it as an absolute one: workers may change folder")
    if path.exists() and not path.is_dir():
        yield error("metrics", f"{name}: {folder} is no folder", "remove the file or name another folder")
    elif path.exists() and not os.access(path, os.W_OK):
        yield error("metrics", f"{name}: {folder} cannot be written", "let the proxy's user write it")
    elif not path.exists() and not (_existing(path).is_dir() and os.access(_existing(path), os.W_OK)):
        yield error("metrics", f"{name}: {folder} cannot be made", "make it for the proxy's user")
    elif not path.exists():
        yield ok("metrics", f"{name}: {folder}, made at the start")
    elif path.exists() and any(path.glob("*.db")) and workers:
        cure = "empty it before each start; two proxies must not share one"
        yield warning("metrics", f"{name}: {folder} holds values of an earlier or a running start", cure)
    else:
        yield ok("metrics", f"{name}: {folder}")


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
