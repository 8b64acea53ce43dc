"""The wall between tenants, on a real proxy: every route of the HTTP API with every name of somebody else's, as the
API's own document lists them. A route or a parameter that is not known here fails the test."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
import redis

from proxy_plugin.admin.openapi import TAG
from tests.admin.calls import told
from tests.agent import Agent
from tests.fake_provider import Reply
from tests.proxy import Proxy, eventually
from tests.security.walls import HTTP, NEEDLE, Held, call, dump, held_by_alice, quiet, says_nothing_of

UNKNOWN = "never-was-anything"
RANDOM_NODE = "0123456789abcdef0123456789abcdef"
OPEN_TO_ALL = {("get", "/health")}
ADMINS_ALONE = {("get", "/metrics"), ("delete", "/tenants/{tenant}")}
OWN_ONLY = {("get", "/sessions"), ("get", "/recovery"), ("post", "/sessions/import")}
STREAMS = {"/sessions/{session_id}/events"}


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    operation: Mapping[str, Any]

    @property
    def in_path(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def in_query(self) -> list[str]:
        return [one["name"] for one in self.operation.get("parameters", ()) if one["in"] == "query"]

    @property
    def body(self) -> Mapping[str, Any]:
        content = self.operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        properties: Mapping[str, Any] = content.get("schema", {}).get("properties", {})
        return properties


@pytest.fixture(scope="module")
def routes(proxy: Proxy) -> list[Route]:
    """What the proxy itself says that the plugin answers."""
    document = HTTP.get(proxy.root + "/openapi.json", timeout=60).json()
    return [
        Route(method, path.removeprefix("/api/v1"), operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if TAG in operation.get("tags", ())
    ]


@pytest.fixture(scope="module")
def held(proxy: Proxy) -> Held:
    alice = openai.OpenAI(base_url=proxy.base_url, api_key="sk-alice", max_retries=0)
    return held_by_alice(proxy, alice, "walled")


# What of alice's a parameter or a field may name. A new one must be told here what that is.


def of_path(held: Held) -> dict[str, list[str]]:
    return {
        "session_id": list(held.sessions),
        "ref": [held.nodes[0], held.nodes[-1], held.nodes[-1][:12]],
        "name": [held.branch],
        "snapshot_id": [held.snapshot],
        "subtask_id": [held.subtask],
        "n": ["1"],
    }


def of_query(held: Held) -> dict[str, list[str]]:
    return {
        "node": [held.nodes[-1], held.nodes[-1][:12]],
        "branch": [held.branch],
        "cursor": [held.cursor],
        "last_event_id": [held.nodes[0]],
        "tenant": [held.tenant],
        "agent": [NEEDLE],
        "q": [NEEDLE],
        "limit": ["500"], "offset": ["0"], "format": ["chat"], "state": ["completed"], "active_since": ["0"],
        "replace": ["true"],
    }  # fmt: skip


def of_body(held: Held) -> dict[str, Any]:
    return {
        "node": held.nodes[-1], "name": "his", "depends_on": [held.subtask], "aliases": ["his-alias"], "id": "his",
        "title": "his", "description": "his", "metadata": {"his": True}, "agent": "his", "result": "his",
        "error_message": "his", "pin": False, "ttl": 60, "preserve_last_result": True, "delete": False,
    }  # fmt: skip


def least_body(route: Route, held: Held) -> dict[str, Any] | None:
    """A body that the route takes; None where it takes none."""
    if route.method in ("get", "delete"):
        return None
    known = of_body(held)
    return {name: known[name] for name in route.body if name not in ("node", "depends_on", "ttl", "delete")}


def filled(route: Route, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]].replace("/", "%2F"), route.path)


def test_every_route_is_of_a_kind_that_is_tested_here(routes: list[Route], held: Held) -> None:
    assert len(routes) > 25
    known = of_path(held).keys(), of_query(held).keys(), of_body(held).keys()
    for route in routes:
        place = (route.method, route.path)
        if "session_id" not in route.in_path:
            assert place in OPEN_TO_ALL | ADMINS_ALONE | OWN_ONLY, f"say here whose data {place} shows"
            continue
        assert known[0] >= set(route.in_path), f"what of alice's could {place} name?"
        assert known[1] >= set(route.in_query), f"what of alice's could {place} name?"
        assert known[2] >= set(route.body), f"what of alice's could {place} name?"


def test_no_route_shows_or_changes_a_session_of_somebody_else(
    proxy: Proxy, store: redis.Redis, routes: list[Route], held: Held
) -> None:
    """Every name of hers, in place of the session, on every route: the very answer that a session gets which never
    was, and not a byte of hers is another one then."""
    before = quiet(store, held)
    asked = 0
    for route in routes:
        if "session_id" not in route.in_path:
            continue
        rest = {name: values[0] for name, values in of_path(held).items()}
        query = {name: of_query(held)[name][0] for name in route.in_query}
        for extra in ({}, query):
            body = least_body(route, held)
            unknown = call(
                proxy, route.method.upper(), filled(route, {**rest, "session_id": UNKNOWN}), body, key="sk-bob", **extra
            )
            assert unknown.status_code == 404, (route, unknown.text)
            for name in held.sessions:
                answer = call(
                    proxy,
                    route.method.upper(),
                    filled(route, {**rest, "session_id": name}),
                    body,
                    key="sk-bob",
                    **extra,
                )
                assert (answer.status_code, answer.content) == (404, unknown.content), (route, name, answer.text)
                assert _told_by(answer) == _told_by(unknown)
                asked += 1
    assert asked > 200
    assert dump(store, held) == before


def test_no_route_of_an_own_session_takes_anything_of_somebody_elses(
    proxy: Proxy, store: redis.Redis, routes: list[Route], held: Held, bob: openai.OpenAI
) -> None:
    """Her nodes, branches, snapshots and subtasks in his own session: like those that never were."""
    told(proxy, bob, "bobs", "hello")
    own = {
        "ref": call(proxy, "GET", "/sessions/bobs/tree", key="sk-bob").json()["nodes"][0]["id"],
        "name": "main",
        "n": "1",
    }
    never = {"ref": RANDOM_NODE, "name": UNKNOWN, "snapshot_id": UNKNOWN, "subtask_id": UNKNOWN}
    before, asked = quiet(store, held), 0
    for route in routes:
        if "session_id" not in route.in_path or route.path in STREAMS:
            continue
        for name in set(route.in_path) - {"session_id", "n"}:
            for value in of_path(held)[name]:
                rest = {**never, **own, "session_id": "bobs"}
                pair = [
                    call(
                        proxy,
                        route.method.upper(),
                        filled(route, {**rest, name: which}),
                        least_body(route, held),
                        key="sk-bob",
                    )
                    for which in (value, never[name])
                ]
                assert [one.status_code for one in pair] == [404, 404] and pair[0].content == pair[1].content, (
                    route,
                    name,
                )
                asked += 1
        for name in set(route.in_query) & {"node", "branch"}:
            for value in of_query(held)[name]:
                which = {"node": RANDOM_NODE, "branch": UNKNOWN}[name]
                pair = [
                    call(proxy, "GET", filled(route, {**own, "session_id": "bobs"}), key="sk-bob", **{name: v})
                    for v in (value, which)
                ]
                assert [one.status_code for one in pair] == [404, 404] and pair[0].content == pair[1].content, (
                    route,
                    name,
                )
                asked += 1
        for name in set(route.body) & {"node", "depends_on"}:
            known = {**(least_body(route, held) or {}), "name": "a-new-one"}
            known = {key: value for key, value in known.items() if key in route.body}
            pair = [
                call(
                    proxy,
                    route.method.upper(),
                    filled(route, {**never, **own, "session_id": "bobs"}),
                    {**known, name: v},
                    key="sk-bob",
                )
                for v in (of_body(held)[name], {"node": RANDOM_NODE, "depends_on": [UNKNOWN]}[name])
            ]
            assert pair[0].status_code == pair[1].status_code >= 400, (route, name, pair[0].text)
            assert pair[0].text.replace(held.subtask, "") == pair[1].text.replace(UNKNOWN, "")
            asked += 1
    assert asked > 10
    assert dump(store, held) == before


def test_lists_hold_ones_own_alone(proxy: Proxy, store: redis.Redis, routes: list[Route], held: Held) -> None:
    before = quiet(store, held)
    for route in routes:
        place = (route.method, route.path)
        if place in ADMINS_ALONE:
            answer = call(proxy, route.method.upper(), filled(route, {"tenant": held.tenant}), key="sk-bob")
            assert answer.status_code == 403, place
            says_nothing_of(held, [answer.text])
        if place in OWN_ONLY and route.method == "get":
            tries: list[dict[str, str]] = [{}, *({name: of_query(held)[name][0]} for name in route.in_query)]
            answers = [call(proxy, "GET", route.path, key="sk-bob", **one) for one in tries]
            assert {one.status_code for one in answers} <= {200, 403}
            says_nothing_of(held, [one.text for one in answers])
            for answer in answers:
                listed = answer.json().get("sessions", [])
                assert not {one["session_id"] for one in listed} & set(held.sessions)
                assert held.tenant not in answer.text
    assert dump(store, held) == before


def test_an_import_lands_with_whoever_brings_it(proxy: Proxy, store: redis.Redis, held: Held) -> None:
    """Her own export, with her tenant and her session's id in it, and `?tenant=` to insist."""
    before = quiet(store, held)
    for query in ({}, {"tenant": held.tenant, "replace": "true"}, {"replace": "true"}):
        answer = call(proxy, "POST", "/sessions/import", held.export, key="sk-bob", **query)
        if answer.status_code == 409:  # its alias or itself is his by now
            continue
        assert answer.status_code == 201 and answer.json()["tenant"] != held.tenant
    mine = call(proxy, "GET", f"/sessions/{held.session}", key="sk-bob").json()
    assert mine["session_id"] == held.session and mine["tenant"] != held.tenant
    assert call(proxy, "PATCH", f"/sessions/{held.session}", {"title": "his"}, key="sk-bob").status_code == 200
    assert call(proxy, "DELETE", f"/sessions/{held.session}", key="sk-bob").status_code == 200
    assert dump(store, held) == before
    assert call(proxy, "GET", f"/sessions/{held.session}").json()["title"] == NEEDLE


