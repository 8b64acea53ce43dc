"""CPU and time per request of a real proxy with and without the plugin, in one run.

Three sides serve the same requests in turn, a growing conversation as an agent sends it: a proxy without
the plugin, a proxy with it, and that same proxy with the header `x-proxy-plugin: off`. Two processes of
one program differ by several percent for no reason of ours; the third side shows the plugin's own share.
CPU is that of the proxy's process, user and system; the store's server is a process of its own.
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

ROUNDS = 12


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
    """One way to a proxy, and what its requests have cost."""

    def __init__(self, proxy: Proxy, **headers: str) -> None:
        assert proxy.process is not None
        self.proxy, self.pid = proxy, proxy.process.pid
        self.client = httpx.Client(headers={"authorization": f"Bearer {proxy.key}", **headers}, timeout=60)
        self.cpu: list[float] = []  # seconds per request, of each batch
        self.seconds: list[float] = []

    def send(self, sent: list[bytes], *, count: bool) -> None:
        before = cpu_seconds(self.pid)
        for body in sent:
            started = perf_counter()
            answer = self.client.post(self.proxy.base_url + "/chat/completions", content=body)
            taken = perf_counter() - started
            assert answer.status_code == 200, answer.text
            if count:
                self.seconds.append(taken)
        if count:
            self.cpu.append((cpu_seconds(self.pid) - before) / len(sent))

    def forget(self) -> None:
        self.cpu, self.seconds = [], []

    @property
    def cpu_ms(self) -> float:
        """Median of the batches: a busy machine spoils some of them."""
        return statistics.median(self.cpu) * 1e3


def measure(model: Recorded, sides: list[Side], size: int, *, subtasks: bool) -> str:
    for side in sides:
        side.forget()
        side.send(bodies(model, size, "warm", subtasks=subtasks), count=False)
    for number in range(ROUNDS):
        for place, side in enumerate(sides if number % 2 else sides[::-1]):
            session = f"bench-{size}-{subtasks}-{number}-{place}"
            side.send(bodies(model, size, session, subtasks=subtasks), count=True)
    without, plugged, off = sides
    added = statistics.median(plugged.seconds) - statistics.median(off.seconds)
    kind = "subtasks of 5 rounds" if subtasks else "one running subtask"
    return (
        f"| {size} | {kind} | {without.cpu_ms:.1f} | {off.cpu_ms:.1f} | {plugged.cpu_ms:.1f} "
        f"| {100 * (plugged.cpu_ms / without.cpu_ms - 1):+.1f}% | {100 * (plugged.cpu_ms / off.cpu_ms - 1):+.1f}% "
        f"| {added * 1e3:+.1f} |"
    )


def main() -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("this benchmark reads /proc and so needs Linux")
    print("A real LiteLLM proxy, CPU per request: without the plugin, with it switched off, with it\n")
    print("| messages | history | without ms | off ms | with ms | with/without | with/off | added p50 ms |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    model = Recorded()
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        FakeProvider(brain=model, strict=False) as provider,
        Proxy(Path(one), {"gpt": provider.base_url}, plugin=False, fresh=True) as without,
        Proxy(Path(two), {"gpt": provider.base_url}, patient=False, fresh=True) as plugged,
    ):
        sides = [Side(without), Side(plugged), Side(plugged, **{"x-proxy-plugin": "off"})]
        for size in (60, 400):
            for subtasks in (False, True):
                print(measure(model, sides, size, subtasks=subtasks), flush=True)
                provider.requests.clear()


if __name__ == "__main__":
    main()
