"""What observability costs a proxy: CPU per request with all of it and with none of it, in one run.

One real proxy with the plugin serves conversations of about 400 messages, some observed and some not, in turns. All:
records of requests, metrics with their estimates of tokens, and the log, as a proxy has them by itself. None: no
records, as `store.keep_requests: 0` has it, and what subscribes to the plugin's events is taken out. That is done
inside of the process (`SWITCHED`), at a signal: two processes of one program differ by several percent for no reason
of ours.

CPU is that of the proxy's process, user and system; the store's server is a process of its own, shown beside it.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import orjson

from tests.benchmarks.load.processes import children
from tests.benchmarks.load.recordings import BURST, BURSTS, Recording, Session, place_after, recordings, reply
from tests.benchmarks.proxying import cpu_seconds
from tests.fake_provider import FakeProvider, Reply, Request
from tests.proxy import Proxy

MESSAGES = 400
SESSIONS = 4
"""Whose requests make up one slice, in turn."""
BACKGROUND_SECONDS = 0.05
"""For what a request leaves to be done behind its reply."""

SWITCHED = """
import logging
import signal

from proxy_plugin.gateway import hooks, pipeline
from proxy_plugin.metrics import Metrics

subscriber = observe = Metrics.observe
Metrics.observe = lambda metrics, event: subscriber(metrics, event)

from proxy_plugin import handler  # it is made now, and takes the method that it finds


class Unfollowed:
    broke = ""


def nothing(*_):
    return None


requests = handler._pipeline._store.store.requests
hooked = pipeline.follow, pipeline._reckoned, hooks.usage_of, requests.keep


def switch(number, _=None):
    global subscriber
    on = number == signal.SIGUSR1
    subscriber = observe if on else nothing
    none = lambda *_: Unfollowed, nothing, nothing, 0
    pipeline.follow, pipeline._reckoned, hooks.usage_of, requests.keep = hooked if on else none
    logging.getLogger("proxy_plugin").disabled = not on


switch(signal.SIGUSR1)
signal.signal(signal.SIGUSR1, switch)
signal.signal(signal.SIGUSR2, switch)
"""
"""The callback of a proxy that observes from SIGUSR1 on, and does not from SIGUSR2 on."""


def answer(request: Request) -> Reply:
    """What stands next in the recording."""
    said = reply(*place_after(orjson.dumps(request.messages[-1])))
    calls = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in said.get("tool_calls", ())]
    return Reply(said["content"] or "", calls=calls)


@dataclass
class Slices:
    """CPU seconds per request of each slice."""

    proxy: list[float] = field(default_factory=list)
    store: list[float] = field(default_factory=list)


class Observed:
    """A running proxy with `SWITCHED`. `slices`: by whether it was observed."""

    def __init__(self, proxy: Proxy) -> None:
        assert proxy.process is not None
        self.proxy, self.pid = proxy, proxy.process.pid
        self.slices = {True: Slices(), False: Slices()}
        self.client = httpx.Client(headers={"authorization": f"Bearer {proxy.key}"}, timeout=60)

    def send(self, made: Sequence[Recording], name: str) -> None:
        """A slice of each kind, turn by turn, so that what else the machine does meets both alike. The first request
        of a session brings its history, and is not counted."""
        sessions = {on: [Session(f"{name}-{on}-{n}", True, one) for n, one in enumerate(made)] for on in (True, False)}
        used = {True: (0.0, 0.0), False: (0.0, 0.0)}
        for turn in range(1 + BURST * BURSTS):
            for on in (True, False) if turn % 2 else (False, True):
                proxy, store = self._turn(sessions[on], turn, observing=on)
                if turn:
                    used[on] = used[on][0] + proxy, used[on][1] + store
        asked = len(made) * BURST * BURSTS
        for on, (proxy, store) in used.items():
            self.slices[on].proxy.append(proxy / asked)
            self.slices[on].store.append(store / asked)
            for session in sessions[on]:
                self._noted(session, 1 + BURST * BURSTS if on else 0)

    def _turn(self, sessions: Sequence[Session], turn: int, *, observing: bool) -> tuple[float, float]:
        os.kill(self.pid, signal.SIGUSR1 if observing else signal.SIGUSR2)
        before = self._used()
        for session in sessions:
            body = session.body(session.recording.asked[turn], stream=False)
            self.client.post(self.proxy.base_url + "/chat/completions", content=body).raise_for_status()
        sleep(BACKGROUND_SECONDS)
        after = self._used()
        return after[0] - before[0], after[1] - before[1]

    def _used(self) -> tuple[float, float]:
        return cpu_seconds(self.pid), sum(map(cpu_seconds, children(self.pid)))

    def _noted(self, session: Session, requests: int) -> None:
        """What was to be measured was done."""
        page = self.proxy.get(f"/sessions/{session.name}/requests").json()
        assert page["total"] == requests, f"{page['total']} records of {requests} requests"


def measure(messages: int, slices: int) -> dict[bool, Slices]:
    """By whether it was observed."""
    made = recordings(SESSIONS, messages - 2 * BURST * BURSTS, messages)
    with tempfile.TemporaryDirectory() as name, FakeProvider(brain=answer, strict=False) as provider:
        folder = Path(name)
        (folder / "switched.py").write_text(SWITCHED)
        proxy = Proxy(
            folder,
            {"gpt": provider.base_url},
            plugin=False,
            fresh=True,
            litellm_settings={"callbacks": ["switched.handler"]},
            environ={"PROXY_PLUGIN_STORE__EMBEDDED_DIR": str(folder / "store")},
        )
        proxy.environ["PROXY_PLUGIN_STORE__EMBEDDED_PORT"] = str(proxy.store_port)
        with proxy:
            observed = Observed(proxy)
            for number in range(slices + 1):
                if number == 1:  # what came before was to warm up
                    observed.slices = {True: Slices(), False: Slices()}
                observed.send(made, f"overhead-{number}")
                provider.requests.clear()
    return observed.slices


def table(slices: dict[bool, Slices]) -> str:
    """Medians: a busy machine spoils some of the slices. Each is compared with the one beside it."""
    lines = ["| | proxy, ms | store's server, ms |", "|---|---:|---:|"]
    for name, observing in (("all", True), ("none", False)):
        one = slices[observing]
        lines.append(f"| {name} | {_ms(one.proxy):.2f} | {_ms(one.store):.2f} |")
    beside = list(zip(slices[True].proxy, slices[False].proxy, strict=True))
    added = [on - off for on, off in beside]
    share = statistics.median(100 * (on / off - 1) for on, off in beside)
    lines.append(f"| added | {_ms(added):+.2f} ({share:+.1f}%) | |")
    return "\n".join(lines)


def _ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1e3


def main(arguments: Sequence[str] = ()) -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("this benchmark reads /proc and so needs Linux")
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks overhead")
    parser.add_argument("--slices", type=int, default=12, help="slices of each kind (12)")
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"messages of the longest history ({MESSAGES})")
    given: Any = parser.parse_args(list(arguments))
    print(f"CPU per request of a real proxy, observed and not, histories of up to {given.messages} messages\n")
    print(table(measure(given.messages, given.slices)))
