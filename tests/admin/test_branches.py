"""The tree and its branches over HTTP, on a real proxy."""

from __future__ import annotations

from urllib.parse import quote

import openai
import pytest

from tests.admin.calls import call, messages, told
from tests.proxy import Proxy, eventually


def test_a_branch_is_made_switched_to_grown_renamed_and_deleted(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "branches-1", "first", "second")
    path = "/sessions/branches-1/branches"
    (main,) = call(proxy, "GET", path).json()["branches"]
    assert (main["name"], main["current"]) == ("main", True)
    node = call(proxy, "GET", "/sessions/branches-1/tree").json()["nodes"][1]["id"]

    made = call(proxy, "POST", path, {"name": " try 2/1 ".replace("/", "-"), "node": node[:12]})
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["head"], made.json()["current"]) == ("try 2-1", node, False)
    assert messages(proxy, "branches-1") == agent.messages
    switched = call(proxy, "POST", f"{path}/{quote('try 2-1')}/switch")
    assert (switched.status_code, switched.json()["message_count"], switched.json()["current"]) == (200, 2, True)
    assert messages(proxy, "branches-1") == agent.messages[:2]

    newer = list(agent.messages)
    agent.messages = agent.messages[:2]
    agent.run("another second")
    eventually(lambda: messages(proxy, "branches-1") == agent.messages)
    assert call(proxy, "DELETE", f"{path}/try 2-1").status_code == 409
    renamed = call(proxy, "PATCH", f"{path}/try 2-1", {"name": "ünï"})
    assert (renamed.status_code, renamed.json()["name"], renamed.json()["current"]) == (200, "ünï", True)
    assert messages(proxy, "branches-1", branch="main") == newer
    gone = call(proxy, "DELETE", f"{path}/main")
    assert gone.status_code == 200
    assert messages(proxy, "branches-1", node=main["head"]) == newer
    assert [branch["name"] for branch in call(proxy, "GET", path).json()["branches"]] == ["ünï"]


def test_a_client_that_sends_the_old_history_makes_its_branch_current_again(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "branches-2", "first", "second")
    first = call(proxy, "GET", "/sessions/branches-2/tree").json()["nodes"][1]["id"]
    call(proxy, "POST", "/sessions/branches-2/branches", {"name": "older", "node": first})
    call(proxy, "POST", "/sessions/branches-2/branches/older/switch")
    agent.run("third")
    eventually(lambda: call(proxy, "GET", "/sessions/branches-2").json()["branch"] == "main")
    eventually(lambda: messages(proxy, "branches-2") == agent.messages)
    assert messages(proxy, "branches-2", branch="older") == agent.messages[:2]


def test_the_tree_has_every_node_its_children_its_roots_and_pages(proxy: Proxy, alice: openai.OpenAI) -> None:
    agent = told(proxy, alice, "branches-3", "first", "second")
    agent.messages = agent.messages[:2]
    agent.run("another second")
    told(proxy, alice, "other-session", "x")
    alice.chat.completions.create(
        model="gpt",
        messages=[{"role": "user", "content": "give it a title"}],
        extra_headers={"x-litellm-session-id": "branches-3"},
    )
    tree = eventually(lambda: (t := call(proxy, "GET", "/sessions/branches-3/tree").json())["total"] == 8 and t)
    nodes = {node["id"]: node for node in tree["nodes"]}
    assert len(tree["roots"]) == 2 and tree["cursor"] is None and tree["missing_nodes"] == []
    for node in nodes.values():
        assert all(nodes[child]["parent"] == node["id"] for child in node["children"])
        assert node["parent"] is None or node["id"] in nodes[node["parent"]]["children"]
        assert (node["depth"] == 1) == (node["parent"] is None)
    heads = {name: node["id"] for node in nodes.values() for name in node["branches"]}
    assert heads == {branch["name"]: branch["head"] for branch in tree["branches"]}
    assert set(heads) == {"main", "branch-2", "branch-3"}
    assert tree["head"] == heads["branch-2"]
    for ended in (node for node in nodes.values() if not node["children"]):
        assert messages(proxy, "branches-3", node=ended["id"][:12])

    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = call(proxy, "GET", "/sessions/branches-3/tree", limit=3, **cursor).json()
        seen += [node["id"] for node in page["nodes"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert seen == list(nodes)
    assert call(proxy, "GET", "/sessions/branches-3/tree", cursor="x").status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "", {}, 400, "name"),
        ("POST", "", {"name": " "}, 400, "name"),
        ("POST", "", {"name": "a/b"}, 400, "name"),
        ("POST", "", {"name": "a\nb"}, 400, "name"),
        ("POST", "", {"name": ".."}, 400, "name"),
        ("POST", "", {"name": "x" * 101}, 400, "name"),
        ("POST", "", {"name": 7}, 400, "name"),
        ("POST", "", {"name": "x", "force": True}, 400, "force"),
        ("POST", "", b"[", 400, None),
        ("POST", "", {"name": "main"}, 409, "name"),
        ("POST", "", {"name": "x", "node": "0" * 12}, 404, "node"),
        ("POST", "/none/switch", None, 404, "name"),
        ("PATCH", "/none", {"name": "x"}, 404, "name"),
        ("PATCH", "/main", {"name": ""}, 400, "name"),
        ("DELETE", "/none", None, 404, "name"),
        ("DELETE", "/main", None, 409, "name"),
        ("GET", "?limit=0", None, 400, "limit"),
    ],
)
def test_errors_name_what_is_wrong(
    proxy: Proxy, alice: openai.OpenAI, method: str, path: str, body: object, status: int, param: str | None
) -> None:
    if call(proxy, "GET", "/sessions/branches-4").status_code == 404:
        told(proxy, alice, "branches-4", "first")
    answer = call(proxy, method, "/sessions/branches-4/branches" + path, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, str(status))
