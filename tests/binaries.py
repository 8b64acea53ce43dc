"""Programs that some tests run for real."""

from __future__ import annotations

import os
import shutil

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
