"""`proxy-plugin replay` over recordings of each form, figures counted by hand; in a process of its own where that is
what matters."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest

from proxy_plugin import rewrite_history
from proxy_plugin.cli import main
from tests.binaries import require_package
from tests.replay import recordings as made

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "proxy_plugin.cli", "replay"]
FORMS: dict[str, Callable[[], list[Any]]] = {
    "chat": lambda: [{"id": "session", "messages": made.chat()}],
    "messages": lambda: [{"id": "session", "messages": made.messages()}],
    "responses": lambda: [{"id": "session", "input": made.responses()}],
    "bare": lambda: [made.chat()],
    "litellm": lambda: made.payloads(made.chat(), trace_id="session"),
    "claude_code": lambda: made.claude_code(made.messages()),
    "codex": lambda: made.codex(made.responses()),
}
_NO_NETWORK = """\
import os, socket
def refuse(self, address, *rest):
    open(os.environ["DIALLED"], "a").write(f"{address}\\n")
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = refuse
def resolve(*address, **rest):
    open(os.environ["DIALLED"], "a").write(f"{address}\\n")
    raise OSError("no network here")
socket.getaddrinfo = resolve
"""
_LOGGING = """\
import asyncio, json, sys
import litellm
from litellm.integrations.custom_logger import CustomLogger

logged = asyncio.Semaphore(0)

