"""A proxy that keeps no texts: nothing that was said reaches Redis, requests leave as ever, and what needs the texts
says that they are not kept."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

import anthropic
import openai
import pytest

from proxy_plugin.events import ignore
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.history.rewrite import read
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Settings, Store
from tests.admin.calls import call
from tests.agent import TOOLS, Agent
from tests.fake_provider import FakeProvider, Reply, Request, ReusingModel
from tests.gateway.test_continued import Thread
from tests.gateway.test_endpoints import Messages, Responses
from tests.proxy import Proxy, eventually
from tests.sessions.dump import everything

NEEDLE = "needle"
TASK = 'a needle of the user\n\ncall find {"what": "needle in arguments"}\n\ncall find_orders {"of": "needle"}'
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,needle0000"}}
REFERENCE = "full output kept"
_names = count()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Proxy]:
    models = {
        "gpt": provider.base_url,
        "claude": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"},
    }
    environ = {"PROXY_PLUGIN_STORE__CONTENT": "structure"}
    with Proxy(tmp_path_factory.mktemp("proxy"), models, custom_auth=True, environ=environ) as running:
        yield running


@pytest.fixture
def session() -> str:
    return f"structure-{next(_names)}"


def in_redis(proxy: Proxy) -> list[tuple[str, bytes]]:
    async def look() -> list[tuple[str, bytes]]:
        store = Store(embedded_dir=str(proxy.folder / "store"), embedded_port=proxy.store_port)
        connection = Connection.open(Settings(store=store), {})
        assert connection is not None
        try:
            return await everything(lambda *command: connection.command("execute_command", *command))
        finally:
            await connection.close()

    return asyncio.run(look())


def needles(proxy: Proxy) -> set[str]:
    return {key for key, value in in_redis(proxy) if NEEDLE.encode() in value.lower()}


def thinking(reply: Reply) -> Reply:
    return replace(reply, reasoning="a needle of thought")


def stored(proxy: Proxy, session: str, messages: int) -> Any:
    def found() -> Any:
        answer = call(proxy, "GET", f"/sessions/{session}/history").json()
        return answer if answer.get("message_count") == messages else None

    return eventually(found)


def noted(proxy: Proxy, session: str, requests: int) -> list[Any]:
    def found() -> Any:
        answer = call(proxy, "GET", f"/sessions/{session}/requests").json()
        return answer["requests"] if answer.get("total") == requests else None

    return list(eventually(found))


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@both
def test_chat(proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str, stream: bool) -> None:
    described = [{**tool, "function": {**tool["function"], "description": "a needle"}} for tool in TOOLS]
    body = {
        "metadata": {
            "agent": "scout",
            "agent_reason": "needle",
            "note": "needle",
            "subtask": {"id": "one", "description": "a needle", "metadata": {"n": "needle"}},
        },
        "tools": described,
        "user": "needle@example.com",
    }
    agent = Agent(alice, stream=stream, extra_headers={"x-litellm-session-id": session}, extra_body=body)
    agent.messages = [
        {"role": "system", "content": "You guard a needle."},
        {"role": "user", "name": "needle", "content": [{"type": "text", "text": "a needle"}, PICTURE]},
        {"role": "assistant", "content": "needle", "refusal": None, "reasoning_content": "needle"},
    ]
    provider.next(thinking)
    for _ in range(3):
        agent.run(TASK)
    history = stored(proxy, session, len(agent.messages))
    assert [shape_of(message) for message in history["messages"]] == [shape_of(message) for message in agent.messages]
    assert history["content"] == "structure" and NEEDLE not in json.dumps(history)
    assert history["current_agent"] == "scout"
    assert provider.refused() == []
    summaries = provider.requests[-1].body.count(b"[Tool calls]")
    assert (summaries, agent.headers[-1]["x-proxy-plugin-collapsed"]) == (2, "2")
    assert REFERENCE.encode() not in provider.requests[-1].body
    noted(proxy, session, len(provider.requests))
    assert needles(proxy) == set()


def shape_of(message: dict[str, Any]) -> Any:
    calls = [(call["id"], call["function"]["name"]) for call in message.get("tool_calls") or ()]
    return message["role"], calls, message.get("tool_call_id")


@both
@pytest.mark.parametrize("api", ["messages", "responses"])
def test_the_other_endpoints(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str, api: str, stream: bool
) -> None:
    field = {"messages": "system", "responses": "instructions"}[api]
    options = {field: "Guard the needle.", "extra_headers": {"x-litellm-session-id": session}}
    provider.next(thinking)
    if api == "messages":
        with anthropic.Anthropic(base_url=proxy.root, api_key="sk-alice", max_retries=0) as client:
            agent: Any = Messages(client, "claude", stream, options)
            for _ in range(3):
                agent.run(TASK)
    else:
        agent = Responses(alice, "gpt", stream, options)
        for _ in range(3):
            agent.run(TASK)
    path = read(agent.wire, api)
    assert path is not None
    history = stored(proxy, session, len(path.messages) + 1)
    kept = read(history["messages"], api)
    assert kept is not None and [m.role for m in kept.messages] == [m.role for m in path.messages]
    assert [[c.id for c in m.calls] for m in kept.messages] == [[c.id for c in m.calls] for m in path.messages]
    assert history["content"] == "structure" and history[field] == ""
    assert NEEDLE not in json.dumps(history)
    assert provider.refused() == [] and REFERENCE.encode() not in provider.requests[-1].body
    noted(proxy, session, len(provider.requests))
    for form in ("chat", "messages", "responses"):
        answer = call(proxy, "GET", f"/sessions/{session}/history", format=form)
        assert answer.status_code == 200 and answer.json()["format"] == form
    assert needles(proxy) == set()


@both
def test_responses_that_go_on_from_earlier_ones(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str, stream: bool, monkeypatch: Any
) -> None:
    def brain(request: Request) -> Reply:
        reply = model(request)
        return replace(reply, calls=[(f"call_{uuid4().hex}", *call[1:]) for call in reply.calls])

    model = ReusingModel()  # but a provider that keeps conversations gives no id twice
    monkeypatch.setattr(provider, "brain", brain)
    monkeypatch.setattr(provider, "_stored", {})
    thread = Thread(alice, stream, options={"extra_headers": {"x-litellm-session-id": session}})
    thread.run(TASK)
    thread.run("and the other needle?")
    path = read(thread.wire, "responses")
    assert path is not None
    stored(proxy, session, len(path.messages))
    assert needles(proxy) == set()


def test_what_needs_the_texts_says_that_they_are_not_kept(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str
) -> None:
    headers = {"x-litellm-session-id": session}
    agent = Agent(alice, extra_headers=headers, extra_body={"metadata": {"subtask": {"id": "boats"}}})
    agent.run(TASK)
    agent.run("call report {}")
    stored(proxy, session, len(agent.messages))

    before = proxy.metric("proxy_plugin_passthrough_total", reason="resume_unavailable")
    new = [{"role": "user", "content": "what of the needle?"}]
    raw = alice.chat.completions.with_raw_response.create(
        model="gpt",
        messages=new,
        extra_headers={**headers, "x-proxy-plugin-resume": "head"},  # type: ignore[arg-type]
    )
    assert raw.headers["x-proxy-plugin-resumed"] == "0" and provider.requests[-1].messages == new
    assert proxy.metric("proxy_plugin_passthrough_total", reason="resume_unavailable") == before + 1

    before = proxy.metric("proxy_plugin_passthrough_total", reason="dependency_missing")
    needs = {"metadata": {"subtask": {"id": "trains", "depends_on": ["boats"]}}}
    wire = [*agent.messages, {"role": "user", "content": "a needle on trains"}]
    alice.chat.completions.create(model="gpt", messages=wire, extra_headers=headers, extra_body=needs, tools=TOOLS)  # type: ignore[call-overload]
    assert "needle on trains" in provider.requests[-1].messages[-1]["content"]
    assert not any("Previous subtask results" in str(message) for message in provider.requests[-1].messages)
    assert proxy.metric("proxy_plugin_passthrough_total", reason="dependency_missing") == before + 1

    answer = call(proxy, "GET", f"/sessions/{session}/search", q="needle")
    assert answer.status_code == 409 and "texts are not kept" in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "texts_not_kept"
    subtasks = {one["id"]: one for one in call(proxy, "GET", f"/sessions/{session}/subtasks").json()["subtasks"]}
    assert (subtasks["boats"]["state"], subtasks["boats"]["result"]) == ("completed", None)
    assert subtasks["boats"]["content"] == "structure" and subtasks["trains"]["depends_on"] == ["boats"]


def test_a_request_is_told_without_its_lists(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str
) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": session})
    for _ in range(2):
        agent.run(TASK)
    listed = noted(proxy, session, len(provider.requests))
    last = call(proxy, "GET", f"/sessions/{session}/requests/{listed[0]['n']}").json()
    assert (last["content"], last["exact"], last["received"], last["sent"]) == ("structure", False, None, None)
    assert "texts are not kept" in last["inexact_because"] and last["subtasks_collapsed"] == 1
    (edit,) = [edit for edit in last["edits"] if "summary" in edit["edits"]]
    for node in edit["instead_of"]:
        shown = call(proxy, "GET", f"/sessions/{session}/nodes/{node}").json()
        assert shown["content"] == "structure" and shown["role"] in ("assistant", "tool")
    text = call(proxy, "GET", f"/sessions/{session}/requests/{listed[0]['n']}", format="text").text
    assert "texts are not kept" in text and "subtasks_collapsed 1" in text and "summary" in text
    assert NEEDLE not in text
    assert shell(proxy, "diff", session) == text
    shown = shell(proxy, "show", session)
    assert "texts are not kept" in shown and "→ find_orders()" in shown and NEEDLE not in shown


def shell(proxy: Proxy, *arguments: str) -> str:
    command = [sys.executable, "-m", "proxy_plugin.cli", "sessions", *arguments]
    ran = subprocess.run(command, cwd=proxy.folder, env=proxy.environ, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_by_http_nothing_comes_in_and_nothing_goes_out(proxy: Proxy, alice: openai.OpenAI, session: str) -> None:
    agent = Agent(alice, extra_headers={"x-litellm-session-id": session})
    agent.run(TASK)
    stored(proxy, session, len(agent.messages))
    place = f"/sessions/{session}"
    plan = {"id": "one", "description": "a needle", "metadata": {"note": "needle"}}
    assert call(proxy, "POST", f"{place}/subtasks", plan).json()["description"] is None
    failed = call(proxy, "POST", f"{place}/subtasks/one/fail", {"error_message": "needle"}).json()
    assert (failed["state"], failed["error_message"], failed["content"]) == ("failed", None, "structure")
    call(proxy, "POST", f"{place}/subtasks", plan)
    done = call(proxy, "POST", f"{place}/subtasks/one/complete", {"result": "needle"}).json()
    assert (done["state"], done["result"], done["content"]) == ("completed", None, "structure")

    text = call(proxy, "GET", f"{place}/export").content
    assert b'"content":"structure"' in text and NEEDLE.encode() not in text
    taken = call(proxy, "POST", "/sessions/import", text, replace="true")
    assert taken.status_code == 201, taken.text
    assert stored(proxy, session, len(agent.messages))["content"] == "structure"
    lines = call(proxy, "GET", f"{place}/events", last_event_id="0" * 32, key="sk-bob")
    assert lines.status_code == 404
    assert needles(proxy) == set()


@pytest.mark.parametrize(
    ("settings", "body", "refers"),
    [
        (Settings(), {}, True),
        (Settings(store=Store(content="structure")), {}, False),
        (Settings(store=Store(honour_store_false=True)), {}, True),
        (Settings(store=Store(honour_store_false=True)), {"store": False}, False),
        (Settings(), {"store": False}, True),
    ],
)
def test_a_summary_says_where_the_output_is_where_it_is(settings: Settings, body: Any, refers: bool) -> None:
    assert (REFERENCE in rewritten(settings, body, stores=True)) is refers
    assert REFERENCE not in rewritten(settings, body, stores=False)


def rewritten(settings: Settings, body: dict[str, Any], *, stores: bool) -> str:
    """What leaves of a finished subtask. `stores`: there is a store, though it does not answer."""
    function = {"name": "find", "arguments": "{}"}
    wire: list[Any] = [
        {"role": "user", "content": "start"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": "row " * 400},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "next"},
    ]
    incoming = Incoming("chat", wire, {"x-litellm-session-id": "s"}, body, "t", dialect_of("openai"), "enforce")

    async def send() -> str:
        away = Connection.open(replace(settings, store=replace(settings.store, url="redis://127.0.0.1:1")), {})
        assert away is not None
        store = GuardedStore(SessionStore(away, settings), settings) if stores else None
        pipeline = Pipeline(settings, store, ignore)
        turn = await pipeline.before(incoming)
        assert turn is not None and pipeline.preview(incoming) == turn.messages
        if store is not None:
            await store.close(0.1)
        return json.dumps(turn.messages)

    return asyncio.run(send())
