"""One proxy on one kind of store, and the same plan on it: once healthy, then in each fault.

The plan: two conversations. One has finished a subtask when the fault begins, works through the next one in
it, and ends after it; the other one, streamed, lies within it from its first request to its last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from proxy_plugin.settings import Settings
from tests.agent import PLAN
from tests.fake_provider import FakeProvider
from tests.faults.client import SESSION, TimedAgent, chat_bodies, client_of, is_whole
from tests.faults.stores import Place
from tests.proxy import Proxy

RECOVERY_SECONDS = 30.0
LONG_WAIT_SECONDS = 1.0
"""Of the store's histogram a bucket far above the deadline, and below every fault's own duration."""

_Sample = tuple[str, frozenset[str]]
"""Name and values of the labels."""


@dataclass(frozen=True)
class Fault:
    """place   the kind of store that it befalls
    of      breaks that store for the length of a `with`
    counted reasons in passthrough_total, one of which has to be counted; none where the client of the
            store is meant to cope
    says    a regular expression for one line of the log; "": nothing is asked of the log
    at_next_request  the store lost what it had: the next request of a session brings it back, nothing else"""

    name: str
    place: type[Place]
    of: Callable[[Any], AbstractContextManager[None]]
    counted: frozenset[str] = frozenset({"store_down", "store_timeout"})
    says: str = ""
    at_next_request: bool = False


@dataclass(frozen=True)
class Outcome:
    """bodies   what reached the provider, in order
    failed   requests that the client saw fail
    slowest  seconds of the slowest request
    waits    store operations on the request path that took more than LONG_WAIT_SECONDS
    counted  reason -> times, while the fault lasted
    log      what the proxy said from the end of the play before this one to the recovery
    whole_after seconds from the end of the fault to the whole history; None: not within RECOVERY_SECONDS"""

    bodies: list[bytes]
    failed: list[str]
    slowest: float
    waits: float
    counted: Mapping[str, int]
    log: str
    whole_after: float | None

    @property
    def said(self) -> list[str]:
        """What the log has of the store."""
        return [line for line in self.log.splitlines() if "store" in line and "HTTP/1.1" not in line]


@dataclass
class Stage:
    folder: Path
    place: Place
    provider: FakeProvider
    opening: Outcome | None = None  # of the fault that was there when the proxy started
    _log_read: int = 0

    def __post_init__(self) -> None:
        usual = {"PROXY_PLUGIN_DEADLINES__STORE_MS": str(Settings().deadlines.store_ms)}
        self.proxy = Proxy(self.folder, {"gpt": self.provider.base_url}, redis_url=self.place.url, environ=usual)

    def start(self) -> None:
        self.proxy.start()
        self.place.serves(self.proxy, self.provider)
        warm = TimedAgent(client_of(self.proxy), extra_headers={"x-proxy-plugin": "off"})
        warm.attempt("LiteLLM takes its time over a first request, with the plugin or without.")

    def rehearse(self) -> None:
        """The healthy run, which all others are compared with."""
        self.healthy = self._play("healthy", nullcontext())

    def run(self, fault: Fault) -> Outcome:
        return self._play(fault.name.replace(" ", "-"), fault.of(self.place), fault.at_next_request)

    def _play(self, name: str, fault: AbstractContextManager[None], at_next_request: bool = False) -> Outcome:
        client = client_of(self.proxy)
        early = TimedAgent(client, extra_headers={SESSION: f"{name}-early"})
        within = TimedAgent(client, extra_headers={SESSION: f"{name}-within"}, stream=True)
        self.provider.requests.clear()
        early.attempt(PLAN[0])
        bodies = self._take_bodies()
        with fault:
            self.provider.requests.clear()
            before = self._samples()
            early.attempt(PLAN[1])
            for task in PLAN:
                within.attempt(task)
            bodies += self._take_bodies()
            after = self._samples()
        mended = time.monotonic()
        wanted = (within,) if at_next_request else (early, within)
        whole = self._whole(wanted)
        whole_after = time.monotonic() - mended
        early.attempt(PLAN[2])
        bodies += self._take_bodies()
        whole = whole and self._whole((early, within))
        return Outcome(
            bodies=bodies,
            failed=early.failed + within.failed,
            slowest=max(early.took + within.took),
            waits=_long_waits(after) - _long_waits(before),
            counted=_reasons(before, after),
            log=self._new_log(),
            whole_after=whole_after if whole else None,
        )

    def _whole(self, agents: tuple[TimedAgent, ...]) -> bool:
        """Waits for it, without a request of these conversations."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while not all(is_whole(self.proxy, agent) for agent in agents):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _take_bodies(self) -> list[bytes]:
        bodies = chat_bodies(self.provider)
        self.provider.requests.clear()
        return bodies

    def _new_log(self) -> str:
        log = self.proxy.log()
        new, self._log_read = log[self._log_read :], len(log)
        return new

    def _samples(self) -> dict[_Sample, float]:
        """The plugin's own metrics."""
        found: dict[_Sample, float] = {}
        for family in text_string_to_metric_families(self.proxy.get("/metrics").text):
            for sample in family.samples:
                found[sample.name, frozenset(sample.labels.values())] = sample.value
        return found


def _reasons(before: Mapping[_Sample, float], after: Mapping[_Sample, float]) -> dict[str, int]:
    name = "proxy_plugin_passthrough_total"
    grown = {labels: after[at, labels] - before[at, labels] for at, labels in after if at == name}
    return {reason: int(times) for (reason,), times in grown.items() if times}


def _long_waits(samples: Mapping[_Sample, float]) -> float:
    name = "proxy_plugin_store_seconds"
    return sum(
        samples[f"{name}_count", frozenset({operation})]
        - samples[f"{name}_bucket", frozenset({operation, str(LONG_WAIT_SECONDS)})]
        for operation in ("commit_request", "commit_reply")
    )
