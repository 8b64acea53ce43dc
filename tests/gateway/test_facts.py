"""What is known of a model: LiteLLM's cost map, a deployment's own `model_info`, and what the caller is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from proxy_plugin.gateway.facts import facts_of
from proxy_plugin.gateway.hooks import caller_of
from proxy_plugin.settings import ModelFacts, Overrides, Settings


def deployment(model: str, **info: Any) -> dict[str, Any]:
    return {"litellm_params": {"model": model}, "model_info": info}


def test_a_known_model_has_prices_and_a_window_with_room_for_its_tools() -> None:
    from litellm import get_model_info

    known = get_model_info("claude-sonnet-4-5")
    facts = facts_of([deployment("anthropic/claude-sonnet-4-5")])
    assert facts.price_cached == known["cache_read_input_token_cost"] / known["input_cost_per_token"]
    assert facts.price_write == known["cache_creation_input_token_cost"] / known["input_cost_per_token"]
    assert 0 < facts.window_tokens < known["max_input_tokens"]


def test_a_provider_that_asks_nothing_for_writing_writes_at_the_full_price() -> None:
    facts = facts_of([deployment("openai/gpt-4o")])
    assert facts.price_cached is not None and facts.price_cached < facts.price_write == 1.0


def test_of_a_group_the_smallest_window_and_the_most_cautious_prices_hold() -> None:
    group = [
        deployment("none/a", max_input_tokens=1000, input_cost_per_token=2.0, cache_read_input_token_cost=1.0),
        deployment("none/b", max_input_tokens=500, input_cost_per_token=2.0, cache_read_input_token_cost=0.2),
    ]
    assert facts_of(group) == ModelFacts(price_cached=0.1, price_write=1.0, window_tokens=450)


def test_nothing_is_known_of_an_unknown_model() -> None:
    assert facts_of([deployment("none/none")]) == ModelFacts()


def test_an_override_finds_the_key_by_its_alias_or_its_hash_and_the_team() -> None:
    key = SimpleNamespace(token="88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b", key_alias="ci",
                          team_id="red", user_role="internal_user", api_key="sk-1")  # fmt: skip
    caller = caller_of(Settings(), key)
    assert caller.keys == ("ci", key.token) and caller.team == "red" and not caller.admin
    for overrides in (
        Overrides(keys={"ci": {"collapse": {"policy": "never"}}}),
        Overrides(keys={key.token: {"collapse": {"policy": "never"}}}),
        Overrides(teams={"red": {"collapse": {"policy": "never"}}}),
    ):
        chosen = Settings(overrides=overrides).for_request(model="gpt", key=caller.keys, team=caller.team)
        assert chosen.collapse.policy == "never"
