"""`proxy-plugin sessions` on a store that nobody runs: what it prints, changes and returns."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import yaml

from proxy_plugin.events import ignore
from proxy_plugin.gateway.pipeline import Incoming, Pipeline
from proxy_plugin.history.dialects import dialect_of
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Deadlines, Settings, Store
from tests.agent import rows
from tests.sessions.spoken import assistant, calling, result, user
from tests.shell.conftest import ALICE, BOB, Sessions


def answer(sessions: Sessions, *arguments: str, **how: Any) -> Any:
    done = sessions(*arguments, "--json", **how)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_sessions_are_listed_and_shown(sessions: Sessions) -> None:
    listed = sessions("list")
    assert listed.returncode == 0 and listed.stdout.splitlines()[0].split()[0] == "SESSION"
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["both", "both", "trip"]
    assert [s["session_id"] for s in answer(sessions, "list", "--tenant", BOB)["sessions"]] == ["both"]
    assert [s["session_id"] for s in answer(sessions, "list", "--agent", "scout")["sessions"]] == ["trip"]
    shown = sessions("show", "trip").stdout
    assert "find the flight to Zürich" in shown and '→ search({"to": "ZRH"})' in shown and "be brief" in shown
    assert "\x1b" not in shown  # a tool's output does not steer the terminal
    whole = answer(sessions, "show", "trip")
    assert whole["message_count"] == 7 and whole["messages"][-1]["content"] == "Booked."


def test_export_delete_and_import_bring_the_same_session_back(sessions: Sessions, folder: Path) -> None:
    assert sessions("export", "trip", "-o", "trip.jsonl").returncode == 0
    text = (folder / "trip.jsonl").read_text()
    assert sessions("export", "trip").stdout == text
    assert sessions("delete", "trip").stdout == "deleted trip\n"
    assert sessions("show", "trip").returncode == 1
    assert answer(sessions, "import", "-", given=text) == {"session_id": "trip", "tenant": ALICE, "nodes": 6}
    assert sessions("export", "trip").stdout == text
    refused = sessions("import", "trip.jsonl")
    assert refused.returncode == 1 and "--replace" in refused.stderr
    assert sessions("import", "trip.jsonl", "--replace").returncode == 0


def test_a_snapshot_is_restored_as_a_new_branch(sessions: Sessions, folder: Path) -> None:
    lines = [json.loads(line) for line in sessions("export", "trip").stdout.splitlines()]
    (snapshot,) = [line["name"] for line in lines if line.get("type") == "snapshot" and line["value"]["node"]]
    restored = answer(sessions, "restore", "trip", snapshot, "--drop-result")
    assert restored["message_count"] == 5 and restored["branch"] != "main"
    assert answer(sessions, "show", "trip")["messages"][-1]["content"] == "It is LX 15."
    assert answer(sessions, "show", "trip", "--branch", "main")["messages"][-1]["content"] == "Booked."
    assert sessions("restore", "trip", "snap-unknown").returncode == 1


def test_sessions_follow_a_rotated_key(sessions: Sessions) -> None:
    before = sessions("export", "trip").stdout
    moved = sessions("move", "--from", ALICE, "--to", BOB)
    assert moved.returncode == 1  # one of them is there already
    assert moved.stdout == "moved trip\n" and "both: that tenant has a session of this id" in moved.stderr
    assert len(moved.stderr.splitlines()) == 1
    assert sessions("export", "trip", "--tenant", BOB).stdout == before.replace(ALICE, BOB)
    assert [s["session_id"] for s in answer(sessions, "list", "--tenant", ALICE)["sessions"]] == ["both"]
    assert answer(sessions, "move", "--from", BOB, "--to", ALICE, "trip") == {"moved": ["trip"]}


WRONG = (
    ("show nothing", 1, "no such session: nothing"),
    ("show both", 1, "add --tenant"),
    ("show trip --branch none", 1, "no such branch"),
    ("delete nothing", 1, "no such session"),
    ("import nothing.jsonl", 1, "nothing.jsonl: No such file"),
    ("import config/plugin.yaml", 1, "names no tenant"),
    (f"import config/plugin.yaml --tenant {BOB}", 1, "line 1: is no JSON"),
    ("list --url redis://127.0.0.1:1", 1, "the session store does not answer"),
    ("list --url http://nowhere", 1, "store.url"),
    ("list --tenant alice", 2, "32 hexadecimal digits"),
    ("show", 2, "required"),
    ("dance", 2, "invalid choice"),
    ("", 2, "required"),
)


def test_what_cannot_be_done_is_said_in_one_line(sessions: Sessions) -> None:
    for arguments, code, said in WRONG:
        done = sessions(*arguments.split())
        assert done.returncode == code and said in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        if code == 1:
            assert len(done.stderr.splitlines()) == 1, (arguments, done.stderr)


def test_what_came_and_what_was_sent(sessions: Sessions, folder: Path) -> None:
    text = (folder / "config" / "plugin.yaml").read_text()
    asyncio.run(_handled(text))
    shown = sessions("diff", "handled")
    assert shown.returncode == 0, shown.stderr
    assert "subtasks_collapsed 1" in shown.stdout and "\n- " in shown.stdout and "\n+ " in shown.stdout
    assert "\x1b" not in shown.stdout  # no terminal, and no tool's output steers one
    coloured = sessions("diff", "handled", "2", "--color", "always").stdout
    assert "\x1b[31m- " in coloured and "\x1b[32m+ " in coloured and "\x1b[2J" not in coloured
    whole = answer(sessions, "diff", "handled", "1")
    assert whole["exact"] and whole["n"] == 1 and whole["sent"] == whole["received"] != []
    assert sessions("diff", "handled", "7").returncode == 1
    assert sessions("diff", "trip").returncode == 1


async def _handled(config: str) -> None:
    """Two requests of a session; the second one collapses."""
    chosen = Settings(store=Store(**yaml.safe_load(config)["store"]), deadlines=Deadlines(store_ms=10_000))
    connection = Connection.open(chosen, {})
    assert connection is not None
    store = SessionStore(connection, chosen)
    await store.ping()  # it starts
    pipeline = Pipeline(chosen, GuardedStore(store, chosen), ignore)
    rounds = [user("find it"), calling("call_1", "find", "{}"), result("call_1", rows("\x1b[2J", ""))]
    for wire in (rounds[:1], [*rounds, assistant("Found."), user("and now?")]):
        headers = {"x-litellm-session-id": "handled"}
        await pipeline.before(Incoming("chat", wire, headers, {}, ALICE, dialect_of("openai"), "enforce"))
        await store.requests.settled()
    await store.close()
    await connection.close()
