"""What is no route, no method or no cursor is answered in LiteLLM's shape, to those who have a key."""

from __future__ import annotations

import httpx
import pytest

from tests.proxy import Proxy


def ask(proxy: Proxy, method: str, path: str, key: str = "sk-alice") -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, f"{proxy.root}/api/v1{path}", headers=headers, timeout=20)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sessions/x/nothing", 404),
        ("GET", "/agents/x/y/z", 404),
        ("PUT", "/sessions/x", 405),
        ("POST", "/sessions", 405),
        ("GET", "/sessions?cursor=zzz", 400),
        ("GET", "/recovery?cursor=zzz", 400),
    ],
)
def test_what_is_not_there_is_said_in_litellms_shape(proxy: Proxy, method: str, path: str, status: int) -> None:
    answer = ask(proxy, method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == str(status) and error["message"] and set(error) == {"message", "type", "param", "code"}
    assert ask(proxy, method, path, key="").status_code == 401


def test_a_restore_in_a_session_that_is_not_there_counts_as_failed(proxy: Proxy) -> None:
    before = proxy.metric("proxy_plugin_snapshot_restore_failed_total")
    assert ask(proxy, "POST", "/sessions/never-was/snapshots/snap-1/restore").status_code == 404
    assert proxy.metric("proxy_plugin_snapshot_restore_failed_total") == before + 1
