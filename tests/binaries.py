"""Programs that some tests run for real."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import pytest


def require_binary(name: str) -> str:
    """The path of a program on PATH. Without it the test is skipped; where CI is set it fails, so that no
    machine that is meant to run everything passes by skipping."""
    if path := shutil.which(name):
        return path
    reason = f"{name} is not on PATH"
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(reason)
    pytest.fail(reason)


def require_package(name: str) -> None:
    """The same for an importable package that not every installation brings."""
    if find_spec(name.partition(".")[0]) is not None and find_spec(name) is not None:
        return
    reason = f"{name} is not installed"
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(reason)
    pytest.fail(reason)
