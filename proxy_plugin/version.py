"""Which version of the plugin this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "litellm-session-plugin"


def _installed() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


VERSION = _installed()
"""Of the installed distribution; "unknown" for a bare folder on the path."""
