"""Unmodified client libraries and programs against a real proxy: one stage for all of them.

    def test_it(stage: Stage) -> None:                       # the fixture stands in conftest.py
        play = stage.play("openai-node", api="chat")
        outcome = run_client(["node", "openai.mjs"], play.environ)
        check(play, outcome)

A client is a program of its own. `play.environ` gives it

    BASE_URL  of the proxy, as clients of this api want it: with /v1, for "messages" without
    API_KEY, MODEL
    API       "chat" | "messages" | "responses"
    STREAM    "1" or ""
    TASKS     JSON list of strings: the user messages of one conversation, one after another
    SESSION   how the client shall name the conversation, in the header x-litellm-session-id; "": not at all
    HOME      an empty folder

It asks each task in the same conversation, runs the tools that the model calls (of the name and arguments
that the task says; see `TASKS`), and prints as its last line

    {"texts": [final text of each task], "ids": [each tool call's id as it saw them], "runs": tools it ran}

The model is `fake_provider.ReusingModel`: it plays the calls written into the task, with the same ids in
every turn, and then says what the last result begins with.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.binaries import missing
from tests.fake_provider import FakeProvider, Request, rounds_in, spoken
from tests.proxy import Proxy, eventually
from tests.validators import judge

Json = dict[str, Any]

MODELS = {"chat": "gpt", "responses": "gpt", "messages": "claude"}
"""The model to ask on each endpoint: an OpenAI and an Anthropic deployment."""


@dataclass(frozen=True)
class Task:
    """One subtask. `says`: what the final answer must hold, which only the tool's own work gives."""

    text: str
    says: str

    @property
    def rounds(self) -> list[list[tuple[str, str]]]:
        """Parallel calls of each round, as (name, arguments)."""
        return rounds_in(self.text)

    @property
    def calls(self) -> int:
        return sum(map(len, self.rounds))


TASKS = (
    Task(
        'Letters, then sums.\n\ncall count_letters {"text": "strawberry"}\ncall sum_to {"n": 100}\n\n'
        'call factorial {"n": 6}',
        says="720",
    ),
    Task('Now a longer sum.\n\ncall sum_to {"n": 200}', says="20100"),
    Task('And one more product.\n\ncall factorial {"n": 7}', says="5040"),
)
"""For clients whose tools are functions. Each tool gives JSON, first {"tool": name, "result": number}, then
`lines`, a list of eight {"line", "status", "note"} with a note of some sixty characters, so that a summary saves."""


@dataclass(frozen=True)
class Outcome:
    """How a client ended. `output`: all it printed, for messages."""

    code: int
    texts: Sequence[str] = ()
    ids: Sequence[str] = ()
    runs: int = 0
    output: str = ""


@dataclass
class Play:
    """One conversation of one client. `before`: sessions that there were already."""

    stage: Stage
    api: str
    tasks: Sequence[Task]
    environ: dict[str, str]
    before: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Stage:
    """The proxy, the provider behind it, and a folder for what clients write."""

    proxy: Proxy
    provider: FakeProvider
    folder: Path

    def play(self, name: str, *, api: str, stream: bool = False, tasks: Sequence[Task] = TASKS) -> Play:
        """Begins a conversation of its own: `name` opens it, and is new for every play of a stage."""
        first, *others = tasks
        tasks = [Task(f"This is {name}. {first.text}", first.says), *others]
        home = self.folder / name
        home.mkdir()
        environ = {
            "BASE_URL": self.proxy.root if api == "messages" else self.proxy.base_url,
            "API_KEY": self.proxy.key,
            "MODEL": MODELS[api],
            "API": api,
            "STREAM": "1" if stream else "",
            "SESSION": "",
            "TASKS": json.dumps([task.text for task in tasks]),
            "HOME": str(home),
        }
        self.provider.requests.clear()
        return Play(self, api, tasks, environ, frozenset(self.sessions()))

    def sessions(self) -> dict[str, Json]:
        """What the proxy lists, by session id."""
        listed = self.proxy.get("/sessions", limit=500).json()["sessions"]
        return {session["session_id"]: session for session in listed}

    def history(self, session_id: str, api: str) -> Json:
        """The stored conversation, in the wire form of an api."""
        answer: Json = self.proxy.get(f"/sessions/{session_id}/history", format=api).json()
        return answer


