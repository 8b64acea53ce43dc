"""The HTTP API under requests of any kind, made by schemathesis from the API's own OpenAPI document.

A real proxy with sessions, branches, snapshots and subtasks in its store. Every operation is asked what its schema
allows and what it does not, with the ids of what is there and with others, by the owner's key, a stranger's, an
admin's, none and a wrong one. No answer may be a server error; each has a status, a content type and a body that the
document tells of.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests.exceptions import RequestException
from schemathesis.checks import FailureGroup, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from proxy_plugin.admin.openapi import TAG
from tests.agent import PLAN, Agent
from tests.fake_provider import FakeProvider
from tests.proxy import Proxy, eventually

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SESSIONS = ("fuzz-kept", "fuzz-other", "fuzz-spare-1", "fuzz-spare-2")
_ODD = ["%00", "%2F", "a b", "ü", "{id}", "h_" + "0" * 64, "x" * 300, "*", "main", "0", "-1", "9" * 30]
_ENDLESS = "/events"
_SECONDS = 20.0  # that any answer may take


@schemathesis.serializer("application/x-ndjson")
def _as_it_is(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@dataclass
class Tally:
    """Of one operation. statuses: how often each came; faults: what was wrong, one line each."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def fill(proxy: Proxy) -> dict[str, list[str]]:
    """Sessions of Alice's with everything in them; by the names of path parameters, what there is to ask for."""
    alice = openai.OpenAI(base_url=proxy.base_url, api_key="sk-alice", max_retries=0)
    for name in SESSIONS:
        body = {"metadata": {"agent": "scout", "subtask": {"id": f"task-{name}", "description": "look"}}}
        agent = Agent(alice, extra_headers={"x-litellm-session-id": name}, extra_body=body)
        for task in PLAN:
            agent.run(task)
        agent.extra_body = {"metadata": {"agent": "writer"}}
        agent.messages = [*agent.messages[:-1], {"role": "assistant", "content": "another end"}]
        agent.run(PLAN[1])
        eventually(lambda path=f"/sessions/{name}": proxy.get(path, key="sk-alice").json().get("branches") == 2)
        for part, body in (("snapshots", {"name": "now", "pin": True}), ("subtasks", {"id": "open"})):
            headers, url = {"authorization": "Bearer sk-alice"}, f"{proxy.root}/api/v1/sessions/{name}/{part}"
            httpx.post(url, json=body, headers=headers).raise_for_status()
    return known(proxy)


def known(proxy: Proxy) -> dict[str, list[str]]:
    def names(part: str, key: str) -> list[str]:
        answers = [proxy.get(f"/sessions/{name}{part}", key="sk-alice").json() for name in SESSIONS[:2]]
        return [str(one[key]) for answer in answers for one in answer.get(part.strip("/").replace("tree", "nodes"), [])]

    return {
        "session_id": list(SESSIONS),
        "ref": [node[:length] for node in names("/tree", "id")[:4] for length in (12, 32)],
        "node": names("/tree", "id")[:4],
        "branch": [*names("/branches", "name"), "main"],
        "name": names("/branches", "name"),
        "snapshot_id": names("/snapshots", "snapshot_id"),
        "subtask_id": names("/subtasks", "id"),
        "n": ["1", "2", "head"],
        "tenant": ["0" * 32],
        "cursor": ["0"],
    }


def document(proxy: Proxy) -> dict[str, Any]:
    """The plugin's part of the proxy's OpenAPI document."""
    whole = httpx.get(proxy.root + "/openapi.json", timeout=60).json()
    paths = {
        path: {method: operation for method, operation in methods.items() if TAG in operation.get("tags", [])}
        for path, methods in whole["paths"].items()
    }
    return {**whole, "paths": {path: methods for path, methods in paths.items() if methods}}


def _keys(proxy: Proxy) -> st.SearchStrategy[dict[str, str]]:
    """Mostly the owner's or an admin's."""
    keys = ["sk-alice", proxy.key, "sk-bob", "sk-nobody", "\x7f", ""]
    often = [number for number, times in enumerate([6, 4, 2, 1, 1, 1]) for _ in range(times)]
    return st.sampled_from(often).map(
        lambda number: {"Authorization": f"Bearer {keys[number]}"} if keys[number] else {}
    )


def exports(proxy: Proxy) -> list[bytes]:
    return [proxy.get(f"/sessions/{name}/export", key="sk-alice").content for name in SESSIONS[:1]]