@pytest.mark.parametrize("part", ["links", "kept", "flights", "tomb"])
def test_an_import_brings_no_part_that_leads_out_of_the_session(proxy: Proxy, held: Held, part: str) -> None:
    """A deletion removes what a session's links name: who could import them could delete anything."""
    lines = held.export.splitlines()
    header = json.loads(lines[0])
    header["session"]["session_id"] = f"bobs-{part}"
    forged = json.dumps({"type": part.removesuffix("s"), "name": "x", "value": f"pp:1:{{{held.tenant}}}:sessions"})
    body = b"\n".join([json.dumps(header).encode(), *lines[1:-1], forged.encode(), lines[-1]])
    answer = call(proxy, "POST", "/sessions/import", body, key="sk-bob")
    assert answer.status_code == 400 and "unknown type" in answer.json()["error"]["message"]


def test_events_of_an_own_session_behind_a_foreign_node_are_own_ones(
    proxy: Proxy, held: Held, bob: openai.OpenAI
) -> None:
    told(proxy, bob, "bobs-events", "hello")
    url, seen = f"{proxy.root}/api/v1/sessions/bobs-events/events", ""
    headers = {"authorization": "Bearer sk-bob", "last-event-id": held.nodes[0]}
    with HTTP.stream("GET", url, headers=headers, timeout=20) as answer:
        for line in answer.iter_lines():
            seen += line
            if seen.count("data: ") == 2:
                break
    assert "hello" in seen
    says_nothing_of(held, [seen])


