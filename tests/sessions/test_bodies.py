"""How bodies lie in the store: what is compressed, and what is read whatever wrote it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.sessions import bodies, keys
from proxy_plugin.sessions.bodies import COMPRESSED_FROM, Codec, size_of
from tests.sessions.paths import request, session, tip_of

LONG = json.dumps([{"id": f"row-{n}", "state": "open", "note": "move along"} for n in range(200)]).encode()
NOISE = random.Random(7).randbytes(5_000)


def encoded(body: bytes) -> bytes:
    return Codec().encode(body, "key", "field")


def decoded(stored: bytes) -> bytes:
    return Codec().decode(stored, "key", "field")


@given(st.binary(max_size=3_000) | st.builds(lambda part, n: part * n, st.binary(min_size=1, max_size=40), st.just(90)))
def test_every_body_reads_back(body: bytes) -> None:
    stored = encoded(body)
    assert decoded(stored) == body
    assert size_of(stored) == len(body)
    assert len(stored) <= len(body) + 2


def test_long_bodies_are_compressed_and_others_stay() -> None:
    assert encoded(LONG)[:2] == b"11" and len(encoded(LONG)) < len(LONG) / 4
    assert encoded(LONG[:COMPRESSED_FROM]) == b"10" + LONG[:COMPRESSED_FROM]
    assert encoded(NOISE) == b"10" + NOISE  # does not shrink


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"1",
        b"20{}",
        b"12{}",
        b"11",
        b"11no frame",
        encoded(LONG)[:-5],
        encoded(LONG)[:40] + b"\xff\xff\xff" + encoded(LONG)[43:],
        # A frame that says it holds 2^63 bytes.
        b"11" + bytes.fromhex("28b52ffd e0 0000000000000080 010000"),
    ],
)
def test_what_is_damaged_raises_one_error(stored: bytes) -> None:
    with pytest.raises(ValueError):
        decoded(stored)


def test_an_older_layout_is_migrated_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version "0" that never was: it had no codec."""
    monkeypatch.setattr(bodies, "MIGRATIONS", {b"0": lambda stored: b"10" + stored[1:]})
    assert decoded(b"0{}") == b"{}"
    assert size_of(b"0{}") == 2
    assert decoded(encoded(LONG)) == LONG
    with pytest.raises(ValueError):
        decoded(b"20{}")


def test_threads_do_not_share_a_context() -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(200):
                body = LONG[: 2_000 + n] + bytes([seed])
                assert decoded(encoded(body)) == body
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_stored_body_is_small_and_its_node_says_its_real_size(
    play: Callable[[Callable[[Any], Awaitable[None]]], None],
) -> None:
    async def scenario(world: Any) -> None:
        store = world.worker()
        await store.commit(request("u1 a1 u2", bodies=[b"{}", LONG, b"{}"]))
        history = await store.reader.history(session())
        assert history is not None
        assert [node.body for node in history.nodes] == [b"{}", LONG, b"{}"]
        assert [node.size for node in history.nodes] == [2, len(LONG), 2]
        names = keys.of_session(session())
        assert await world.redis("HSTRLEN", names.bodies, tip_of("u1 a1")) < len(LONG) / 4

    play(scenario)