@st.composite
def _imports(draw: Any, whole: list[bytes]) -> bytes:
    """An export with bytes or lines of it lost, turned, doubled or exchanged."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    raw = bytearray(rng.choice(whole).replace(b'"fuzz-kept"', b'"brought"'))
    lines = bytes(raw).split(b"\n")
    for _ in range(rng.randrange(4)):
        kind, at = rng.randrange(6), rng.randrange(len(lines))
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        elif kind == 2 and lines[at]:
            place = rng.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + bytes([rng.randrange(256)]) + lines[at][place + 1 :]
        elif kind == 3:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif kind == 4:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 5:
            lines[at] = _bent(lines[at], rng)
        lines = lines or [b""]
    return b"\n".join(lines)


def _bent(line: bytes, rng: random.Random) -> bytes:
    """A line in which one value is of another type."""
    try:
        value = json.loads(line)
    except ValueError:
        return line
    if not isinstance(value, dict) or not value:
        return line
    here: Any = value
    while True:
        key = rng.choice(list(here) if isinstance(here, dict) else list(range(len(here))))
        inner = here[key]
        if not (isinstance(inner, dict | list) and inner and rng.random() < 0.7):
            here[key] = rng.choice([None, -1, 2**70, 1.5, "", "x", "\ud800", [], {}, [[]], True, "0" * 32])
            return json.dumps(value).encode()
        here = inner


def fuzz(proxy: Proxy, *, examples: int, number: int, seconds: float = float("inf")) -> Iterator[tuple[str, Tally]]:
    """Each operation with what came of `examples` requests, half of what its schema allows, half of what not."""
    there = known(proxy)
    whole = exports(proxy)
    schema: Any = schemathesis.openapi.from_dict(document(proxy))
    schema.config.update(base_url=proxy.root)
    operations = [result.ok() for result in schema.get_all_operations()]
    deadly = [one for one in operations if one.method.upper() == "DELETE"]
    for operation in [*(one for one in operations if one not in deadly), *deadly]:
        tally, until = Tally(), time.monotonic() + seconds / len(operations)
        for mode in GenerationMode:
            cases = operation.as_strategy(generation_mode=mode)
            run = _run(tally, st.tuples(st.data(), cases, _keys(proxy)), there, whole, until)
            bounded = settings(
                max_examples=max(examples // 2, 1),
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            with contextlib.suppress(Unsatisfiable):  # there are operations of which nothing is wrong to ask
                seed(f"{number} {operation.label} {mode.value}")(bounded(run))()
        yield operation.label, tally


def _run(tally: Tally, cases: Any, there: dict[str, list[str]], whole: list[bytes], until: float) -> Any:
    @given(cases)
    def ask(drawn: Any) -> None:
        data, case, key = drawn
        _aim(data, case, there, whole)  # always: what is drawn must not hang on the time
        if time.monotonic() < until:
            _ask(case, key, tally)

    return ask


def _aim(data: st.DataObject, case: Any, there: dict[str, list[str]], whole: list[bytes]) -> None:
    """Names what is there, mostly; else something that has no business in a URL."""
    for where in (case.path_parameters, case.query):
        for name in where or {}:
            choice = data.draw(st.integers(0, 9))
            if choice < 6 and name in there:
                doomed = case.method == "DELETE" and name == "session_id"
                where[name] = data.draw(st.sampled_from(there[name][2:] if doomed else there[name]))
            elif choice == 9:
                where[name] = data.draw(st.sampled_from(_ODD))
    if case.path.endswith("/import") and data.draw(st.integers(0, 3)):
        case.body, case.media_type = data.draw(_imports(whole)), "application/x-ndjson"
        case.query = {"replace": "true"}


def _ask(case: Any, key: dict[str, str], tally: Tally) -> None:
    headers = {"Authorization": None, **key}
    started = time.monotonic()
    if case.path.endswith(_ENDLESS):
        return _open(case, key, tally)
    try:
        response = case.call(headers=headers, timeout=_SECONDS)
    except RequestException as error:
        tally.faults.append(f"{type(error).__name__}: {str(error)[:200]}")
        return
    tally.slowest = max(tally.slowest, time.monotonic() - started)
    tally.statuses[response.status_code] += 1
    try:
        case.validate_response(response, checks=CHECKS, headers=headers)
    except FailureGroup as group:
        said = "; ".join(" ".join(str(failure).split())[:300] for failure in group.exceptions)
        tally.faults.append(f"{response.status_code} {case.method} {response.request.url}: {said}")


def _open(case: Any, key: dict[str, str], tally: Tally) -> None:
    """Only the head of an answer that has no end."""
    asked = case.as_transport_kwargs()
    query = {name: str(value) for name, value in (asked.get("params") or {}).items()}
    started = time.monotonic()
    with httpx.stream("GET", asked["url"], params=query, headers=key, timeout=_SECONDS) as response:
        tally.slowest = max(tally.slowest, time.monotonic() - started)
        tally.statuses[response.status_code] += 1
        kind = response.headers.get("content-type", "").partition(";")[0]
        if response.status_code >= 500 or kind != ("text/event-stream" if response.is_success else "application/json"):
            tally.faults.append(f"{response.status_code} {kind} {response.url}")


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Proxy]:
    with FakeProvider() as provider, Proxy(folder, {"gpt": provider.base_url}, custom_auth=True) as proxy:
        fill(proxy)
        yield proxy
