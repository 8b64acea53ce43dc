"""What a prompt costs under prompt caching, in tokens at the full input price (or in dollars).

A provider that caches bills what a request has in common with the one before at a fraction, and the rest at
the full price or, where keeping it is paid for, a little more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prices:
    """`cached`, `write`: price of a token read from the cache and of any other, in input tokens.
    `dollars`: of an input token; None if no model was named."""

    cached: float = 0.1
    write: float = 1.0
    dollars: float | None = None

    def cost(self, tokens: int, cached: int) -> float:
        """Of a prompt of `tokens`, `cached` of which the provider has kept; in input tokens."""
        return self.cached * cached + self.write * (tokens - cached)


def prices_of(model: str) -> Prices:
    """From the cost map inside the LiteLLM package. LookupError if it has no input price for the model."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # LiteLLM would fetch a newer one when imported
    from proxy_plugin.gateway.facts import listed  # imports LiteLLM, which takes seconds

    entry = listed(model)
    price = entry.get("input_cost_per_token")
    if not price:
        raise LookupError(model)
    cached = entry.get("cache_read_input_token_cost", price)  # no such price: nothing is cheaper
    write = entry.get("cache_creation_input_token_cost") or price
    return Prices(cached / price, write / price, price)
