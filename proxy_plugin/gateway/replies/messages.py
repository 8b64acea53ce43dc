"""Anthropic Messages: a message as a dict, or a stream of server-sent events as raw bytes.

Transport reads cut the stream anywhere: in the middle of an event, of an id, of a character. A line is passed
on while it comes, as soon as it cannot open a tool call any more; one that can is held until it ends, so that
its id can be replaced and nothing else. Where a line comes from does not matter for what it becomes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from proxy_plugin.gateway.replies.reply import Names, Reply, field, plain, put, usable

_OPENS = b"content_block_start"
_TYPED = b'data:{"type":"'
_OPENING = _TYPED + _OPENS + b'"'
_HEAD = 256
"""In so many bytes a line has said what it is."""

_BLOCK_TYPE = re.compile(rb'"content_block"\s*:\s*\{\s*"type"\s*:\s*"([^"\\]*)"')
_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*")')
_PAUSED = "pause_turn"
"""Why a turn stops that the client sends again as it is, to be continued."""


def take_reply(response: Any, names: Names) -> Reply | None:
    content = field(response, "content")
    if not isinstance(content, list):
        return None
    for block in content:
        if field(block, "type") == "tool_use" and usable(field(block, "id")):
            new = names.call(field(block, "id"))
            if new != field(block, "id"):
                put(block, "id", new)
    message = {"role": "assistant", "content": [plain(block) for block in content]}
    return Reply([message], field(response, "stop_reason") != _PAUSED)


class StreamedMessage:
    over = False  # a client goes on with the whole history

    def __init__(self, names: Names) -> None:
        self._name_of = names.call
        self._line = bytearray()  # the line that is coming
        self._sent = 0  # how much of it has gone on
        self._event = b""  # what the event it belongs to is called, if that was said in front of the data
        self._after_return = False  # a line ended with a carriage return, whose line feed may follow
        self._blocks: dict[Any, dict[str, Any]] = {}  # by the index that the stream gives them
        self._inputs: dict[Any, list[str]] = {}  # pieces of the JSON that a block's input comes in
        self._stopped: Any = None
        self._form: type = bytes  # what the chunks are: bytes, str, or anything else
        self._torn = False  # an error, or a chunk of another form inside a line, left a gap in what was read

    def see(self, chunk: Any) -> Sequence[Any]:
        held = self._in_form(_form_of(chunk))
        if self._torn or not chunk:
            return (*held, chunk)
        if self._form is bytes:
            out = self._take(bytes(chunk))
            return (out,) if out else ()
        if self._form is str:
            out = self._take(chunk.encode("utf-8", "surrogatepass"))
            return (_text(out),) if out else ()
        if isinstance(chunk, dict):
            self._rename(chunk)
            self._collect(chunk)
        return (chunk,)

    def _in_form(self, form: type) -> Sequence[Any]:
        """What goes on first because a chunk is not of the form of those before it: nobody ends a line so."""
        if form is self._form:
            return ()
        held, self._form = self.rest(), form
        self._torn = self._torn or bool(held)
        return held

    def rest(self) -> Sequence[Any]:
        held = bytes(self._line[self._sent :])
        self._sent = len(self._line)
        return (_text(held) if self._form is str else held,) if held else ()

    def _take(self, data: bytes) -> bytes:
        held = self._line[self._sent :]
        try:
            return self._feed(data)
        except Exception:
            self._torn, self._line, self._sent = True, held, 0
            raise

    def _feed(self, data: bytes) -> bytes:
        out = bytearray()
        for piece in data.splitlines(keepends=True):
            if self._after_return and piece == b"\n":
                self._after_return = False
                out += piece
                continue
            self._line += piece
            self._after_return = piece.endswith(b"\r")
            if self._after_return or piece.endswith(b"\n"):
                line, sent = self._ended(bytes(self._line)), self._sent
                self._line.clear()
                self._sent = 0
                out += line[sent:]
            elif self._sent or not self._may_open_a_call(self._line):
                out += self._line[self._sent :]
                self._sent = len(self._line)
        return bytes(out)

    def _may_open_a_call(self, line: bytes | bytearray) -> bool:
        """Whether a line, or the line that begins so, may hold the id of a call. Once no, always no."""
        if self._event not in (b"", _OPENS):
            return False
        head = b"".join(line[:_HEAD].split())
        if not _alike(head, _OPENING) and (_alike(head, _TYPED) or not head.startswith(b"data:{")):
            return False
        block = _BLOCK_TYPE.search(line, 0, _HEAD)
        return block is None or block[1] == b"tool_use"

    def _ended(self, line: bytes) -> bytes:
        """The line as it goes on, now that it is here."""
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        if name == b"data":
            event = _json(value)
            if isinstance(event, dict):
                if self._may_open_a_call(line):
                    line = self._renamed(line, event)
                self._collect(event)
        elif name == b"event":
            self._event = value.strip()
        elif not name:
            self._event = b""
        return line

    def _renamed(self, line: bytes, event: dict[str, Any]) -> bytes:
        old = field(event.get("content_block"), "id")
        if not self._rename(event):
            return line
        new = orjson.dumps(event["content_block"]["id"])
        for found in _ID.finditer(line):
            changed = line[: found.start(1)] + new + line[found.end(1) :]
            if _json(changed.partition(b":")[2]) == event:
                return changed
        event["content_block"]["id"] = old  # written in a way that nobody writes it
        return line

    def _rename(self, event: dict[str, Any]) -> bool:
        block = event.get("content_block")
        if event.get("type") != "content_block_start" or field(block, "type") != "tool_use":
            return False
        if not isinstance(block, dict) or not usable(block.get("id")):
            return False
        old, block["id"] = block["id"], self._name_of(block["id"])
        return bool(block["id"] != old)

    def _collect(self, event: dict[str, Any]) -> None:
        kind, index, delta = event.get("type"), event.get("index"), event.get("delta")
        if kind == "message_start":
            self._blocks, self._inputs, self._stopped = {}, {}, None
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            self._blocks[index] = dict(event["content_block"])
            self._inputs[index] = []
        elif kind == "content_block_delta" and index in self._blocks and isinstance(delta, dict):
            self._grow(index, delta)
        elif kind == "message_delta" and isinstance(delta, dict):
            self._stopped = delta.get("stop_reason") or self._stopped
        elif kind == "message_stop":
            self._stopped = self._stopped or kind

    def _grow(self, index: Any, delta: dict[str, Any]) -> None:
        block = self._blocks[index]
        for name, value in delta.items():
            if name == "partial_json":
                self._inputs[index].append(value)
            elif name == "citation":
                block["citations"] = [*(block.get("citations") or ()), value]
            elif name != "type" and isinstance(value, str):
                block[name] = (block.get(name) or "") + value

    def reply(self) -> Reply | None:
        if self._torn or (not self._blocks and self._stopped is None):
            return None
        content = []
        for index, block in self._blocks.items():
            said = "".join(self._inputs[index])
            if said:
                parsed = _json(said)
                block = {**block, "input": said if parsed is None else parsed}
            content.append(block)
        return Reply([{"role": "assistant", "content": content}], self._stopped not in (None, _PAUSED))


def _form_of(chunk: Any) -> type:
    return str if isinstance(chunk, str) else bytes if isinstance(chunk, bytes | bytearray) else object


def _text(out: bytes) -> str:
    return out.decode("utf-8", "surrogatepass")


def _alike(head: bytes, whole: bytes) -> bool:
    return head.startswith(whole) or whole.startswith(head)


def _json(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None
