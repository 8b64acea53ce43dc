"""The clients of a load run: many at once, each waiting for its reply (`closed`), or requests at given times however
long the replies take (`paced`)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Any

import aiohttp

from tests.benchmarks.load.recordings import Ask, Session, told

TIMEOUT_SECONDS = 60.0
_IDLE_SECONDS = 2.0  # after which a connection is not used again: uvicorn closes it after five


@dataclass
class Load:
    """What a stretch of load has come to. `seconds`: of each request, from when it was due to the last byte."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0

    def add(self, other: Load) -> None:
        self.seconds += other.seconds
        self.errors += other.errors
        self.wall += other.wall

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.seconds) / self.wall


class Clients:
    """All clients of one proxy; an async context. `sessions`: those that have had a reply."""

    def __init__(self, base_url: str, key: str) -> None:
        self._url = base_url + "/chat/completions"
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.sessions: dict[str, Session] = {}

    async def __aenter__(self) -> Clients:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._http = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.close()

    async def closed(
        self, load: Load, asks: Iterator[Ask], clients: int, *, seconds: float = inf, requests: float = inf
    ) -> None:
        """`clients` at once, each with its next request as soon as it has a reply; none is begun after `seconds`
        or after so many requests."""
        started, left = perf_counter(), requests

        async def client() -> None:
            nonlocal left
            while left > 0 and perf_counter() - started < seconds:
                left -= 1
                await self._ask(next(asks), load, None)

        await asyncio.gather(*(client() for _ in range(clients)))
        load.wall = perf_counter() - started

    async def paced(self, load: Load, asks: Iterator[Ask], rate: float, *, seconds: float, seed: int) -> None:
        """So many requests a second on average, at random times that are the same for every proxy."""
        chance, sent, due = random.Random(seed), [], 0.0
        started = perf_counter()
        while (due := due + chance.expovariate(rate)) < seconds:
            await asyncio.sleep(started + due - perf_counter())
            sent.append(asyncio.create_task(self._ask(next(asks), load, started + due)))
        await asyncio.gather(*sent)
        load.wall = perf_counter() - started

    async def _ask(self, ask: Ask, load: Load, due: float | None) -> None:
        session, index = ask
        async with session.lock:
            stream = index // 2 % 2 == 0
            body = session.body(index, stream=stream)
            due = due or perf_counter()
            try:
                async with self._http.post(self._url, data=body) as response:
                    answer = await response.read()
                load.seconds.append(perf_counter() - due)
                fault = self._fault(response, answer, session, index, stream)
            except (aiohttp.ClientError, TimeoutError) as error:
                fault = type(error).__name__
            if fault:
                load.errors[fault] += 1
            else:
                session.acknowledged = index
                self.sessions[session.name] = session

    def _fault(self, response: Any, answer: bytes, session: Session, index: int, stream: bool) -> str:
        """What is wrong with a reply; "" for nothing."""
        if response.status != 200:
            return f"status {response.status}: {answer[:200].decode(errors='replace')}"
        if told(session.recording.number, index) not in answer:
            return "another reply than the provider's"
        if stream and not answer.rstrip().endswith(b"data: [DONE]"):
            return "the stream has no end"
        shown = response.headers.get("x-proxy-plugin-session", "").partition(".")[0]
        if shown and session.key and shown != session.key:
            return "another session than before"
        session.key = session.key or shown
        return ""
