"""CPU and time per request of a real proxy with and without the plugin, in one run.

Two proxies serve the same requests in turn: a growing conversation, one request after the other, as an
agent sends them. CPU is the process's own (user and system); the store's server is a process of its own.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import orjson

from tests.benchmarks.conversations import conversation, requests
from tests.fake_provider import FakeProvider, Reply, Request
from tests.proxy import Proxy

WARM_UP = 20
ROUNDS = 8


class Recorded:
    """A model that answers with what stands next in the conversation, found by the newest message."""

    def __init__(self) -> None:
        self._next: dict[str, Reply] = {}

    def learn(self, wire: list[dict[str, Any]]) -> None:
        for message, following in pairwise(wire):
            if following["role"] == "assistant":
                calls = [
                    (call["id"], call["function"]["name"], call["function"]["arguments"])
                    for call in following.get("tool_calls", [])
                ]
                self._next[_mark(message)] = Reply(following["content"] or "", calls=calls)

    def __call__(self, request: Request) -> Reply:
        return self._next.get(_mark(request.messages[-1]), Reply("done"))


def _mark(message: dict[str, Any]) -> str:
    return str(message.get("tool_call_id") or message["content"])


def cpu_seconds(pid: int) -> float:
    """CPU that the process has used, user and system, all its threads; to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def bodies(model: Recorded, size: int, session: str, *, subtasks: bool) -> list[bytes]:
    """The newest 25 requests of a conversation; `subtasks` False: one long subtask, nothing to collapse."""
    wire = conversation(size, rounds=5 if subtasks else size)
    model.learn(wire)
    newest = requests(wire)[-25:]
    return [orjson.dumps({"model": "gpt", "messages": m, "litellm_session_id": session}) for m in newest]


class Side:
    """One proxy and what its requests have cost."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = httpx.Client(headers={"authorization": f"Bearer {proxy.key}"}, timeout=60)
        self.cpu = 0.0
        self.seconds: list[float] = []

    def send(self, sent: list[bytes], *, count: bool) -> None:
        assert self.proxy.process is not None
        before = cpu_seconds(self.proxy.process.pid)
        for body in sent:
            started = perf_counter()
            answer = self.client.post(self.proxy.base_url + "/chat/completions", content=body)
            taken = perf_counter() - started
            assert answer.status_code == 200, answer.text
            if count:
                self.seconds.append(taken)
        if count:
            self.cpu += cpu_seconds(self.proxy.process.pid) - before


def measure(model: Recorded, plain: Side, plugged: Side, size: int, *, subtasks: bool) -> str:
    for side in (plain, plugged):
        side.cpu, side.seconds = 0.0, []
        side.send(bodies(model, size, "warm", subtasks=subtasks)[:WARM_UP], count=False)
    for number in range(ROUNDS):
        sent = bodies(model, size, f"bench-{size}-{subtasks}-{number}", subtasks=subtasks)
        for side in (plain, plugged) if number % 2 else (plugged, plain):
            side.send(sent, count=True)
    per = [side.cpu / len(side.seconds) * 1e3 for side in (plain, plugged)]
    p50 = [statistics.median(side.seconds) * 1e3 for side in (plain, plugged)]
    p99 = [statistics.quantiles(side.seconds, n=100)[-1] * 1e3 for side in (plain, plugged)]
    kind = "subtasks of 5 rounds" if subtasks else "one running subtask"
    return (
        f"| {size} | {kind} | {per[0]:.1f} | {per[1]:.1f} | {100 * (per[1] / per[0] - 1):+.1f}% "
        f"| {p50[1] - p50[0]:+.1f} | {p99[1] - p99[0]:+.1f} |"
    )


def main() -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("this benchmark reads /proc and so needs Linux")
    print("A real LiteLLM proxy with and without the plugin, per request\n")
    print("| messages | history | CPU ms without | CPU ms with | CPU | added p50 ms | added p99 ms |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    model = Recorded()
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        FakeProvider(brain=model, strict=False) as provider,
        Proxy(Path(one), {"gpt": provider.base_url}, plugin=False) as without,
        Proxy(Path(two), {"gpt": provider.base_url}) as with_plugin,
    ):
        plain, plugged = Side(without), Side(with_plugin)
        for size in (60, 400):
            for subtasks in (False, True):
                print(measure(model, plain, plugged, size, subtasks=subtasks), flush=True)
                provider.requests.clear()


if __name__ == "__main__":
    main()
