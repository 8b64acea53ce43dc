"""Subtasks that need the results of others, on the request path of a real proxy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from typing import Any

import anthropic
import httpx
import openai
import pytest

from proxy_plugin.history.dependencies import TITLE
from proxy_plugin.history.wire import CODECS
from tests.agent import PLAN, Agent
from tests.fake_provider import FakeProvider, Request, fail
from tests.gateway.test_endpoints import Conversation, Messages, Responses
from tests.proxy import Proxy, eventually

SYSTEM = {"role": "system", "content": "be brief"}
FIND = 'call find {"what": "boats"}\n\ncall find {"what": "trains"}'
_names = count()

Ids = Callable[[], list[str]]


@pytest.fixture
def session() -> str:
    return f"plan-{next(_names)}"


def executor(client: openai.OpenAI, session: str, subtask: dict[str, Any] | None = None, **options: Any) -> Agent:
    body = {"metadata": {"subtask": subtask}} if subtask else {}
    return Agent(client, extra_headers={"x-litellm-session-id": session}, extra_body=body, **options)


def subtasks(proxy: Proxy, session: str) -> dict[str, Any]:
    listed = proxy.get(f"/sessions/{session}/subtasks", key="sk-alice").json()["subtasks"]
    return {subtask["id"]: subtask for subtask in listed}


def history(proxy: Proxy, session: str, **which: str) -> list[Any]:
    return list(proxy.get(f"/sessions/{session}/history", key="sk-alice", **which).json()["messages"])


def reasons(proxy: Proxy, reason: str) -> float:
    return proxy.metric("proxy_plugin_passthrough_total", reason=reason)


def planned(client: openai.OpenAI, session: str) -> Agent:
    """A session with a planning turn that used tools, and a finished subtask `boats` on top."""
    agent = executor(client, session, messages=[SYSTEM])
    agent.run(FIND)
    first = executor(client, session, {"id": "boats", "description": "find boats", "agent": "finder"})
    first.messages = agent.messages
    first.run('call find {"boat": 1}')
    return first


def notes(request: Request) -> list[Any]:
    return [message for message in request.messages if TITLE in str(message.get("content"))]


def is_prefix(one: list[Any], other: list[Any]) -> bool:
    return other[: len(one)] == one


@pytest.mark.parametrize("everything", [False, True], ids=["own", "everything"])
def test_a_dependent_subtask_gets_its_past_without_tools_and_one_note(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str, everything: bool
) -> None:
    before = planned(alice, session)
    last = executor(alice, session, {"id": "report", "agent": "writer", "depends_on": ["boats"]})
    last.messages = list(before.messages) if everything else []
    provider.requests.clear()
    last.run('call report {"n": 1}\n\ncall report {"n": 2}')

    sent = [request.messages for request in provider.requests]
    assert len(sent) == 3 and provider.refused() == []
    assert all(is_prefix(one, other) for one, other in pairwise(sent))
    past, (note, asked) = sent[0][:-2], sent[0][-2:]
    assert asked == {"role": "user", "content": 'call report {"n": 1}\n\ncall report {"n": 2}'}
    assert note["role"] == "system" and note["content"].startswith(TITLE)
    result = before.messages[-1]["content"]
    assert all(text in note["content"] for text in ("find boats", "finder", result))
    assert [message["role"] for message in past] == ["system", *["user", "assistant"] * (2 if everything else 1)]
    assert not any(message.get("tool_calls") for message in past)
    assert past[:2] == [SYSTEM, {"role": "user", "content": FIND}]
    assert all(len(notes(request)) == 1 for request in provider.requests)

    done = eventually(lambda: subtasks(proxy, session)["report"]["state"] == "completed" and subtasks(proxy, session))
    assert (done["report"]["depends_on"], done["report"]["agent"]) == (["boats"], "writer")
    assert done["report"]["result"] == last.messages[-1]["content"]
    own = last.messages if everything else [*before.messages[: len(past) + 4], *last.messages]
    assert history(proxy, session) == own
    if not everything:
        assert done["report"]["base_node"] == done["boats"]["base_node"]


def test_the_summary_of_an_own_round_leads_to_where_it_is_stored(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str
) -> None:
    planned(alice, session)
    last = executor(alice, session, {"id": "report", "depends_on": ["boats"]})
    last.run(PLAN[0])
    last.run("and now?")
    summary = next(m["content"] for m in provider.sent()[-1][::-1] if m["role"] == "system")
    words = [word.strip("[];:,.()") for word in summary.split()]
    references = [word for word in words if len(word) == 12 and all(c in "0123456789abcdef" for c in word)]
    answers = [proxy.get(f"/sessions/{session}/nodes/{ref}", key="sk-alice").status_code for ref in references]
    assert references and set(answers) == {200}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("kind", "model"), [(Messages, "claude"), (Messages, "gpt"), (Responses, "gpt")])
def test_the_other_endpoints(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str, kind: Any, model: str, stream: bool
) -> None:
    planned(alice, session)
    begun = post(proxy, session, {"id": "report", "depends_on": ["boats"]})
    assert begun.status_code == 201
    client: Any = alice
    if kind is Messages:
        client = anthropic.Anthropic(base_url=proxy.root, api_key="sk-alice", max_retries=0)
    headers = {"x-litellm-session-id": session, "x-subtask-id": "report"}
    agent: Conversation = kind(client, model, stream, {"extra_headers": headers})
    provider.requests.clear()
    agent.run('call report {"n": 1}\n\ncall report {"n": 2}')
    assert len(provider.requests) == 3 and provider.refused() == []
    sent = [upstream(request) for request in provider.requests]
    assert all(is_prefix(one, other) for one, other in pairwise(sent))
    assert all(str(request.parsed).count(TITLE) == 1 for request in provider.requests)
    assert "be brief" in str(provider.requests[0].parsed)
    if kind is Messages and model == "claude":
        content = sent[0][-1]["content"]
        assert str(content if isinstance(content, str) else content[0]["text"]).startswith(TITLE)
    if kind is Responses:
        assert [m.role for m in CODECS["responses"].parse(sent[0])][-2:] == ["system", "user"]
    assert eventually(lambda: subtasks(proxy, session)["report"]["state"] == "completed")
    agent.wire.append({"role": "user", "content": "thanks"})
    agent.ask()
    assert upstream(provider.requests[-1])[: len(sent[0]) - 1] == sent[0][:-1] and provider.refused() == []


def upstream(request: Request) -> list[Any]:
    """The list that reached the provider, on whichever of its endpoints."""
    return list(request.parsed["messages" if "messages" in request.parsed else "input"])


def test_parallel_subtasks_have_branches_of_their_own_and_each_result_lands_once(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str
) -> None:
    plan = executor(alice, session, messages=[SYSTEM])
    plan.run("plan it")
    names = [f"part-{n}" for n in range(6)]

    def run(name: str) -> str:
        agent = executor(alice, session, {"id": name, "description": f"do {name}"}, messages=list(plan.messages))
        return agent.run(f'call find {{"part": "{name}"}}')

    with ThreadPoolExecutor(len(names)) as pool:
        results = list(pool.map(run, names))
    done = subtasks(proxy, session)
    assert {done[name]["state"] for name in names} == {"completed"}
    assert [done[name]["result"] for name in names] == results
    assert len({done[name]["base_node"] for name in names}) == 1
    branches = proxy.get(f"/sessions/{session}/branches", key="sk-alice").json()["branches"]
    assert len(branches) == len(names)
    last = executor(alice, session, {"id": "merge", "depends_on": names})
    last.run("merge it")
    (note,) = notes(provider.requests[-1])
    assert all(note["content"].count(f"do {name}") == 1 for name in names)
    assert [message["role"] for message in provider.requests[-1].messages] == [
        *("system", "user", "assistant", "system", "user")
    ]


def test_a_dependency_that_is_not_there_is_counted_and_what_was_given_stays(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str
) -> None:
    planned(alice, session)
    counted = reasons(proxy, "dependency_missing")
    last = executor(alice, session, {"id": "report", "depends_on": ["boats", "trains", "unknown"]})
    last.messages.append({"role": "user", "content": 'call report {"n": 1}'})
    reply = last.ask()
    assert reasons(proxy, "dependency_missing") == counted + 1
    trains = executor(alice, session, {"id": "trains", "description": "find trains"})
    trains.run("trains")
    first = provider.sent()[-2]
    assert "find boats" in str(first) and "find trains" not in str(first)
    last.messages += [reply, {"role": "tool", "tool_call_id": reply["tool_calls"][0]["id"], "content": "ok"}]
    last.messages.append(last.ask())
    assert is_prefix(first, provider.sent()[-1])
    assert last.messages[-1]["content"]


def test_a_failed_request_sent_again_is_the_same(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, session: str
) -> None:
    planned(alice, session)
    last = executor(alice, session, {"id": "report", "depends_on": ["boats"]})
    last.messages = [{"role": "user", "content": "write it"}]
    provider.next(fail(500), fail(500))
    with pytest.raises(openai.InternalServerError):
        last.ask()
    last.ask()
    assert provider.sent()[-1] == provider.sent()[-2]


def test_beginning_a_finished_subtask_again_passes_and_changes_nothing(
    proxy: Proxy, alice: openai.OpenAI, session: str
) -> None:
    agent = planned(alice, session)
    before, counted = subtasks(proxy, session)["boats"], reasons(proxy, "subtask_refused")
    agent.run("once more")
    assert reasons(proxy, "subtask_refused") == counted + 1
    assert subtasks(proxy, session)["boats"] == before


def test_a_failed_subtask_is_tried_again_by_the_next_request_three_times_in_all(
    proxy: Proxy, alice: openai.OpenAI, session: str
) -> None:
    planned(alice, session)
    began = proxy.metric("proxy_plugin_subtasks_total", state="in_progress")
    for attempt in (1, 2, 3):
        agent = executor(alice, session, {"id": "flaky", "depends_on": ["boats"]})
        agent.messages.append({"role": "user", "content": f'call find {{"attempt": {attempt}}}'})
        agent.ask()
        failed = post(proxy, session, {"error_message": f"no {attempt}"}, "/flaky/fail").json()
        assert (failed["state"], failed["attempts"], failed["error_message"]) == ("failed", attempt, f"no {attempt}")
    assert proxy.metric("proxy_plugin_subtasks_total", state="in_progress") == began + 3
    counted = reasons(proxy, "subtask_refused")
    agent.ask()
    assert reasons(proxy, "subtask_refused") == counted + 1
    assert subtasks(proxy, session)["flaky"] == failed


def test_no_other_tenants_results_are_given(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, bob: openai.OpenAI, session: str
) -> None:
    planned(alice, session)
    theirs = executor(bob, session, {"id": "report", "depends_on": ["boats"]})
    theirs.run("what was found?")
    assert provider.sent()[-1] == [{"role": "user", "content": "what was found?"}]


def test_a_session_without_a_name_takes_what_the_client_sends(
    provider: FakeProvider, alice: openai.OpenAI, session: str
) -> None:
    agent = Agent(alice, messages=[SYSTEM])
    agent.run(f"{session}: plan")
    agent.extra_body = {"metadata": {"subtask": {"id": "one", "description": "the first"}}}
    agent.run('call find {"boat": 1}')
    agent.extra_body = {"metadata": {"subtask": {"id": "two", "depends_on": ["one"]}}}
    agent.run("go on")
    (note,) = notes(provider.requests[-1])
    assert "the first" in note["content"]
    assert len({headers["x-proxy-plugin-session"] for headers in agent.headers}) == 1


def test_the_agent_of_a_subtask_is_the_sessions_agent(proxy: Proxy, alice: openai.OpenAI, session: str) -> None:
    planned(alice, session)
    second = executor(alice, session, {"id": "two", "agent": "writer"})
    second.extra_body["metadata"]["agent_reason"] = "its turn"
    second.run("write")
    third = executor(alice, session, {"id": "three", "agent": "writer"})
    third.extra_body["metadata"]["agent"] = "lead"
    third.run("check")
    found = proxy.get(f"/agents/{session}/current", key="sk-alice").json()
    switches = [(one["from"], one["to"], one["reason"]) for one in found["agent_history"]]
    assert switches == [(None, "finder", None), ("finder", "writer", "its turn"), ("writer", "lead", None)]
    assert (found["current_agent"], found["switch_count"]) == ("lead", 3)
    assert subtasks(proxy, session)["three"]["agent"] == "writer"


def post(proxy: Proxy, session: str, body: Any, path: str = "") -> httpx.Response:
    headers = {"authorization": "Bearer sk-alice"}
    return httpx.post(f"{proxy.root}/api/v1/sessions/{session}/subtasks{path}", json=body, headers=headers, timeout=20)
