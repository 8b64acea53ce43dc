"""Hostile input, in short. `python -m tests.fuzz` is the long form."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_plugin import rewrite_history
from proxy_plugin.gateway.replies import Names, streamed_reply
from proxy_plugin.history.wire import CODECS
from proxy_plugin.sessions import keys
from proxy_plugin.sessions.embedded import Endpoint
from proxy_plugin.sessions.identity import address
from tests.fuzz import boundary, stored
from tests.fuzz.bench import server, worker
from tests.fuzz.growth import AT_MOST
from tests.fuzz.histories import broken_promises
from tests.fuzz.mutation import mutants
from tests.fuzz.shapes import SHAPES, TRAPPED, Shape
from tests.fuzz.work import lines_run
from tests.validators import judge

SEED = 7
MUTANTS = 24
LONGEST_SECONDS = 120  # for what takes about two: it is to show that nothing hangs, not how fast it is
DEEP = ("a result of many levels", "brackets")
_ONE_MESSAGE = frozenset({"one message of 10 MB", "a number of many digits", *DEEP})


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with server(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


def test_no_mutated_conversation_breaks_a_promise() -> None:
    found = {mutant: broken_promises(mutant) for mutant in itertools.islice(mutants(SEED), MUTANTS)}
    assert {mutant: faults for mutant, faults in found.items() if faults} == {}


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.name not in _ONE_MESSAGE], ids=lambda shape: shape.name)
def test_twice_the_history_is_no_more_than_about_twice_the_work(shape: Shape) -> None:
    size = max(shape.size // 200, 4)
    assert lines_run(shape, 2 * size) <= AT_MOST * lines_run(shape, size)


def test_nothing_hangs_on_what_could_trip_a_regular_expression() -> None:
    """20 kB of each, and brackets without end. In a process of its own, which can be ended."""
    program = (
        "from dataclasses import replace\n"
        "from tests.fuzz.growth import rewritten\n"
        "from tests.fuzz.shapes import SHAPES, TRAPPED\n"
        f"for shape in [*TRAPPED, *(s for s in SHAPES if s.name in {DEEP})]:\n"
        "    assert not rewritten(shape, shape.make(20_000)).limited, shape.name\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr


def test_there_are_traps_for_each_place() -> None:
    assert len({shape.name for shape in TRAPPED}) == len(TRAPPED) > 100


def test_the_hooks_pass_whatever_comes(endpoint: Endpoint) -> None:
    tally = asyncio.run(boundary.fuzz(endpoint, SEED, 15))
    assert tally.handled > 8 and not tally.faults, tally.examples


def test_harmed_bytes_cost_no_more_than_they_hold(endpoint: Endpoint) -> None:
    tally = asyncio.run(stored.fuzz(endpoint, SEED, 6))
    assert not tally.faults, tally.examples
    assert tally.whole > tally.mutations / 2


# What was found once


def test_a_turn_of_many_pieces_is_written_and_joined_in_linear_time() -> None:
    shape = next(shape for shape in SHAPES if shape.name == "messages: texts and lost results")
    wire = shape.make(10_000)
    out = rewrite_history(wire, api="messages", provider="anthropic", settings=shape.settings).messages
    assert len(out) == 3 and len(out[-1]["content"]) == 20_000


def test_joining_what_is_kept_leaves_it_as_it_is() -> None:
    results = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "v"} for n in range(3)]
    kept = [[False, {"role": "user", "content": results[:1]}], *([True, {"content": [one]}] for one in results[1:])]
    for _ in range(2):
        assert CODECS["messages"].join(kept) == [{"role": "user", "content": results}]


def test_a_call_that_is_no_object_gets_no_result() -> None:
    wire = [{"role": "assistant", "content": None, "tool_calls": ["call_1"]}, {"role": "user", "content": "go on"}]
    assert rewrite_history(wire).messages is wire


def test_a_result_in_a_lost_result_is_told_as_text() -> None:
    inner = {"type": "tool_result", "tool_use_id": "t2", "content": "the value"}
    lost = {"type": "tool_result", "tool_use_id": "t1", "content": [inner, {"type": "text", "text": "beside it"}]}
    wire = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [lost]},
    ]
    out = rewrite_history(wire, api="messages", provider="anthropic").messages
    assert judge(out, "anthropic", "messages") == [] and rewrite_history(out, api="messages").messages is out
    assert all(text in str(out[-1]["content"]) for text in ("the value", "beside it"))


@pytest.mark.parametrize("part", [{"type": "text"}, {"type": "text", "text": 7}, {"type": ["text"]}, {"type": {}}])
def test_a_text_without_a_text_is_read(part: object) -> None:
    for api, role in (("chat", "user"), ("messages", "assistant"), ("messages", "user"), ("responses", "user")):
        wire = [{"role": role, "content": [part]}]
        assert rewrite_history(wire, api=api).limited == ""


def test_a_number_of_more_digits_than_python_writes_is_no_error() -> None:
    wire = [{"role": "user", "content": [{"type": "text", "text": "a", "n": 10**5_000}], 10**5_000: 1}]
    assert rewrite_history(wire).messages is wire


def test_a_stream_of_messages_arrives_in_its_order_and_form() -> None:
    call = b'data: {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t1"}}'
    for came in (
        [b"", b"data: {", b"", call[7:], b"\n\n"],
        ["", " ", "data: {"],
        [call.decode()],
        [b"data: {", {"type": "ping"}, call, "text"],
        [{"type": "ping"}, call[:40], call[40:].decode(), b"\n"],
    ):
        stream = streamed_reply("messages", Names())
        got = [*itertools.chain.from_iterable(map(stream.see, came)), *stream.rest()]
        assert boundary.joined(got) == boundary.joined(came)


def test_a_message_of_many_levels_goes_on_from_what_is_stored(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        deep: object = "leaf"
        for _ in range(3_000):
            deep = [{"type": "text", "content": deep}]
        wire = [{"role": "user", "content": "begin"}, {"role": "assistant", "content": "done"}]
        headers = {"x-litellm-session-id": "deep", "x-proxy-plugin-resume": "head"}
        async with worker(endpoint) as one:
            for messages, sent in ((wire, {}), ([{"role": "user", "content": deep}], headers)):
                named = {"x-litellm-session-id": "deep", **sent}
                data = {"model": "gpt", "messages": messages, "proxy_server_request": {"headers": named, "body": {}}}
                answer = await one.pre(data, "anthropic_messages")
                await one.settled(address(one.caller.tenant, "deep"))
            assert answer is not None and answer["x-proxy-plugin-resumed"] == "1" and len(data["messages"]) == 3
            assert not one.faults

    asyncio.run(scenario())


def test_steps_of_a_request_that_lead_in_a_circle_are_told_as_damaged(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        async with worker(endpoint) as one:
            await stored.command(one, "FLUSHALL")
            await stored.told(one)
            key = keys.of_session(address(one.caller.tenant, stored.NAME)).requests
            fields = sorted(name for name in await stored.command(one, "HKEYS", key) if name.startswith(b"w:"))
            for name, other in zip(fields, [*fields[1:], fields[0]], strict=True):
                value = await stored.command(one, "HGET", key, name)
                await stored.command(one, "HSET", key, name, other[2:] + value[16:])
            base = f"/sessions/{stored.NAME}"
            for entry in (await one.http.get(base + "/requests")).json()["requests"]:
                answer = await one.http.get(f"{base}/requests/{entry['n']}")
                assert answer.status_code == 404, answer.text
            assert (await one.http.get(base + "/export")).status_code == 200

    asyncio.run(scenario())


def test_numbers_of_a_session_that_are_none_cost_no_snapshot_and_no_record(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        async with worker(endpoint) as one:
            await stored.command(one, "FLUSHALL")
            wire = await stored.told(one)
            place = address(one.caller.tenant, stored.NAME)
            names, base = keys.of_session(place), f"/sessions/{stored.NAME}"
            for part, field in ((names.meta, "messages"), (names.meta, "last"), (names.requests, "n")):
                await stored.command(one, "HSET", part, field, "no number")
            answer = await one.http.post(base + "/snapshots", json={"name": "now"})
            assert answer.status_code == 201, answer.text
            await stored.turn(one, wire, agent="writer")
            await one.settled(place)
            assert len((await one.http.get(base + "/requests")).json()["requests"]) == 1

    asyncio.run(scenario())


def test_a_line_break_in_a_path_is_answered_like_anything_else(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        async with worker(endpoint) as one:
            for path in ("/sessions/a%0Ab/subtasks/c%0A/d%0A/rollback", "/sessions/a%0Ab/nothing%0A"):
                answer = await one.http.post(path, json={})
                assert answer.status_code == 404 and answer.json()["error"]["type"] == "not_found_error"

    asyncio.run(scenario())
