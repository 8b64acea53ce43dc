"""Where a request may go: the dialect it must satisfy, and what is known of the model.

A model group can have deployments of several providers, and fallbacks to other groups; the history is
rewritten once, before routing, so the strictest of their rules holds, and the smallest window.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy_plugin.gateway.facts import dollars_of, facts_of
from proxy_plugin.history.dialects import Dialect, dialect_of, strictest
from proxy_plugin.settings import ModelFacts

_KEEP_SECONDS = 10.0  # deployments can be changed while the proxy runs
_MODELS = 1_000
_LANDLORDS = ("vertex_ai", "vertex_ai_beta", "azure_ai")
"""Providers that serve the models of others by those others' wire forms."""


@dataclass(frozen=True, slots=True)
class Target:
    """`dollars`: see facts.dollars_of; of the model group itself, where it is answered."""

    dialect: Dialect
    facts: ModelFacts
    dollars: tuple[float, float] | None = None


class Targets:
    """Finds and remembers the target of a model group, by LiteLLM's router."""

    def __init__(self, corrected: Mapping[str, str]) -> None:
        self._corrected = corrected  # model name -> provider, from the settings
        self._known: dict[Any, tuple[float, Target]] = {}
        self._facts: dict[Any, ModelFacts] = {}

    def target(self, data: Mapping[str, Any], api: str) -> Target:
        from litellm.proxy import proxy_server

        model, router = str(data.get("model") or ""), proxy_server.llm_router
        fallbacks = data.get("fallbacks")
        key = (id(router), model, api, repr(fallbacks) if fallbacks else "")
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] < _KEEP_SECONDS:
            return known[1]
        groups = sorted({model, *_fallback_groups(router, model, fallbacks)})
        providers = [provider for group in groups for provider in self._providers(router, group, api)]
        dialect = strictest([dialect_of(provider, api) for provider in providers])
        found = Target(dialect, self._facts_of(router, groups), dollars_of(_deployments(router, model)))
        if len(self._known) >= _MODELS:
            self._known.clear()
        self._known[key] = now, found
        return found

    def _facts_of(self, router: Any, groups: Sequence[str]) -> ModelFacts:
        key = (id(router), *groups)
        if key not in self._facts:
            if len(self._facts) >= _MODELS:
                self._facts.clear()
            self._facts[key] = facts_of([deployment for group in groups for deployment in _deployments(router, group)])
        return self._facts[key]

    def _providers(self, router: Any, group: str, api: str) -> Iterator[str]:
        if group in self._corrected:
            yield self._corrected[group]
        else:
            yield from _providers(router, group, api)


def _providers(router: Any, group: str, api: str) -> Iterator[str]:
    for deployment in _deployments(router, group):
        yield _provider(deployment.get("litellm_params") or {}, api)


def _deployments(router: Any, group: str) -> Sequence[Mapping[str, Any]]:
    """Those of a model group; a name that the router does not know goes to LiteLLM as a model's own."""
    found = router.get_model_list(model_name=group) if router is not None else None
    return found or [{"litellm_params": {"model": group}}]


def _provider(params: Mapping[str, Any], api: str) -> str:
    """The dialect's name for a deployment: LiteLLM's provider, or whose wire form that provider serves it in."""
    from litellm import get_llm_provider

    model = str(params.get("model") or "")
    try:
        _, provider, _, _ = get_llm_provider(
            model=model, custom_llm_provider=params.get("custom_llm_provider"), api_base=params.get("api_base")
        )
    except Exception:  # LiteLLM raises for what it does not know
        return ""
    if provider in _LANDLORDS and "claude" in model:
        return "anthropic"
    if provider in _LANDLORDS and ("mistral" in model or "codestral" in model):
        return "mistral"
    if provider == "bedrock" and "claude" in model and not _by_converse(model, api):
        return "anthropic"
    return str(provider)


def _by_converse(model: str, api: str) -> bool:
    """Whether LiteLLM speaks the Converse API with a Claude on Bedrock; else it sends Anthropic's own form."""
    from litellm.llms.bedrock.common_utils import BedrockModelInfo

    if api == "messages":
        return BedrockModelInfo.get_bedrock_provider_config_for_messages_api(model) is None
    return BedrockModelInfo.get_bedrock_route(model) == "converse"


def _fallback_groups(router: Any, model: str, requested: Any) -> Iterator[str]:
    tables = [requested]
    for name in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
        tables.append(getattr(router, name, None))
    for table in tables:
        for entry in table if isinstance(table, list) else []:
            if isinstance(entry, str):
                yield entry
            elif isinstance(entry, Mapping):
                if table is requested and isinstance(entry.get("model"), str):
                    yield entry["model"]
                for name in (model, "*"):
                    for group in entry.get(name) or [] if isinstance(entry.get(name), list) else []:
                        if isinstance(group, str):
                            yield group
                        elif isinstance(group, Mapping) and isinstance(group.get("model"), str):
                            yield group["model"]
