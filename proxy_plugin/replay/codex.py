"""Transcripts of Codex: `~/.codex/sessions/**/rollout-*.jsonl`.

A line is `{"timestamp", "type", "payload"}`. The `response_item` lines are the items of the Responses API in
their order; a `compacted` line replaces what came before it. The other types are not sent. What the client
puts in front of the list when it sends it (its base instructions) is no item and does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy_plugin.replay.conversations import PROVIDERS, Conversation, Exchange, encode, is_reply

_TYPES = frozenset({"session_meta", "response_item", "event_msg", "turn_context", "compacted"})
_NOT_SENT = frozenset({"ghost_snapshot"})  # the client's own undo points
_OWN_FIELDS = frozenset({"internal_chat_message_metadata_passthrough"})  # the client's own notes on an item


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in _TYPES and isinstance(value.get("payload"), dict)


class Transcript:
    """The lines of one file, as far as they are needed."""

    def __init__(self) -> None:
        self._session = ""
        self._steps: list[Any] = []  # an item, or the list of items that replaces all before it

    def __bool__(self) -> bool:
        return bool(self._steps)

    def add(self, value: dict[str, Any]) -> None:
        """One line of any type."""
        payload = value["payload"]
        match value["type"]:
            case "session_meta" if isinstance(payload.get("id"), str):
                self._session = self._session or payload["id"]
            case "response_item" if payload.get("type") not in _NOT_SENT:
                self._steps.append(_as_sent(payload))
            case "compacted":
                self._steps.append(self._compacted(payload))

    def _compacted(self, payload: dict[str, Any]) -> list[Any]:
        """Newer transcripts hold the list that was left; of older ones it is what the user said and the
        summary."""
        replacement = payload.get("replacement_history")
        if isinstance(replacement, list):
            return [_as_sent(item) for item in replacement if isinstance(item, dict)]
        said: list[Any] = []
        for step in self._steps:
            said = step if isinstance(step, list) else [*said, *([step] if step.get("role") == "user" else [])]
        summary = {"type": "input_text", "text": str(payload.get("message", ""))}
        return [*said, {"type": "message", "role": "user", "content": [summary]}]

    def conversations(self, name: str) -> Iterator[Conversation]:
        """`name`: for a file that does not say which session it is of."""
        yield Conversation(self._session or name, "responses", PROVIDERS["responses"], self._exchanges())

    def _exchanges(self) -> Iterator[Exchange]:
        sent: list[bytes] = []
        asked: list[bytes] = []  # the list as it was when the model began to answer
        reply: list[Any] = []
        for step in self._steps:
            if not isinstance(step, list) and is_reply(step, "responses"):
                if not reply:
                    asked = sent.copy()
                reply.append(step)
                sent.append(encode(step))
                continue
            if reply and asked:
                yield Exchange(asked, reply)
            reply = []
            if isinstance(step, list):
                sent = [encode(item) for item in step]
            else:
                sent.append(encode(step))
        if reply and asked:
            yield Exchange(asked, reply)


def _as_sent(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in _OWN_FIELDS}
