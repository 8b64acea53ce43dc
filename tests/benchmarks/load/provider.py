"""A provider that costs next to nothing, in a process of its own: answers chat completions, streamed or not, at
once with what stands next in the recording (see recordings.py). It judges nothing; fake_provider.py does.

    with Provider() as provider:
        provider.base_url
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from tests.benchmarks.load.recordings import Message, place_after, reply
from tests.proxy import free_port

_HEAD = {"id": "chatcmpl-load", "created": 1_700_000_000, "model": "gpt-4o"}
_STREAM = re.compile(rb'"stream": ?true')
_PIECES = 4
_START_SECONDS = 20.0


class Provider:
    """The process, for the length of a `with` block; it also ends with the one that started it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Provider:
        root = Path(__file__).parents[3]
        command = [sys.executable, "-m", __name__, str(self.port)]
        self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.__exit__()
                    raise RuntimeError("the provider did not start") from None
                time.sleep(0.05)

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait(10)


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    said = reply(*place_after(body))
    streamed = _STREAM.search(body) is not None
    kind = b"text/event-stream" if streamed else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for event in events(said) if streamed else [whole(said, len(body))]:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def whole(said: Message, size: int) -> bytes:
    choice = {"index": 0, "message": said, "finish_reason": _finish(said)}
    usage = {"prompt_tokens": size // 4, "completion_tokens": 20, "total_tokens": size // 4 + 20}
    return orjson.dumps({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage})


def events(said: Message) -> Iterator[bytes]:
    """The reply in a few pieces, split at spaces."""
    for delta in _deltas(said):
        yield _event(delta, None)
    yield _event({}, _finish(said))
    yield b"data: [DONE]\n\n"


def _deltas(said: Message) -> Iterator[Message]:
    yield {"role": "assistant", "content": said["content"] and ""}
    if said["content"] is not None:
        yield from ({"content": piece} for piece in _pieces(said["content"]))
        return
    call = said["tool_calls"][0]
    yield {"tool_calls": [{"index": 0, **call, "function": {**call["function"], "arguments": ""}}]}
    for piece in _pieces(call["function"]["arguments"]):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _pieces(text: str) -> Iterator[str]:
    words = text.split(" ")
    size = -(-len(words) // _PIECES)
    for start in range(0, len(words), size):
        yield (" " if start else "") + " ".join(words[start : start + size])


def _event(delta: Message, finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %s\n\n" % orjson.dumps({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]})


def _finish(said: Message) -> str:
    return "tool_calls" if said["content"] is None else "stop"


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="critical",
        lifespan="off",
        timeout_keep_alive=3600,  # a connection that closes while a busy proxy sends on it is an error of the proxy's
    )
