"""What LiteLLM's cost map and the deployments' own `model_info` say of a model: prices and window.

The map may be fetched anew while the proxy runs; what was read once for a model stays, so that a conversation
is decided alike from its first request to its last (P4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from proxy_plugin.settings import ModelFacts

_FOR_MESSAGES = 0.9
"""Part of a model's window that is left for messages: the rest is for tool definitions, which are not counted,
and for what the estimate of tokens is off."""


def facts_of(deployments: Iterable[Mapping[str, Any]]) -> ModelFacts:
    """Of a model group: the smallest window, and the prices that make a collapse pay least, of its deployments."""
    known = [_info(deployment) for deployment in deployments]
    windows = [window for info in known if (window := _number(info, "max_input_tokens", "max_tokens"))]
    cached = [price for info in known if (price := _relative(info, "cache_read_input_token_cost")) is not None]
    write = [price for info in known if (price := _relative(info, "cache_creation_input_token_cost")) is not None]
    return ModelFacts(
        price_cached=min(cached) if cached else None,
        # A provider that asks nothing for writing has a price of 1 for what is not cached; with no cached price
        # nothing is known.
        price_write=max(write) if write else (1.0 if cached else None),
        window_tokens=int(min(windows) * _FOR_MESSAGES) if windows else 0,
    )


def dollars_of(deployments: Iterable[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Of the cheapest deployment: dollars for an input token that is read from the cache, and for any other. None
    where no price is known. What has no price of its own costs the full one."""
    known = [
        (_number(info, "cache_read_input_token_cost") or full, _number(info, "cache_creation_input_token_cost") or full)
        for info in map(_info, deployments)
        if (full := _number(info, "input_cost_per_token"))
    ]
    return min(known, key=lambda prices: prices[1]) if known else None


def _info(deployment: Mapping[str, Any]) -> dict[str, Any]:
    from litellm import get_model_info

    params = deployment.get("litellm_params") or {}
    own = deployment.get("model_info") or {}
    model = str(own.get("base_model") or params.get("model") or "")
    try:
        found = dict(get_model_info(model=model, custom_llm_provider=params.get("custom_llm_provider")))
    except Exception:  # LiteLLM raises for what it does not know
        found = {}
    return {**found, **{key: value for key, value in own.items() if value is not None}}


def _number(info: Mapping[str, Any], *names: str) -> float:
    for name in names:
        value = info.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)
    return 0.0


def _relative(info: Mapping[str, Any], name: str) -> float | None:
    """A price as part of that of an input token; None where either is unknown."""
    price, full = _number(info, name), _number(info, "input_cost_per_token")
    return price / full if price and full else None


def listed(model: str) -> Mapping[str, Any]:
    """A model's entry in LiteLLM's cost map, by its name with or without the provider's; {} if it has none."""
    from litellm import model_cost

    return model_cost.get(model) or model_cost.get(model.partition("/")[2]) or {}