@contextlib.contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """Starts a strict provider and a proxy in front of it."""
    with FakeProvider() as provider:
        models: dict[str, str | Json] = {
            "gpt": provider.base_url,
            "claude": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"},
        }
        with Proxy(folder, models) as proxy:
            yield Stage(proxy, provider, folder)


def require(path: Path) -> Path:
    """A file that `make test-deps` made."""
    return path if path.exists() else missing(f"{path.name} is not installed; run: make test-deps")


def run_process(
    argv: Sequence[str | Path], environ: Mapping[str, str], timeout: float = 60, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, with nothing of this process's own keys, addresses and proxies in its
    environment; when the time is over it ends the program and all that it started."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "ANTHROPIC_", "LITELLM_", "PYTEST_", "PYTHON", "VIRTUAL_ENV"))
        and not name.lower().endswith("_proxy")
    }
    process = subprocess.Popen(
        [str(part) for part in argv],
        env=kept | dict(environ),
        cwd=cwd or environ["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{argv[0]} did not end within {timeout} s:\n{out[-2000:]}\n{err[-2000:]}")
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


def run_client(
    argv: Sequence[str | Path], environ: Mapping[str, str], timeout: float = 60, cwd: Path | None = None
) -> Outcome:
    """Runs a client that prints its summary as its last line."""
    done = run_process(argv, environ, timeout, cwd)
    output = f"{done.stdout}\n{done.stderr}"
    if done.returncode != 0:
        return Outcome(done.returncode, output=output)
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    return Outcome(0, summary["texts"], summary["ids"], summary["runs"], output)


def has_tools(request: Request) -> bool:
    """Of the conversation itself: side requests (titles, token counts) come without tools."""
    return bool(request.api and request.parsed.get("tools"))


def check(
    play: Play,
    outcome: Outcome,
    *,
    session: str | None = None,
    main: Callable[[Request], bool] = has_tools,
    tolerated: Collection[str] = (),
) -> str:
    """All that holds for every client; gives the session's id.

    session    the id it must have, for a client that says which conversation it is in
    main       which of the provider's requests are of the conversation itself
    tolerated  rules of `validators` that the stored history may break, because the client's own list does
    """
    assert outcome.code == 0, outcome.output[-4000:]
    assert play.stage.provider.refused() == []
    requests = [request for request in play.stage.provider.requests if main(request)]
    subtasks = _subtasks(requests)
    _check_client(play, outcome, subtasks)
    _check_provider(play, subtasks)
    results = [part.text for requests in subtasks for part in spoken(requests[-1]) if part.kind == "result"]
    session_id = _check_session(play, outcome, results)
    assert session in (None, session_id)
    history = play.stage.history(session_id, play.api)["messages"]
    faults = judge(history, "anthropic" if play.api == "messages" else "openai", play.api, strict=True)
    assert [str(fault) for fault in faults if fault.rule not in tolerated] == []
    if requests == play.stage.provider.requests:  # side requests may open branches of their own
        assert play.stage.sessions()[session_id]["branches"] == 1
    return session_id


def _subtasks(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests of each subtask: one ends with a reply that calls nothing."""
    subtasks: list[list[Request]] = [[]]
    for request in requests:
        subtasks[-1].append(request)
        assert request.reply is not None, f"request {request.number}: {request.outcome}"
        if not request.reply.calls:
            subtasks.append([])
    assert subtasks.pop() == []
    return subtasks


def _check_client(play: Play, outcome: Outcome, subtasks: list[list[Request]]) -> None:
    calls = sum(task.calls for task in play.tasks)
    assert outcome.runs == calls
    assert len(outcome.ids) == calls
    assert len(set(outcome.ids)) == calls, "an id twice"
    said = [requests[-1].reply.text for requests in subtasks if requests[-1].reply]
    assert [text.strip() for text in outcome.texts] == [text.strip() for text in said]
    for task, text in zip(play.tasks, outcome.texts, strict=True):
        assert text.startswith(f"Done after {task.calls} results") and task.says in text


def _check_provider(play: Play, subtasks: list[list[Request]]) -> None:
    assert [len(requests) for requests in subtasks] == [len(task.rounds) + 1 for task in play.tasks]
    for requests in subtasks:
        for left, right in pairwise(requests):
            before, after = _plain(left.messages), _plain(right.messages)
            assert after[: len(before)] == before, f"request {right.number} does not begin with {left.number}"
    for number, requests in enumerate(subtasks):
        opening = requests[0]
        parts = spoken(opening)
        assert not [part for part in parts if part.kind in ("call", "result")], "not collapsed"
        assert json.dumps(opening.messages).count("[Tool calls; full output kept: ") == number
        answers = [part.text for part in parts if part.kind == "assistant"]
        assert len(answers) == number
        for task, text in zip(play.tasks, answers, strict=False):
            assert task.says in text


def _check_session(play: Play, outcome: Outcome, results: list[str]) -> str:
    """The conversation is one session, and its history is all that was said, with the ids the client saw."""
    stage = play.stage
    new = eventually(lambda: stage.sessions().keys() - play.before)
    assert len(new) == 1, "more than one session"
    (session_id,) = new
    history = eventually(lambda: _ended(stage.history(session_id, play.api)["messages"], play.api, outcome.texts[-1]))
    kinds: list[str] = []
    for task in play.tasks:
        kinds += ["user", *(kind for calls in task.rounds for kind in _round(len(calls))), "assistant"]
    parts = _talk(history, play.api)
    assert [kind for kind, _ in parts] == kinds
    assert [text for kind, text in parts if kind == "result"] == results
    assert [text.strip() for kind, text in parts if kind == "assistant"] == [text.strip() for text in outcome.texts]
    assert _call_ids(history, play.api) == list(outcome.ids)
    assert len(stage.sessions().keys() - play.before) == 1, "more than one session"
    return str(session_id)


def _round(calls: int) -> list[str]:
    return ["call"] * calls + ["result"] * calls


def _ended(history: list[Json], api: str, text: str) -> list[Json] | None:
    """The history, once the final reply stands at its end."""
    said = _talk(history, api)
    kind, last = said[-1] if said else ("", "")
    return history if kind == "assistant" and last.strip() == text.strip() else None


def _talk(history: list[Json], api: str) -> list[tuple[str, str]]:
    """(kind, text) of a wire list of any form; of the user's words only those that are a task, since some
    clients say more in the user's name."""
    request = Request("", {}, b"", {}, api, 0, "openai", history=history)
    return [(part.kind, part.text) for part in spoken(request) if part.kind != "user" or rounds_in(part.text)]


def _call_ids(history: list[Json], api: str) -> list[str]:
    if api == "responses":
        return [item["call_id"] for item in history if item.get("type") == "function_call"]
    if api == "messages":
        blocks = [block for message in history if isinstance(message["content"], list) for block in message["content"]]
        return [block["id"] for block in blocks if block["type"] == "tool_use"]
    return [call["id"] for message in history for call in message.get("tool_calls") or ()]


def _plain(value: Any) -> Any:
    """Without cache breakpoints, which clients move from request to request, and without the list that Claude Code
    makes of a text to hold one."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "cache_control"}
    if not isinstance(value, list):
        return value
    match [_plain(item) for item in value]:
        case [{"type": "text", "text": text, **rest}] if not rest:
            return text
        case items:
            return items
