"""The commands of the README's page for plan executors, run by a shell in its order."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import count
from typing import Any

from proxy_plugin.history.dependencies import TITLE
from tests.binaries import require_binary
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy

CHAT = """curl -sS "$PROXY/v1/chat/completions" -H "Authorization: Bearer $KEY" \\
  -H "Content-Type: application/json" -H "x-litellm-session-id: $SESSION" """
API = """curl -sS "$PROXY/api/v1/sessions/$SESSION{}" -H "Authorization: Bearer $KEY" \\
  -H "Content-Type: application/json" """

PLAN = (
    CHAT
    + """-d '{
    "model": "gpt",
    "messages": [{"role": "system", "content": "You plan trips."},
                 {"role": "user", "content": "A weekend in Oslo."}]}'"""
)
BEGIN = (
    API.format("/subtasks")
    + """-d '{
    "id": "hotel", "description": "Find a hotel", "agent": "hotels"}'"""
)
RUN = (
    CHAT
    + """-H "x-subtask-id: hotel" -d '{
    "model": "gpt",
    "messages": [{"role": "user", "content": "Which hotel is near the opera?"}]}'"""
)
BEGIN_BY_REQUEST = (
    CHAT
    + """-d '{
    "model": "gpt",
    "metadata": {"subtask": {"id": "train", "description": "Find a train", "agent": "trains"}},
    "messages": [{"role": "user", "content": "Which train arrives before noon?"}]}'"""
)
DEPEND = (
    CHAT
    + """-d '{
    "model": "gpt",
    "metadata": {"subtask": {"id": "offer", "agent": "writer", "depends_on": ["hotel", "train"]}},
    "messages": [{"role": "user", "content": "Write the offer."}]}'"""
)
SHOW = """curl -sS "$PROXY/api/v1/sessions/$SESSION/subtasks" -H "Authorization: Bearer $KEY" """.rstrip()
BEGIN_OTHER = API.format("/subtasks") + """-d '{"id": "visa", "description": "Check the visa"}'"""
FAIL = API.format("/subtasks/visa/fail") + """-d '{"error_message": "the embassy is closed"}'"""
COMPLETE = API.format("/subtasks/visa/complete") + """-d '{"result": "No visa is needed."}'"""
BEGIN_LAST = API.format("/subtasks") + """-d '{"id": "book", "depends_on": ["offer", "visa"]}'"""
ROLL_BACK = API.format("/subtasks/book/rollback") + "-d '{}'"

_names = count()


class Shell:
    def __init__(self, proxy: Proxy) -> None:
        require_binary("curl")
        session = f"executor-{next(_names)}"
        self._environ = {"PROXY": proxy.root, "KEY": "sk-alice", "SESSION": session, "PATH": os.environ["PATH"]}

    def __call__(self, command: str) -> Any:
        done = subprocess.run(["sh", "-c", command], env=self._environ, capture_output=True, timeout=60, check=True)
        return json.loads(done.stdout)


def answer(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


def test_begin_run_depend_fail_retry_complete_and_roll_back(proxy: Proxy, provider: FakeProvider) -> None:
    run = Shell(proxy)
    run(PLAN)
    begun = run(BEGIN)
    assert (begun["id"], begun["state"], begun["attempts"], begun["agent"]) == ("hotel", "in_progress", 1, "hotels")
    hotel, train = answer(run(RUN)), answer(run(BEGIN_BY_REQUEST))
    offer = answer(run(DEPEND))
    sent = provider.requests[-1].messages
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "system", "user"]
    assert (sent[0]["content"], sent[1]["content"]) == ("You plan trips.", "A weekend in Oslo.")
    assert sent[3]["content"].startswith(TITLE)
    for part in ("Find a hotel", "hotels", hotel, "Find a train", "trains", train):
        assert part in sent[3]["content"]
    assert sent[4]["content"] == "Write the offer."

    assert run(BEGIN)["error"]["code"] == "409"
    assert run(BEGIN_LAST)["error"]["code"] == "409"
    for attempt in (1, 2):
        assert run(BEGIN_OTHER)["attempts"] == attempt
        failed = run(FAIL)
        assert (failed["state"], failed["error_message"]) == ("failed", "the embassy is closed")
    assert (run(BEGIN_OTHER)["attempts"], run(COMPLETE)["state"]) == (3, "completed")

    assert run(BEGIN_LAST)["depends_on"] == ["offer", "visa"]
    assert run(ROLL_BACK)["state"] == "rolled_back"
    listed = {subtask["id"]: subtask for subtask in run(SHOW)["subtasks"] if subtask["explicit"]}
    assert {name: subtask["state"] for name, subtask in listed.items()} == {
        **dict.fromkeys(("hotel", "train", "offer", "visa"), "completed"),
        "book": "rolled_back",
    }
    results = {name: subtask["result"] for name, subtask in listed.items()}
    assert results == {
        "hotel": hotel, "train": train, "offer": offer, "visa": "No visa is needed.", "book": None
    }  # fmt: skip
