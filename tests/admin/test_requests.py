"""What came with a request and what was sent, on a real proxy: to the byte, in every wire form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import orjson
import pytest

from tests.admin.calls import call, told
from tests.agent import PLAN, TOOLS, Agent, rows
from tests.fake_provider import FakeProvider
from tests.gateway.test_endpoints import ENDPOINTS, Conversation
from tests.proxy import Proxy, eventually

LEAD = {"role": "system", "content": "You are a careful assistant of a shop; today is the first of May."}


def requests_of(proxy: Proxy, session: str, count: int) -> list[Any]:
    """All of them, oldest first."""

    def listed() -> Any:
        answer = call(proxy, "GET", f"/sessions/{session}/requests").json()
        return answer["requests"] if answer.get("total") == count else None

    return list(reversed(eventually(listed)))


def rebuilt(proxy: Proxy, session: str, n: int) -> Any:
    answer = call(proxy, "GET", f"/sessions/{session}/requests/{n}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def hold(proxy: Proxy, session: str, came: list[list[Any]], left: list[list[Any]]) -> list[Any]:
    """Every request of the session is rebuilt to the byte."""
    listed = requests_of(proxy, session, len(came))
    assert [one["n"] for one in listed] == list(range(1, len(came) + 1))
    for one, received, sent in zip(listed, came, left, strict=True):
        shown = rebuilt(proxy, session, one["n"])
        assert shown["exact"], shown["inexact_because"]
        assert orjson.dumps(shown["received"]) == orjson.dumps(received)
        assert without_nulls(shown["sent"]) == without_nulls(sent)
        assert one["bytes_before"] == len(orjson.dumps(received))
        assert one["bytes_after"] == len(orjson.dumps(shown["sent"]))
    return listed


def without_nulls(items: list[Any]) -> list[Any]:
    """LiteLLM leaves `"content": null` out on the way to the provider."""
    return [{key: value for key, value in item.items() if value is not None} for item in items]


class Recording(Agent):
    """Keeps what it sends."""

    def ask(self) -> dict[str, Any]:
        self.__dict__.setdefault("came", []).append(orjson.loads(orjson.dumps(self.messages)))
        return super().ask()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_a_chat(proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI, stream: bool, named: bool) -> None:
    headers = {"x-litellm-session-id": f"told-chat-{stream}"} if named else {}
    agent = Recording(alice, stream=stream, extra_headers=headers, messages=[dict(LEAD)])
    for number, task in enumerate(PLAN):
        agent.run(f"told {number} {stream} {named}\n\n{task}")
    session = agent.session
    listed = hold(proxy, session, agent.__dict__["came"], provider.sent())
    assert [one["subtasks_collapsed"] for one in listed] == [0, 0, 0, 1, 1, 2, 2]
    assert listed[3]["outcome"] == "rewritten" and listed[0]["outcome"] == "unchanged"
    last = rebuilt(proxy, session, 7)
    assert [edit["edits"] for edit in last["edits"]] == [["summary"], ["summary"]]
    for edit in last["edits"]:
        for node in edit["instead_of"]:
            assert call(proxy, "GET", f"/sessions/{session}/nodes/{node}").status_code == 200
    text = call(proxy, "GET", f"/sessions/{session}/requests/7", format="text").text
    assert "subtasks_collapsed 2" in text and "\n- " in text and "\n+ " in text


@pytest.fixture
def begin(proxy: Proxy, alice: openai.OpenAI) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=proxy.root, api_key="sk-alice", max_retries=0) as claude:
        yield lambda api, model, stream: ENDPOINTS[api](claude if api == "messages" else alice, model, stream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("api", "model"), [("messages", "claude"), ("responses", "gpt")])
def test_the_other_endpoints(
    proxy: Proxy, provider: FakeProvider, begin: Any, api: str, model: str, stream: bool, monkeypatch: Any
) -> None:
    agent: Conversation = begin(api, model, stream)
    came: list[Any] = []
    asked = type(agent).ask

    def ask(self: Any) -> Any:
        came.append(orjson.loads(orjson.dumps(self.wire)))
        return asked(self)

    monkeypatch.setattr(type(agent), "ask", ask)
    for number, task in enumerate(PLAN):
        agent.run(f"told {number} {api} {stream}\n\n{task}")
    listed = hold(proxy, agent.session, came, provider.sent(api))
    assert listed[-1]["subtasks_collapsed"] == 2 and listed[-1]["api"] == api


def test_a_repaired_request_in_audit_mode_and_in_force(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    """Ids used twice, a call that nothing answered, and a breakpoint that moves on between the requests."""

    def round_of(text: str) -> list[Any]:
        function = {"name": "find", "arguments": '{ "a":1}'}
        calling = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "x", "type": "function", "function": function}],
        }
        return [calling, {"role": "tool", "tool_call_id": "x", "content": rows("find", text)}]

    text = {"type": "text", "text": "a question that is long enough to be referred to"}
    question = {"role": "user", "content": [text]}
    marked = {"role": "user", "content": [{**text, "cache_control": {"type": "ephemeral"}}]}
    begun = [LEAD, marked, *round_of("1"), *round_of("2")[:1]]
    whole = [LEAD, question, *round_of("1"), *round_of("2")[:1], {"content": "go on", "role": "user"}]
    for mode, wire in (("on", begun), ("on", whole), ("audit", whole)):
        headers = {"x-litellm-session-id": "told-repaired", "x-proxy-plugin": mode}
        options: Any = {"messages": wire, "tools": TOOLS, "extra_headers": headers}
        try:
            alice.chat.completions.create(model="gpt", **options)
        except openai.BadRequestError:
            assert mode == "audit"
    sent = provider.sent()
    listed = requests_of(proxy, "told-repaired", 3)
    for one, wire, left in zip(listed, (begun, whole, whole), sent, strict=True):
        shown = rebuilt(proxy, "told-repaired", one["n"])
        assert shown["exact"] and orjson.dumps(shown["received"]) == orjson.dumps(wire)
        assert without_nulls(shown["sent"]) == without_nulls(left)
    assert listed[1]["repairs"]["results_added"] == 1 and listed[1]["repairs"]["ids_renamed"] == 1
    audited = rebuilt(proxy, "told-repaired", 3)
    assert (audited["outcome"], audited["mode"]) == ("audited", "audit")
    assert audited["sent"] == audited["received"] != audited["rewritten"]
    assert audited["rewritten"] == rebuilt(proxy, "told-repaired", 2)["sent"]


def test_a_subtask_with_dependencies_and_a_resumed_client(
    proxy: Proxy, provider: FakeProvider, alice: openai.OpenAI
) -> None:
    headers = {"x-litellm-session-id": "told-dependent"}
    agent = Agent(
        alice, extra_headers=headers, extra_body={"metadata": {"subtask": {"id": "one"}}}, messages=[dict(LEAD)]
    )
    agent.run(f"told dependent\n\n{PLAN[1]}")
    eventually(
        lambda: call(proxy, "GET", "/sessions/told-dependent/subtasks").json()["subtasks"][0]["state"] == "completed"
    )
    new = [{"role": "user", "content": "what came of it?"}]
    subtask = {"metadata": {"subtask": {"id": "two", "depends_on": ["one"]}}}
    options: Any = {"model": "gpt", "tools": TOOLS}
    alice.chat.completions.create(messages=new, extra_headers=headers, extra_body=subtask, **options)  # type: ignore[call-overload]
    requests_of(proxy, "told-dependent", 3)
    resumed = [{"role": "user", "content": "and now?"}]
    alice.chat.completions.create(
        messages=resumed, extra_headers={**headers, "x-proxy-plugin-resume": "head"}, **options
    )  # type: ignore[call-overload]
    requests_of(proxy, "told-dependent", 4)
    for n, wire in ((3, new), (4, resumed)):
        shown = rebuilt(proxy, "told-dependent", n)
        assert shown["exact"], shown["inexact_because"]
        assert shown["received"] == wire
        assert without_nulls(shown["sent"]) == without_nulls(provider.sent()[n - 1]) and len(shown["sent"]) > len(wire)


def test_pages_errors_and_walls(proxy: Proxy, alice: openai.OpenAI) -> None:
    told(proxy, alice, "told-paged", "one", "two", "three")
    requests_of(proxy, "told-paged", 3)
    first = call(proxy, "GET", "/sessions/told-paged/requests", limit=2).json()
    assert [one["n"] for one in first["requests"]] == [3, 2] and first["total"] == 3
    rest = call(proxy, "GET", "/sessions/told-paged/requests", limit=2, cursor=first["cursor"]).json()
    assert [one["n"] for one in rest["requests"]] == [1] and rest["cursor"] is None
    for n in ("0", "4", "x", "9" * 40):
        assert call(proxy, "GET", f"/sessions/told-paged/requests/{n}").status_code == 404
    assert call(proxy, "GET", "/sessions/told-paged/requests/1", format="html").status_code == 400
    assert call(proxy, "GET", "/sessions/told-paged/requests", cursor="x").status_code == 400
    for path in ("requests", "requests/1"):
        assert call(proxy, "GET", f"/sessions/told-paged/{path}", key="sk-bob").status_code == 404
        assert httpx.get(f"{proxy.root}/api/v1/sessions/told-paged/{path}", timeout=20).status_code == 401