def test_without_a_key_there_is_one_word(proxy: Proxy, routes: list[Route], held: Held) -> None:
    values = {name: found[0] for name, found in of_path(held).items()} | {"tenant": held.tenant}
    for route in routes:
        for key in ("", "sk-unknown"):
            answer = call(proxy, route.method.upper(), filled(route, values), least_body(route, held), key=key)
            if (route.method, route.path) in OPEN_TO_ALL:
                assert answer.status_code == 200 and answer.json() in ({"status": "ok"}, {"status": "degraded"})
            else:
                assert answer.status_code == 401, (route, answer.text)
                says_nothing_of(held, [answer.text])


def test_no_answer_is_kept_by_a_cache_or_taken_for_a_page(proxy: Proxy, routes: list[Route], held: Held) -> None:
    """Also not where it repeats what was asked for."""
    markup = "<script>alert(1)</script>"
    for route in routes:
        if route.method != "get" or route.path in STREAMS:
            continue
        values = {name: found[0] for name, found in of_path(held).items()} | {"tenant": held.tenant}
        for query in ({}, dict.fromkeys(route.in_query, markup)):
            answer = call(proxy, "GET", filled(route, values), **query)
            assert answer.headers["cache-control"] == "no-store", route
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "html" not in answer.headers["content-type"]
            assert answer.status_code < 500


