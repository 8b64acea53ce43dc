"""Programs, packages and files that some tests need and not every machine has."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import NoReturn

import pytest


def require_binary(name: str) -> str:
    """The path of a program on PATH."""
    return shutil.which(name) or missing(f"{name} is not on PATH")


def require_package(name: str) -> None:
    """An importable package that not every installation brings."""
    if find_spec(name.partition(".")[0]) is None or find_spec(name) is None:
        missing(f"{name} is not installed")


def missing(reason: str) -> NoReturn:
    """The test is skipped; where CI is set it fails, so that no machine that is meant to run everything passes by
    skipping."""
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(reason)
    pytest.fail(reason)
