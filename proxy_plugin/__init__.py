"""litellm-session-plugin: sessions for agents behind a LiteLLM proxy.

`handler` is what a LiteLLM config names (`callbacks: ["proxy_plugin.handler"]`); it is made on first
access, so that importing this package imports neither litellm nor redis.
"""

from __future__ import annotations

from typing import Any

from proxy_plugin.history.report import Report
from proxy_plugin.history.rewrite import Rewrite, rewrite_history
from proxy_plugin.history.subtasks import Context
from proxy_plugin.settings import Settings, SettingsError

__all__ = ["Context", "Report", "Rewrite", "Settings", "SettingsError", "handler", "rewrite_history"]


def __getattr__(name: str) -> Any:
    if name == "handler":
        from proxy_plugin.gateway.install import make_handler

        globals()["handler"] = made = make_handler()
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
