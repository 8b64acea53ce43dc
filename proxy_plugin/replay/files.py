"""Recordings on disk: which files there are, and the conversations in them.

The form of each line is found out from the line. A file is streamed; what is held of it is one conversation,
or one transcript, or where the lines of a log begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy_plugin.replay import claude_code, codex, litellm_log
from proxy_plugin.replay.conversations import Conversation, api_of, decode, provider_of, requests_of

ENDINGS = (".jsonl", ".ndjson")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NOT_A_CONVERSATION = "holds no conversation (an object with `messages` or `input`, a list, or a transcript's line)"


def recordings(path: Path) -> list[Path]:
    """The file itself, or the recordings under a folder in their order. OSError if there is none."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in ENDINGS and file.is_file())
    if not found:
        raise FileNotFoundError(f"no {' or '.join(ENDINGS)} file in it")
    return found


@dataclass(slots=True)
class Recording:
    """One file. `api` and `provider` override what it says, except for transcripts, which have one form.

    complain  called with the number of a line that cannot be used, and why
    advance   called with the bytes that have been dealt with"""

    path: Path
    complain: Callable[[int, str], None]
    advance: Callable[[int], None] = lambda _: None
    api: str | None = None
    provider: str | None = None
    _claude_code: claude_code.Transcript = field(default_factory=claude_code.Transcript)
    _codex: codex.Transcript = field(default_factory=codex.Transcript)
    _asides: list[int] = field(default_factory=list)

    def conversations(self) -> Iterator[Conversation]:
        """Raises OSError if the file cannot be read."""
        log = litellm_log.Log(self.api, self.provider)
        offset = held = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    found = self._read(line, number, offset, log)
                except ValueError as error:
                    self.complain(number, " ".join(str(error).split()))
                    found = None
                if found is not None:
                    yield found
                    self.advance(len(line))
                else:
                    held += len(line)
                offset += len(line)
        transcripts: Sequence[Any] = [t for t in (self._claude_code, self._codex) if t]
        for transcript in transcripts:
            yield from transcript.conversations(self.path.stem)
        if not transcripts:
            for number in self._asides:
                self.complain(number, _NOT_A_CONVERSATION)
        yield from log.conversations(self.path)
        self.advance(held)

    def _read(self, line: bytes, number: int, offset: int, log: litellm_log.Log) -> Conversation | None:
        """The conversation on this line; None if there is none, or it is one of several lines."""
        text = line.removeprefix(_BYTE_ORDER_MARK).strip()
        if not text:
            return None
        value = decode(text)
        if litellm_log.recognises(value):
            log.add(value, offset)
        elif codex.recognises(value):
            self._codex.add(value)
        elif isinstance(value, dict) and isinstance(value.get("type"), str) and not _list_in(value):
            self._claude_code.add(value)
            if not claude_code.recognises(value):
                self._asides.append(number)  # transcripts have lines of many types that hold no message
        else:
            return self._conversation(value, number)
        return None

    def _conversation(self, value: Any, number: int) -> Conversation:
        fields = value if isinstance(value, dict) else {}
        wire = value if isinstance(value, list) else _list_in(fields)
        if not wire or not all(isinstance(item, dict) for item in wire):
            raise ValueError(_NOT_A_CONVERSATION)
        api = self.api or _api(fields, wire)
        name = next((str(fields[key]) for key in ("id", "session_id") if fields.get(key)), f"{self.path.stem}-{number}")
        provider = self.provider or provider_of(fields, api)
        return Conversation(name, api, provider, requests_of(wire, api))


def _list_in(fields: dict[str, Any]) -> list[Any] | None:
    return next((fields[key] for key in ("messages", "input") if isinstance(fields.get(key), list)), None)


def _api(fields: dict[str, Any], wire: list[Any]) -> str:
    if isinstance(fields.get("input"), list) and "messages" not in fields:
        return "responses"
    found = api_of(wire)
    return "messages" if found == "chat" and fields.get("system") else found  # no other form has that key
