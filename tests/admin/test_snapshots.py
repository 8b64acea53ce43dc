"""Snapshots over HTTP, on a real proxy."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.admin.calls import call, messages, told
from tests.agent import PLAN
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy, eventually


def make(proxy: Proxy, session: str, **body: Any) -> Any:
    answer = call(proxy, "POST", f"/sessions/{session}/snapshots", {"name": "by hand", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def restore(proxy: Proxy, session: str, snapshot: Any, **body: Any) -> Any:
    answer = call(proxy, "POST", f"/sessions/{session}/snapshots/{snapshot['snapshot_id']}/restore", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_restore_brings_the_last_result_back_and_the_client_goes_on_there(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "snaps-1", "hello", messages=[{"role": "system", "content": "be brief"}])
    call(proxy, "PATCH", "/sessions/snaps-1", {"title": "My plan"})
    created, restored = (proxy.metric(f"proxy_plugin_snapshot_{what}_total") for what in ("created", "restored"))
    sizes = proxy.metric("proxy_plugin_snapshot_size_bytes_count")
    snapshot = make(proxy, "snaps-1", pin=True)
    assert proxy.metric("proxy_plugin_snapshot_created_total") == created + 1
    assert proxy.metric("proxy_plugin_snapshot_size_bytes_count") == sizes + 1
    assert (snapshot["title"], snapshot["message_count"], snapshot["auto"]) == ("My plan", 3, False)
    assert (snapshot["pinned"], snapshot["expires_at"]) == (True, None) and snapshot["size_bytes"] > 50
    base = list(agent.messages)
    for task in PLAN[:2]:
        agent.run(task)
    newer = list(agent.messages)
    eventually(lambda: messages(proxy, "snaps-1") == newer)

    before = proxy.metric("proxy_plugin_snapshot_restored_total")
    assert before >= restored
    answer = restore(proxy, "snaps-1", snapshot)
    assert proxy.metric("proxy_plugin_snapshot_restored_total") == before + 1
    assert answer["restored"] is True and answer["message_count"] == 4 and answer["branch"] == "branch-2"
    assert messages(proxy, "snaps-1") == [*base, newer[-1]]
    assert messages(proxy, "snaps-1", branch="main") == newer
    assert call(proxy, "GET", "/sessions/snaps-1").json()["message_count"] == 4

    agent.messages = [*base, newer[-1]]
    agent.run("go on from here")
    eventually(lambda: messages(proxy, "snaps-1") == agent.messages)
    session = call(proxy, "GET", "/sessions/snaps-1").json()
    assert (session["branch"], session["branches"]) == ("branch-2", 2)


def test_the_same_is_asked_again_after_a_restore_on_the_restored_branch(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "snaps-2", "hello")
    snapshot = make(proxy, "snaps-2")
    base = list(agent.messages)
    agent.run(PLAN[0])
    eventually(lambda: messages(proxy, "snaps-2") == agent.messages)
    answer = restore(proxy, "snaps-2", snapshot, preserve_last_result=False, delete=True)
    assert messages(proxy, "snaps-2") == base
    agent.messages = list(base)
    agent.run(PLAN[0])
    eventually(lambda: messages(proxy, "snaps-2") == agent.messages)
    assert call(proxy, "GET", "/sessions/snaps-2").json()["branch"] == answer["branch"]
    ids = [one["snapshot_id"] for one in call(proxy, "GET", "/sessions/snaps-2/snapshots").json()["snapshots"]]
    assert snapshot["snapshot_id"] not in ids


@pytest.mark.parametrize("pin", [True, False])
def test_a_client_that_lost_its_history_resumes_from_a_snapshot(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, pin: bool
) -> None:
    session = f"snaps-3-{pin}"
    agent = told(proxy, alice, session, "hello")
    base = list(agent.messages)
    snapshot = make(proxy, session, pin=pin)
    agent.run("more")
    new: Any = {"role": "user", "content": "from the snapshot"}
    headers = {"x-litellm-session-id": session, "x-proxy-plugin-resume": snapshot["snapshot_id"]}
    raw = alice.chat.completions.with_raw_response.create(model="gpt", messages=[new], extra_headers=headers)
    assert raw.headers["x-proxy-plugin-resumed"] == "1"
    assert provider.requests[-1].messages == [*base, new]


def test_automatic_snapshots_are_listed_restored_and_deleted(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "snaps-4", PLAN[0], PLAN[1])
    listed = call(proxy, "GET", "/sessions/snaps-4/snapshots").json()
    first, second = listed["snapshots"]
    assert listed["total"] == 2 and first["auto"] and second["auto"] and first["node"] is None
    assert second["expires_at"] is not None and not second["pinned"]
    answer = restore(proxy, "snaps-4", second, preserve_last_result=False)
    assert answer["head"] == second["node"]
    assert messages(proxy, "snaps-4") == agent.messages[: second["message_count"]]
    gone = call(proxy, "DELETE", f"/sessions/snaps-4/snapshots/{second['snapshot_id']}")
    assert gone.status_code == 200
    (left,) = call(proxy, "GET", "/sessions/snaps-4/snapshots").json()["snapshots"]
    assert left == first
    assert restore(proxy, "snaps-4", first, preserve_last_result=False)["head"] is None
    assert messages(proxy, "snaps-4") == []


def test_a_restore_of_an_unknown_snapshot_fails_and_is_counted(proxy: Proxy, alice: openai.OpenAI) -> None:
    told(proxy, alice, "snaps-5", "hello")
    failed, restored = "proxy_plugin_snapshot_restore_failed_total", "proxy_plugin_snapshot_restored_total"
    before = proxy.metric(failed), proxy.metric(restored)
    errors = proxy.metric("proxy_plugin_store_errors_total")
    answer = call(proxy, "POST", "/sessions/snaps-5/snapshots/snap-0123456789abcdef/restore")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "snapshot_id")
    assert (proxy.metric(failed), proxy.metric(restored)) == (before[0] + 1, before[1])
    assert proxy.metric("proxy_plugin_store_errors_total") == errors


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "", {}, 400, "name"),
        ("POST", "", {"name": "x\x00"}, 400, "name"),
        ("POST", "", {"name": "x", "ttl": 0}, 400, "ttl"),
        ("POST", "", {"name": "x", "ttl": "1h"}, 400, "ttl"),
        ("POST", "", {"name": "x", "ttl": True}, 400, "ttl"),
        ("POST", "", {"name": "x", "ttl": 5, "pin": True}, 400, "ttl"),
        ("POST", "", {"name": "x", "pin": "yes"}, 400, "pin"),
        ("POST", "", {"name": "x", "node": "nothing"}, 404, "node"),
        ("POST", "/none/restore", {"delete": 1}, 400, "delete"),
        ("POST", "/none/restore", {}, 404, "snapshot_id"),
        ("DELETE", "/none", None, 404, "snapshot_id"),
    ],
)
def test_errors_name_what_is_wrong(
    proxy: Proxy, alice: openai.OpenAI, method: str, path: str, body: object, status: int, param: str
) -> None:
    if call(proxy, "GET", "/sessions/snaps-6").status_code == 404:
        told(proxy, alice, "snaps-6", "first")
    answer = call(proxy, method, "/sessions/snaps-6/snapshots" + path, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, str(status))
