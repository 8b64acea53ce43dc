"""Modes per key, model and team, and metrics of several workers: a real proxy of two that count together."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import orjson
import pytest

from proxy_plugin.doctor.environment import check_metrics_folder
from tests.agent import rows
from tests.fake_provider import FakeProvider
from tests.instances.fleet import Fleet
from tests.proxy import eventually

Json = dict[str, Any]

KEYS = """
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth


async def check(request, api_key):
    if api_key == "{admin}":
        return UserAPIKeyAuth(api_key=api_key, user_role=LitellmUserRoles.PROXY_ADMIN, user_id="admin")
    alias, team = {{"sk-watched": ("watched", None), "sk-left": (None, None), "sk-team": (None, "cautious")}}[api_key]
    return UserAPIKeyAuth(api_key=api_key, key_alias=alias, team_id=team, user_role=LitellmUserRoles.INTERNAL_USER)
"""
OVERRIDES = {
    "KEYS": {"watched": {"mode": "audit"}, sha256(b"sk-left").hexdigest(): {"mode": "off"}},
    "TEAMS": {"cautious": {"mode": "audit"}},
    "MODELS": {"tried": {"mode": "audit"}},
}


@pytest.fixture(scope="module")
def fleet(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    environ = {f"PROXY_PLUGIN_OVERRIDES__{name}": orjson.dumps(value).decode() for name, value in OVERRIDES.items()}
    environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
    models = {"gpt": provider.base_url, "tried": provider.base_url}
    fleet = Fleet(folder, models, environ=environ, custom_auth=True)
    (folder / "keys_of_test.py").write_text(KEYS.format(admin=fleet.key))
    with fleet:
        yield fleet


def finished(seed: int) -> list[Json]:
    """A subtask that is done, and the next question: something to collapse, and nothing to repair."""
    call = {"id": f"call_{seed}", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    return [
        {"role": "user", "content": f"Find number {seed}."},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": rows("find", str(seed))},
        {"role": "assistant", "content": "Found."},
        {"role": "user", "content": "And now?"},
    ]


def ask(fleet: Fleet, worker: int, key: str, model: str = "gpt", seed: int = 1) -> httpx.Response:
    answer = fleet.connection(worker).post(
        fleet.base_url + "/chat/completions",
        json={"model": model, "messages": finished(seed)},
        headers={"authorization": f"Bearer {key}", "x-litellm-session-id": token_hex(8)},
    )
    assert answer.status_code == 200, answer.text
    return answer


def seen_by(fleet: Fleet, worker: int) -> dict[str, float]:
    """Every series of the plugin's counters, as this worker shows it."""
    text = (
        fleet.connection(worker)
        .get(f"{fleet.root}/api/v1/metrics", headers={"authorization": f"Bearer {fleet.key}"})
        .text
    )
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("proxy_plugin_"))
    return {name: float(value) for name, value in pairs if "_bucket{" not in name}


def series(name: str, **labels: str) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"proxy_plugin_{name}{{{inside}}}" if inside else f"proxy_plugin_{name}"


@pytest.mark.parametrize(
    ("key", "model", "outcome"),
    [
        ("", "gpt", "rewritten"),
        ("sk-watched", "gpt", "audited"),
        ("sk-left", "gpt", "passed"),
        ("sk-team", "gpt", "audited"),
        ("", "tried", "audited"),
        ("sk-left", "tried", "passed"),
    ],
    ids=["any key", "an audited key", "a key left alone", "an audited team", "an audited model", "key over model"],
)
def test_each_mode_holds_for_the_keys_models_and_teams_it_is_set_for(
    fleet: Fleet, provider: FakeProvider, key: str, model: str, outcome: str
) -> None:
    """On either worker; counted together, whichever is asked."""
    one, other = fleet.workers()
    before = seen_by(fleet, one)
    provider.requests.clear()
    answers = [ask(fleet, worker, key or fleet.key, model, seed) for seed, worker in enumerate((one, other, other))]
    sent = provider.sent()
    came = [finished(seed) for seed in range(3)]
    sizes = [len(orjson.dumps(wire)) for wire in came]
    after = eventually(lambda: (shown := seen_by(fleet, one)) == seen_by(fleet, other) and shown)
    moved = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}
    assert moved[series("requests_total", endpoint="chat", outcome=outcome)] == 3
    assert moved[series("history_bytes_total", stage="received")] == sum(sizes)
    assert moved[series("history_bytes_total", stage="sent")] == sum(len(orjson.dumps(wire)) for wire in sent)
    if outcome == "rewritten":
        assert [wire == mine for wire, mine in zip(sent, came, strict=True)] == [False] * 3
    else:
        assert sent == came
    if outcome == "passed":
        assert moved[series("passthrough_total", reason="mode_off")] == 3
        assert not any("estimated" in name or "collapsed" in name for name in moved)
        assert "x-proxy-plugin-collapsed" not in answers[0].headers
        return
    mode = "audit" if outcome == "audited" else "enforce"
    assert moved[series("subtasks_collapsed_total")] == 3
    received, rewritten = (
        moved[series("estimated_tokens_total", model=model, mode=mode, side=side)] for side in ("received", "rewritten")
    )
    assert received > 1.5 * rewritten > 0  # what it saves, or would save
    assert not any(f'mode="{other}"' in name for name in moved for other in {"audit", "enforce"} - {mode})
    assert [answer.headers["x-proxy-plugin-collapsed"] for answer in answers] == ["1"] * 3


def test_doctor_tells_the_folder_of_a_start_from_one_that_is_used(fleet: Fleet, tmp_path: Path) -> None:
    (used,) = check_metrics_folder(fleet.environ, 2)
    assert used.level == "warning" and "empty it before each start" in used.cure
    (fresh,) = check_metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, 2)
    assert fresh.level == "ok"


def test_a_worker_that_died_leaves_its_counts_and_nothing_else(fleet: Fleet) -> None:
    """The supervisor starts another one in its place: two live, and the dead one is not counted beside them."""
    one, other = fleet.workers()
    ask(fleet, one, fleet.key)
    before = seen_by(fleet, other)
    workers = series("store_workers", kind="embedded")
    assert before[workers] == 2
    os.kill(one, signal.SIGKILL)
    assert one not in fleet.workers()
    after = eventually(lambda: (shown := seen_by(fleet, other))[workers] == 2 and shown)
    counted = {name: value for name, value in before.items() if name.startswith(series("requests_total"))}
    assert counted[series("requests_total", endpoint="chat", outcome="rewritten")] >= 1
    assert {name: after[name] for name in counted} == counted
