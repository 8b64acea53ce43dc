"""What the provider says it read: prompt tokens, those out of its cache and those it wrote to it.

LiteLLM brings the usage of every provider and endpoint into one form for its own logging, streamed or not, once
per client request and after the reply has gone out. It is read there: no chunk costs anything, and the client does
not have to ask for usage. Where a stream carries none, the number is LiteLLM's own count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from proxy_plugin.events import Emit, ModelsNamed, UsageReported

MODELS = 50
"""Model groups that are told apart, the first by name; the others count together."""
_KEEP_SECONDS = 10.0  # model groups can be added while the proxy runs


class ModelNames:
    """Which model groups may stand in a label: those of the router's own list, never a name that a client made up
    for a wildcard. The same on all workers."""

    def __init__(self, emit: Emit, groups: Callable[[], Iterable[str]] | None = None) -> None:
        self._emit = emit
        self._groups = groups or _router_groups
        self._known: frozenset[str] = frozenset()
        self._read_at = -_KEEP_SECONDS

    def label(self, model: str) -> str:
        """The name itself, or ""."""
        if time.monotonic() - self._read_at >= _KEEP_SECONDS:
            self.read()
        return model if model in self._known else ""

    def read(self) -> bool:
        """Asks the router anew; whether it names any."""
        known, before = sorted(set(self._groups()))[:MODELS], self._known
        self._known, self._read_at = frozenset(known), time.monotonic()
        if self._known != before:
            self._emit(ModelsNamed(tuple(known)))
        return bool(known)


def usage_of(kwargs: Mapping[str, Any], names: ModelNames) -> UsageReported | None:
    """Of one successful call, as LiteLLM logs it; None where no provider was asked, or nothing is said."""
    logged = kwargs.get("standard_logging_object") or {}
    usage = (logged.get("metadata") or {}).get("usage_object") or {}
    tokens = _count(usage.get("prompt_tokens"))
    if kwargs.get("cache_hit") or not tokens:
        return None
    details = usage.get("prompt_tokens_details") or {}
    cached = _count(details.get("cached_tokens")) or _count(usage.get("cache_read_input_tokens"))
    written = _count(usage.get("cache_creation_input_tokens")) or _count(details.get("cache_creation_tokens"))
    return UsageReported(names.label(str(logged.get("model_group") or "")), tokens, cached, written)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _router_groups() -> Iterable[str]:
    from litellm.proxy import proxy_server

    return proxy_server.llm_router.get_model_names() if proxy_server.llm_router is not None else ()