def _told_by(answer: httpx.Response) -> set[str]:
    """Names of the headers of an answer, and its type."""
    return {*answer.headers} | {answer.headers.get("content-type", "")}


# The request path


def asking(name: str, held: Held) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Headers and body fields by which a request may name a session or a place in one."""
    claude = json.dumps({"device_id": "d", "account_uuid": "", "session_id": name})
    for header in (
        "x-litellm-session-id", "x-litellm-trace-id", "x-session-id", "x-claude-code-session-id", "session-id",
        "thread-id", "x-acme-session-id", "x-proxy-plugin-session", "x-proxy-plugin-session-id",
    ):  # fmt: skip
        yield {header: name}, {}
    yield {"session-id": name, "user-agent": "codex_cli_rs/0.50.0"}, {}
    yield {}, {"litellm_session_id": name}
    yield {}, {"metadata": {"session_id": name}}
    yield {}, {"metadata": {"user_id": claude}}
    yield {}, {"prompt_cache_key": name}
    yield {}, {"client_metadata": {"session_id": name}}
    yield {}, {"session_id": name, "litellm_trace_id": name}
    for tenant in ({"x-proxy-plugin-tenant": held.tenant}, {"x-tenant": held.tenant}, {"x-litellm-user-id": "alice"}):
        yield {"x-litellm-session-id": name, **tenant, "x-litellm-key-alias": "sk-alice"}, {"user": "alice"}
    forged = {"user_api_key": "sk-alice", "user_api_key_user_id": "alice", "user_api_key_hash": held.tenant}
    yield {"x-litellm-session-id": name}, {"metadata": forged}
    yield {"x-litellm-session-id": name}, {"litellm_metadata": forged}
    yield (
        {"x-litellm-session-id": name},
        {"tenant": held.tenant, "proxy_server_request": {"headers": {"authorization": "Bearer sk-alice"}}},
    )


def test_no_request_reads_or_extends_a_session_of_somebody_else(
    proxy: Proxy, store: redis.Redis, provider: Any, held: Held
) -> None:
    before = quiet(store, held)
    for name in (held.session, held.sessions[1], held.sessions[2]):
        for headers, body in asking(name, held):
            provider.requests.clear()
            message = [{"role": "user", "content": "what did I say?"}]
            answer = _ask(proxy, "/chat/completions", {"model": "gpt", "messages": message, **body}, headers)
            assert answer.status_code == 200, (headers, body, answer.text)
            assert [request.messages for request in provider.requests] == [message]
            assert answer.headers["x-proxy-plugin-collapsed"] == "0"
            shown = call(proxy, "GET", f"/sessions/{answer.headers['x-proxy-plugin-session']}/history", key="sk-bob")
            says_nothing_of(held, [answer.text, shown.text, json.dumps(dict(answer.headers))])
    assert dump(store, held) == before


def test_no_request_resumes_a_session_of_somebody_else(
    proxy: Proxy, store: redis.Redis, provider: Any, held: Held
) -> None:
    before = quiet(store, held)
    for place in ("head", held.snapshot, held.nodes[-1], held.nodes[-1][:12], held.branch):
        for headers, body in (
            ({"x-litellm-session-id": held.session}, {}),
            ({"x-litellm-session-id": held.sessions[2]}, {}),
            ({"x-litellm-session-id": "bobs-resumed"}, {}),
            ({"x-litellm-session-id": held.session, "x-subtask-id": held.subtask}, {}),
        ):
            provider.requests.clear()
            message = [{"role": "user", "content": "and what did I say before?"}]
            wish = {"x-proxy-plugin-resume": place, **headers}
            # a session of his own with that id exists by now, with what he said himself
            answer = _ask(proxy, "/chat/completions", {"model": "gpt", "messages": message, **body}, wish)
            assert answer.status_code == 200
            if place != "head":
                assert answer.headers["x-proxy-plugin-resumed"] == "0"
            assert NEEDLE not in provider.requests[-1].body.decode()
    assert dump(store, held) == before


def test_no_subtask_is_given_results_of_somebody_else(
    proxy: Proxy, store: redis.Redis, provider: Any, held: Held
) -> None:
    before = quiet(store, held)
    for session in (held.session, "bobs-dependent"):
        subtask = {"id": "his", "description": "x", "depends_on": [held.subtask]}
        for body in ({"metadata": {"subtask": subtask}}, {"metadata": {"subtask_id": held.subtask}}):
            message = [{"role": "user", "content": "use what came of it"}]
            _ask(
                proxy,
                "/chat/completions",
                {"model": "gpt", "messages": message, **body},
                {"x-litellm-session-id": session},
            )
            assert NEEDLE not in provider.requests[-1].body.decode()
    assert dump(store, held) == before


def test_no_response_of_somebody_else_is_gone_on_from(proxy: Proxy, store: redis.Redis, provider: Any) -> None:
    """Neither by the id that she was given, nor by the provider's own, nor by her conversation's. What a provider
    gives to whoever has an id is between it and LiteLLM; the plugin adds no path of hers."""
    first = _ask(
        proxy, "/responses", {"model": "gpt", "input": f"hers {NEEDLE}"}, {"x-session-id": "walled-resp"}, "sk-alice"
    )
    shown = first.json()["id"]
    own = eventually(lambda: call(proxy, "GET", "/sessions/walled-resp").json().get("message_count") == 2)
    assert own
    tenant = call(proxy, "GET", "/sessions/walled-resp").json()["tenant"]
    held = Held(tenant, (), "", (), "", "", "", "", b"", (f"pp:1:{{{tenant}}}".encode(),), "walled-resp")
    for response_id in (shown, "resp_0", "resp_1"):
        for headers in ({}, {"x-session-id": "walled-resp"}):
            provider.requests.clear()
            answer = _ask(
                proxy, "/responses", {"model": "gpt", "input": "go on", "previous_response_id": response_id}, headers
            )
            for request in provider.requests:
                assert NEEDLE not in request.body.decode()
            if answer.status_code == 200:
                session = answer.headers["x-proxy-plugin-session"]
                says_nothing_of(held, [call(proxy, "GET", f"/sessions/{session}/history", key="sk-bob").text])
    assert call(proxy, "GET", "/sessions/walled-resp").json()["message_count"] == 2


def test_a_call_id_of_somebody_elses_ends_no_call_of_hers(proxy: Proxy, provider: Any, alice: openai.OpenAI) -> None:
    """LiteLLM lets clients choose the id of a call, and failures are found by it."""
    provider.requests.clear()
    go, message = threading.Event(), [{"role": "user", "content": "his, refused"}]
    provider.next(Reply(text="messages: refused", status=400, delay_event=go))
    his = {"x-litellm-call-id": "shared-call-id"}
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(_ask, proxy, "/chat/completions", {"model": "gpt", "messages": message}, his)
        provider.wait_for(1)
        gate = provider.hold(event=1)
        stream = alice.chat.completions.create(
            model="gpt",
            messages=[{"role": "user", "content": "hers, held"}],
            stream=True,
            extra_headers={"x-litellm-session-id": "walled-call", "x-litellm-call-id": "shared-call-id"},
        )
        assert gate.reached.wait(20)
        go.set()
        assert refused.result(30).status_code == 400
        gate.release()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    eventually(lambda: call(proxy, "GET", "/sessions/walled-call").json().get("message_count") == 2)


def test_an_own_conversation_without_an_id_is_not_joined_to_one_that_opened_alike(
    proxy: Proxy, store: redis.Redis, held: Held, bob: openai.OpenAI
) -> None:
    before = quiet(store, held)
    same = Agent(bob)
    same.run(f"opening {NEEDLE} {held.session}")
    assert same.session != held.sessions[2]
    assert dump(store, held) == before


def _ask(proxy: Proxy, path: str, body: dict[str, Any], headers: dict[str, str], key: str = "sk-bob") -> httpx.Response:
    return httpx.post(
        proxy.base_url + path, json=body, headers={**headers, "authorization": f"Bearer {key}"}, timeout=30
    )
