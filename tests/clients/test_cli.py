"""Coding agents as their users install them (make test-deps): Claude Code, Codex and opencode, unmodified, run
real shell commands in a folder of their own and are started anew for each subtask of one conversation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.clients.stage import Outcome, Play, Stage, Task, check, has_tools, require, run_process
from tests.fake_provider import FakeProvider, Reply, Request, ReusingModel
from tests.proxy import Proxy

Json = dict[str, Any]

BINARIES = Path(__file__).parent / "node" / "node_modules" / ".bin"

CODING_TASKS = (
    Task(
        'Count up.\n\ncall shell {"command": "seq 1 300 > count.txt; cat count.txt"}\n'
        'call shell {"command": "seq 500 600"}\n\ncall shell {"command": "tac count.txt | head"}',
        says="300",
    ),
    Task(
        'Count on.\n\ncall shell {"command": "seq 301 400 >> count.txt; cat count.txt"}\n\n'
        'call shell {"command": "tac count.txt | head"}',
        says="400",
    ),
    Task('The beginning again.\n\ncall shell {"command": "head count.txt"}', says="1\n2\n3"),
)
"""No word begins with a dash: opencode reads its message as words of the command line."""

COUNTED = "".join(f"{n}\n" for n in range(1, 401))


class Answered(threading.Event):
    """Set as soon as the agent has the final reply of a subtask."""

    def __init__(self, provider: FakeProvider) -> None:
        super().__init__()
        self.provider = provider

    def is_set(self) -> bool:
        ended = (r for r in self.provider.requests if has_tools(r) and r.reply and not r.reply.calls)
        return any(request.outcome == "answered" for request in ended)


class CodingModel(ReusingModel):
    """Plays `call shell {"command": …}` with the shell tool that the client offers. A request that offers none,
    such as for a title, gets a plain text, and as late as can be: behind the answer to the task itself."""

    def __init__(self, provider: FakeProvider) -> None:
        self.answered = Answered(provider)

    def __call__(self, request: Request) -> Reply:
        offered = {tool.get("name") or tool.get("function", {}).get("name") for tool in request.parsed.get("tools", [])}
        shell = next((name for name in ("Bash", "bash", "exec_command") if name in offered), None)
        if shell is None:
            return Reply(text="Counting", delay_event=self.answered)
        reply = super().__call__(request)
        calls = [(call_id, shell, _arguments(shell, json.loads(given)["command"])) for call_id, _, given in reply.calls]
        return replace(reply, calls=calls)


def _arguments(shell: str, command: str) -> str:
    if shell == "exec_command":
        return json.dumps({"cmd": command})
    return json.dumps({"command": command, "description": "Counts"})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Models by their real names, since clients go by them in what they send."""
    folder = tmp_path_factory.mktemp("agents")
    with FakeProvider() as provider:
        provider.brain = CodingModel(provider)
        models: dict[str, str | Json] = dict.fromkeys(("gpt-5.5", "gpt-4.1"), provider.base_url)
        for name in ("claude-sonnet-4-5", "claude-opus-4-8"):
            models[name] = {"model": f"anthropic/{name}", "api_base": provider.url, "api_key": "sk-upstream"}
        with Proxy(folder, models) as proxy:
            yield Stage(proxy, provider, folder)


@dataclass(frozen=True)
class Said:
    """What a program told about one conversation. `session`: the id it goes by."""

    session: str
    texts: Sequence[str]
    ids: Sequence[str]
    runs: int


