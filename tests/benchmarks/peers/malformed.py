"""Histories that providers refuse, as clients really send them: which does a tool make valid again?"""

from __future__ import annotations

from typing import Any

from tests.benchmarks.peers.peer import Editor, Message
from tests.benchmarks.peers.text import full_text
from tests.validators import violations


def _calls(*ids: str | None) -> Message:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": "look_up", "arguments": f'{{"key": "k-{number}"}}'}}
        for number, call_id in enumerate(ids)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _result(call_id: str | None, text: str = "found 4711") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


_OPEN = _user("Look both up.")
_DONE: Message = {"role": "assistant", "content": "Both are there."}
_NEXT = _user("And now the third one.")

MALFORMED: dict[str, list[Any]] = {
    "id reused in a later turn": [_OPEN, _calls("c1"), _result("c1"), _DONE, _NEXT, _calls("c1"), _result("c1", "new")],
    "id twice in one message": [_OPEN, _calls("c1", "c1"), _result("c1"), _result("c1", "second"), _DONE, _NEXT],
    "call without a result": [_OPEN, _calls("c1", "c2"), _result("c1"), _DONE, _NEXT],
    "calls without any result": [_OPEN, _calls("c1"), _user("Forget it, what is the time?")],
    "result without a call": [_OPEN, _DONE, _result("c9"), _NEXT],
    "second result of a call": [_OPEN, _calls("c1"), _result("c1"), _result("c1", "found again"), _DONE, _NEXT],
    "user message before the result": [_OPEN, _calls("c1"), _user("Hurry up."), _result("c1"), _DONE, _NEXT],
    "result without an id": [_OPEN, _calls("c1"), _result(None), _DONE, _NEXT],
    "call without an id": [_OPEN, _calls(""), _result(""), _DONE, _NEXT],
    "id of 70 characters": [_OPEN, _calls("c" * 70), _result("c" * 70), _DONE, _NEXT],
}


def repaired(editor: Editor, history: list[Message]) -> bool:
    """Whether what leaves is accepted, with the newest message still in it; a tool that fails repairs nothing."""
    try:
        out = editor(history)
    except Exception:
        return False
    newest = full_text(history[-1]).strip()
    return not violations(out) and any(newest in full_text(message) for message in out)