class Log(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        with open(sys.argv[1], "a") as file:
            file.write(json.dumps(kwargs["standard_logging_object"], default=str) + "\\n")
        logged.release()

async def main():
    litellm.callbacks = [Log()]
    messages = [{"role": "user", "content": "Hello"}]
    for text in ("Hi", "Bye"):
        await litellm.acompletion("openai/gpt-4o", messages, mock_response=text, api_key="none")
        await asyncio.wait_for(logged.acquire(), 20)
        messages = [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": "And?"}]

asyncio.run(main())
"""


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder in front of all packages, with a network that notes what is dialled and refuses."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_NO_NETWORK, encoding="utf-8")
    return folder


@pytest.fixture
def environment(tmp_path: Path, stubs: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{stubs}{os.pathsep}{ROOT}",
        "PYTHONUTF8": "1",
        "COLUMNS": "80",
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "PROXY_PLUGIN_COLLAPSE__POLICY": "never",  # a setting of the user's that must not count without --settings
        "DIALLED": str(tmp_path / "dialled"),
    }


@pytest.fixture
def replay_alone(environment: dict[str, str], tmp_path: Path) -> Any:
    """The command in a process of its own."""

    def run(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert done.returncode == code, done.stderr
        assert not (tmp_path / "dialled").exists(), (tmp_path / "dialled").read_text()
        return done

    return run


@pytest.fixture
def replay(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """The same in this one, which has its modules and the tokenizer already."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
        with ExitStack() as changed:
            changed.enter_context(mock.patch.dict(os.environ, environment, clear=True))
            dialled = [
                changed.enter_context(mock.patch.object(*place, side_effect=OSError("no network here")))
                for place in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo"))
            ]
            try:
                returned = main(["replay", *map(str, arguments)])
            except SystemExit as exit:
                returned = int(exit.code or 0)
        out, err = capsys.readouterr()
        assert returned == code, err
        assert not any(way.called for way in dialled)
        return subprocess.CompletedProcess(arguments, returned, out, err)

    return run


def figures(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return dict(json.loads(done.stdout)["total"])


@pytest.mark.parametrize("form", FORMS)
def test_the_same_plan_gives_the_same_figures_in_every_form(form: str, tmp_path: Path, replay: Any) -> None:
    found = figures(replay(made.write(tmp_path / "some.jsonl", FORMS[form]()), "--json"))
    assert found["conversations"] == 1
    assert found["requests"] == made.REQUESTS
    assert found["invalid_before"] == made.REFUSED
    assert found["invalid_after"] == 0
    assert found["faults_before"] == {"reused_id": 1}
    assert found["prefix_breaks_before"] == 0
    assert found["prefix_breaks"] == found["prefix_breaks_by_collapse"] == made.BREAKS
    assert found["subtasks_collapsed"] == found["tool_messages_cleared"] == made.COLLAPSED
    assert {kind: count for kind, count in found["repairs"].items() if count} == {"ids_renamed": 1}
    # "Ada Lovelace" stands in what the user asked, the customer's number in the collapsed result alone.
    assert (found["values_used"], found["values_kept"]) == (2, 2)
    assert (found["values_collapsed"], found["values_collapsed_kept"]) == (1, 1)
    assert 0 < found["tokens_after"] < found["tokens_before"]
    assert found["broken_lines"] == 0


def test_bytes_and_counts_are_those_of_the_reports(tmp_path: Path, replay: Any) -> None:
    """Summed request by request without a memo, as the proxy's metrics count them."""
    wire = made.chat()
    reports = [rewrite_history(wire[:end]).report for end in (1, 3, 5, 7)]
    found = figures(replay(made.write(tmp_path / "some.jsonl", [wire]), "--json"))
    assert found["bytes_before"] == sum(len(orjson.dumps(wire[:end])) for end in (1, 3, 5, 7))
    assert found["bytes_after"] == sum(report.bytes_after for report in reports)
    assert found["subtasks_collapsed"] == sum(report.subtasks_collapsed for report in reports)
    assert found["repairs"]["ids_renamed"] == sum(report.ids_renamed for report in reports)


def test_a_cache_pays_for_what_a_request_adds(tmp_path: Path, replay: Any) -> None:
    """Each request begins with the one before it: the tokens of all but the last are read again once."""
    lengths = (2, 4, 6, 8)  # messages up to and including an answer: one more request each
    totals = [0]
    for length in lengths:
        path = made.write(tmp_path / f"{length}.jsonl", [made.chat("call_2")[:length]])
        totals.append(figures(replay(path, "--json"))["tokens_before"])
    requests = [later - earlier for earlier, later in pairwise(totals)]
    found = figures(replay(path, "--json", "--price-write", "1.25"))
    again = sum(requests[:-1])
    assert found["cached_tokens_before"] == again
    assert found["cached_cost_before"] == pytest.approx(0.1 * again + 1.25 * (sum(requests) - again), abs=0.1)
    without = figures(replay(path, "--json", "--price-cached", "1", "--price-write", "1"))
    assert without["cached_cost_after"] == without["tokens_after"]


def test_policy_never_repairs_and_no_more(tmp_path: Path, replay: Any) -> None:
    path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
    settings = tmp_path / "plugin.yaml"
    settings.write_text("collapse: {policy: never}\n", encoding="utf-8")
    for options in (["--policy", "never"], ["--settings", settings]):
        found = figures(replay(path, "--json", *options))
        assert found["subtasks_collapsed"] == found["prefix_breaks"] == 0
        assert (found["invalid_before"], found["invalid_after"]) == (made.REFUSED, 0)
        assert found["tokens_after"] == found["tokens_before"]


def test_the_shape_of_the_json(tmp_path: Path, replay_alone: Any) -> None:
    made.write(tmp_path / "in" / "one.jsonl", FORMS["chat"]())
    made.write(tmp_path / "in" / "deep" / "two.jsonl", [*FORMS["responses"](), *FORMS["chat"]()])
    body = json.loads(replay_alone(tmp_path / "in", "--json").stdout)
    assert [(Path(entry["file"]).name, entry["conversations"]) for entry in body["files"]] == [
        ("two.jsonl", 2),
        ("one.jsonl", 1),
    ]
    keys = {"conversations", "requests", "tokens_before", "tokens_after", "cached_cost_before", "cached_cost_after"}
    keys |= {"prefix_breaks", "invalid_before", "invalid_after"}
    for key in keys:
        assert body["total"][key] == pytest.approx(sum(entry[key] for entry in body["files"]), abs=0.2), key
    assert body["tokenizer"] == {"name": "o200k_base", "exact": True}


def test_without_a_tokenizer_the_tokens_are_estimated_and_it_says_so(
    tmp_path: Path, stubs: Path, replay_alone: Any
) -> None:
    (stubs / "tiktoken.py").write_text("raise ImportError('none here')", encoding="utf-8")
    path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
    body = json.loads(replay_alone(path, "--json").stdout)
    assert body["tokenizer"]["exact"] is False
    assert body["total"]["tokens_before"] > body["total"]["tokens_after"] > 0
    assert "estimated" in replay_alone(path).stdout


def test_prices_of_a_model(tmp_path: Path, replay: Any) -> None:
    path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
    body = json.loads(replay(path, "--json", "--model", "gpt-4o").stdout)
    prices, total = body["prices"], body["total"]
    assert (prices["cached"], prices["write"]) == (0.5, 1.0)
    assert total["dollars_before"] == pytest.approx(total["cached_cost_before"] * prices["dollars"], abs=1e-5)
    unknown = replay(path, "--model", "no-such-model", code=2)
    assert unknown.stderr.count("\n") == 1
    assert "no-such-model" in unknown.stderr


def test_the_table(tmp_path: Path, replay_alone: Any) -> None:
    paths = [made.write(tmp_path / f"{name}.jsonl", FORMS[name]()) for name in ("chat", "messages")]
    done = replay_alone(*paths)
    head, _, first, second, total, *rest = done.stdout.splitlines()
    assert head.split() == ["file", "convs", "requests", "tokens", "saved", "cost", "breaks", "refused"]
    assert [line.split()[:3] for line in (first, second, total)] == [
        ["chat", "1", "4"],
        ["messages", "1", "4"],
        ["total", "2", "8"],
    ]
    assert re.search(r"0 → 2 +2 → 0$", total)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "would refuse 0 of them instead of 2" in " ".join(rest)
    assert done.stderr == ""


def test_a_broken_line_is_named_and_the_rest_is_done(tmp_path: Path, replay: Any) -> None:
    lines = ["{no json", *FORMS["chat"](), {"neither": "nor"}, {"messages": ["text"]}, {"type": "strange"}, ""]
    path = made.write(tmp_path / "some.jsonl", lines)
    done = replay(path, "--json", code=1)
    assert [line.split(": ")[0] for line in sorted(done.stderr.splitlines())] == [f"{path}:{n}" for n in (1, 3, 4, 5)]
    assert (figures(done)["requests"], figures(done)["broken_lines"]) == (made.REQUESTS, 4)


def test_many_broken_lines_are_not_all_named(tmp_path: Path, replay: Any) -> None:
    done = replay(made.write(tmp_path / "some.jsonl", ["{"] * 1_000), "--json", code=1)
    assert len(done.stderr.splitlines()) == 21
    assert "980 more" in done.stderr.splitlines()[-1]


def test_a_logged_request_without_its_messages_is_named(tmp_path: Path, replay: Any) -> None:
    line = {**made.payloads(made.chat())[0], "messages": "redacted-by-litellm"}
    done = replay(made.write(tmp_path / "log.jsonl", [line]), code=1)
    assert "log.jsonl:1: the request's messages were not logged" in done.stderr


def test_what_litellm_really_logs(environment: dict[str, str], tmp_path: Path, replay: Any) -> None:
    """Two requests of a conversation without a session, through LiteLLM's own callback."""
    script = tmp_path / "log.py"
    script.write_text(_LOGGING, encoding="utf-8")
    path = tmp_path / "log.jsonl"
    local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    subprocess.run([sys.executable, script, path], env=environment | local, check=True, timeout=60)
    assert len(path.read_text().splitlines()) == 2
    found = figures(replay(path, "--json"))
    assert (found["conversations"], found["requests"]) == (1, 2)


@pytest.mark.parametrize("name", ["missing.jsonl", "empty-folder"])
def test_what_cannot_be_read_is_one_line(name: str, tmp_path: Path, replay: Any) -> None:
    (tmp_path / "empty-folder").mkdir()
    done = replay(tmp_path / name, code=1)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert name in done.stderr
    good = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
    both = replay(tmp_path / name, good, "--json", code=1)
    assert both.stderr == done.stderr
    assert figures(both)["requests"] == made.REQUESTS


@pytest.mark.parametrize(
    "option",
    [["--policy", "sometimes"], ["--limit", "0"], ["--price-write", "nan"], ["--price-cached", "-1"]],
)
def test_wrong_usage(option: list[str], tmp_path: Path, replay: Any) -> None:
    path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
    assert option[0] in replay(path, *option, code=2).stderr


def test_settings_that_cannot_be_used_are_one_line(tmp_path: Path, replay: Any) -> None:
    path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
    (tmp_path / "plugin.yaml").write_text("colapse: {}\n", encoding="utf-8")
    done = replay(path, "--settings", tmp_path / "plugin.yaml", code=2)
    assert done.stderr.count("\n") == 1
    assert "colapse" in done.stderr


def test_limit_counts_conversations_of_each_file(tmp_path: Path, replay: Any) -> None:
    paths = [made.write(tmp_path / f"{name}.jsonl", FORMS["chat"]() * 3) for name in "ab"]
    found = figures(replay(*paths, "--json", "--limit", "2"))
    assert (found["conversations"], found["requests"]) == (4, 4 * made.REQUESTS)


class TestShow:
    def test_a_request_as_a_diff(self, tmp_path: Path, replay: Any) -> None:
        path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
        shown = replay(path, "--show", "session:3").stdout.splitlines()
        assert shown[:2] == ["--- session request 3, received", "+++ session request 3, sent"]
        gone = "\n".join(line for line in shown if line.startswith("-"))
        new = "\n".join(line for line in shown if line.startswith("+"))
        assert "role: tool" in gone
        assert made.CUSTOMER in gone
        assert "role: system" in new
        assert made.CUSTOMER in new
        assert not any("Who is Ada Lovelace?" in line for line in shown if line[0] in "+-")

    def test_the_last_one_by_default_and_ids_with_colons(self, tmp_path: Path, replay: Any) -> None:
        path = made.write(tmp_path / "some.jsonl", [{"id": "agent:7", "messages": made.chat()}])
        assert "--- agent:7 request 4, received" in replay(path, "--show", "agent:7").stdout
        assert replay(path, "--show", "agent:7:1").stdout == "agent:7 request 1 is sent as it came.\n"

    def test_what_is_not_there_is_one_line(self, tmp_path: Path, replay: Any) -> None:
        path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
        for wanted, said in (("nobody", "session"), ("session:9", "has 4 requests"), ("session:0", "has 4 requests")):
            done = replay(path, "--show", wanted, code=1)
            assert done.stdout == ""
            assert done.stderr.count("\n") == 1
            assert said in done.stderr


class TestPlot:
    def test_writes_a_picture(self, tmp_path: Path, replay: Any) -> None:
        require_package("matplotlib")
        path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
        replay(path, "--plot", tmp_path / "out.png")
        picture = (tmp_path / "out.png").read_bytes()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(picture[16:20], "big") >= 800  # columns
        done = replay(path, "--plot", tmp_path / "no-folder" / "out.png", code=1)
        assert done.stderr.count("\n") == 1
        assert "no-folder" in done.stderr

    def test_without_the_extra_it_says_what_to_install(self, tmp_path: Path, stubs: Path, replay_alone: Any) -> None:
        (stubs / "matplotlib.py").write_text("raise ImportError('none here')", encoding="utf-8")
        path = made.write(tmp_path / "some.jsonl", FORMS["chat"]())
        done = replay_alone(path, "--plot", tmp_path / "out.png", code=2)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "pip install 'litellm-session-plugin[plot]'" in done.stderr


def test_a_terminal_sees_progress_and_whole_lines(environment: dict[str, str], tmp_path: Path) -> None:
    path = made.write(tmp_path / "some.jsonl", ["{no json", *FORMS["chat"]()])
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        done = subprocess.run(
            [*COMMAND, str(path), "--json"],
            env={**environment, "TERM": "xterm", "COLUMNS": "40"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=60,
        )
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = screen.read(65_536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            seen += part
    assert done.returncode == 1
    assert b"replaying" in seen
    assert f"{path}:1: ".encode() in seen
    assert json.loads(done.stdout)["total"]["requests"] == made.REQUESTS


def test_memory_holds_a_conversation_and_not_the_file(environment: dict[str, str], tmp_path: Path) -> None:
    """45 MB of conversations in a process that may not grow by as much."""
    big = made.chat()
    big[2] = made.result("call_1", json.dumps({"customer": made.CUSTOMER, "text": "word " * 20_000}))
    line = json.dumps({"id": "session", "messages": big})
    path = tmp_path / "big.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(45_000_000 // len(line)):
            file.write(line + "\n")
    code = (
        "import resource, sys\n"
        "from proxy_plugin.cli import main\n"
        f"main(['replay', {str(path)!r}, '--json', '--limit', '5'])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"main(['replay', {str(path)!r}, '--json'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    grown = int(done.stderr.split()[-1])  # kilobytes; bytes on macOS
    assert grown / (1_000 if sys.platform == "darwin" else 1) < 25_000