class ClaudeCode:
    """`titles`: requests beside the conversation, under its session id. `allowed`: what the provider lets this
    model do; for the newer ones system messages in the conversation, which Claude Code sends to those that it
    knows to take them."""

    name, api, titles = "claude", "messages", 0

    def __init__(self, model: str, allowed: Sequence[str] = ()) -> None:
        self.model, self.allowed = model, allowed

    def prepare(self, stage: Stage, home: Path) -> Json:
        """Writes the settings that a user would; gives the environment."""
        return {
            "ANTHROPIC_BASE_URL": stage.proxy.root,
            "ANTHROPIC_AUTH_TOKEN": stage.proxy.key,
            "CLAUDE_CONFIG_DIR": str(home / ".claude"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }

    def arguments(self, text: str, later: bool) -> list[str]:
        options = ["--model", self.model, "--output-format", "stream-json", "--verbose", "--allowedTools", "Bash"]
        return ["-p", text, *(["--continue"] if later else []), *options]

    def read(self, events: Sequence[Json], home: Path) -> Said:
        results = [event for event in events if event["type"] == "result"]
        (session,) = {event["session_id"] for event in results}
        blocks = [
            block
            for event in events
            if event["type"] in ("assistant", "user")
            for block in event["message"]["content"]
            if isinstance(block, dict)
        ]
        ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
        runs = [block for block in blocks if block["type"] == "tool_result" and not block.get("is_error")]
        return Said(session, [event["result"] for event in results], ids, len(runs))


class Codex:
    name, api, model, titles = "codex", "responses", "gpt-5.5", 0
    allowed: Sequence[str] = ()

    def prepare(self, stage: Stage, home: Path) -> Json:
        (home / ".codex").mkdir()
        (home / ".codex" / "config.toml").write_text(f"""
model = "{self.model}"
model_provider = "litellm"
sandbox_mode = "workspace-write"

[model_providers.litellm]
name = "LiteLLM"
base_url = "{stage.proxy.base_url}"
env_key = "LITELLM_API_KEY"
wire_api = "responses"
""")
        return {"CODEX_HOME": str(home / ".codex"), "LITELLM_API_KEY": stage.proxy.key}

    def arguments(self, text: str, later: bool) -> list[str]:
        return ["exec", *(["resume", "--last"] if later else []), "--json", "--skip-git-repo-check", text]

    def read(self, events: Sequence[Json], home: Path) -> Said:
        (session,) = {event["thread_id"] for event in events if event["type"] == "thread.started"}
        items = [event["item"] for event in events if event["type"] == "item.completed"]
        texts = [item["text"] for item in items if item["type"] == "agent_message"]
        runs = [item for item in items if item["type"] == "command_execution" and item["exit_code"] == 0]
        (record,) = (home / ".codex" / "sessions").rglob("*.jsonl")
        kept = [json.loads(line)["payload"] for line in record.read_text().splitlines()]
        ids = [item["call_id"] for item in kept if item.get("type") == "function_call"]
        return Said(session, texts, ids, len(runs))


class OpenCode:
    name, api, model, titles = "opencode", "chat", "gpt-4.1", 1
    allowed: Sequence[str] = ()

    def prepare(self, stage: Stage, home: Path) -> Json:
        options = {"baseURL": stage.proxy.base_url, "apiKey": "{env:LITELLM_API_KEY}"}
        provider = {"npm": "@ai-sdk/openai-compatible", "name": "LiteLLM", "options": options}
        config = {
            "model": f"litellm/{self.model}",
            "small_model": f"litellm/{self.model}",
            "provider": {"litellm": {**provider, "models": {self.model: {"name": self.model}}}},
            "permission": {"bash": "allow"},
            "autoupdate": False,
            "share": "disabled",
        }
        (home / "opencode.json").write_text(json.dumps(config))
        folders = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
        file = {"OPENCODE_CONFIG": str(home / "opencode.json"), "OPENCODE_DISABLE_MODELS_FETCH": "1"}
        return {**folders, **file, "LITELLM_API_KEY": stage.proxy.key}

    def arguments(self, text: str, later: bool) -> list[str]:
        """A word that holds a space would be quoted in the message."""
        return ["run", "--format", "json", *(["--continue"] if later else []), *text.split(" ")]

    def read(self, events: Sequence[Json], home: Path) -> Said:
        (session,) = {event["sessionID"] for event in events}
        parts = sorted((event["part"] for event in events), key=lambda part: str(part["id"]))  # in order of time
        calls = [part for part in parts if part["type"] == "tool"]
        runs = [call for call in calls if call["state"]["status"] == "completed"]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        return Said(session, texts, [call["callID"] for call in calls], len(runs))


Program = ClaudeCode | Codex | OpenCode

CLOSED_NETWORK = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}
"""For clients that would also ask after updates and models: the discard port refuses every connection."""


def converse(program: Program, play: Play) -> tuple[Outcome, Said]:
    """Starts the program once for each subtask, in one folder; it ran the tools if the file is what they make."""
    binary = require(BINARIES / program.name)
    home = Path(play.environ["HOME"])
    work = home / "work"
    work.mkdir()
    environ = play.environ | CLOSED_NETWORK | {"PWD": str(work)} | program.prepare(play.stage, home)
    events: list[Json] = []
    for number, task in enumerate(play.tasks):
        done = run_process([binary, *program.arguments(task.text, number > 0)], environ, cwd=work)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        events += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    said = program.read(events, home)
    assert (work / "count.txt").read_text() == COUNTED
    return Outcome(0, said.texts, said.ids, said.runs), said


PROGRAMS = (ClaudeCode("claude-sonnet-4-5"), ClaudeCode("claude-opus-4-8", ("system",)), Codex(), OpenCode())

TOLERATED = {"cache-control", "system-place"}
"""What the stored list of Claude Code may hold: a breakpoint on each message that was once the last, and system
messages where the model takes them."""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.name}-{program.model}")
def test_a_coding_agent_keeps_its_session_over_restarts(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    monkeypatch.setattr(stage.provider, "allowed", program.allowed)
    play = stage.play(f"{program.name}-{program.model}", api=program.api, tasks=CODING_TASKS)
    outcome, said = converse(program, play)
    check(play, outcome, session=said.session, tolerated=TOLERATED if program.api == "messages" else ())
    side = [request.outcome for request in stage.provider.requests if request.api and not has_tools(request)]
    assert side == ["answered"] * program.titles
