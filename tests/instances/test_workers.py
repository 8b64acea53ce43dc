"""Several workers, and several proxies, on one store: as good as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.fake_provider import FakeProvider, ReusingModel
from tests.instances import lives
from tests.instances.fleet import Fleet
from tests.instances.plays import KEY, PLAYS, SESSION, Seat, play, whole
from tests.proxy import Proxy, eventually

AT_ONCE = 12


@pytest.fixture(scope="module")
def models(provider: FakeProvider) -> dict[str, Any]:
    claude = {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"}
    return {"gpt": provider.base_url, "claude": claude}


@pytest.fixture(autouse=True)
def own_brain(provider: FakeProvider) -> Iterator[None]:
    provider.requests.clear()
    yield
    provider.brain = ReusingModel()


@pytest.fixture(scope="module")
def seats(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any], proxy: Proxy) -> Iterator[list[Seat]]:
    """A proxy of two workers, and the one that all tests share, on the latter's store."""
    with lives.embedded_store(proxy) as store:
        place = store.connection_pool.connection_kwargs
    url = f"redis://:{place['password']}@{place['host']}:{place['port']}/0"
    folder = tmp_path_factory.mktemp("workers")
    with Fleet(folder, models, server="gunicorn", redis_url=url, custom_auth=True, key=proxy.key) as fleet:
        one, other = fleet.workers()
        yield [Seat(fleet, one), Seat(proxy), Seat(fleet, other)]


@pytest.mark.parametrize("name", PLAYS)
def test_a_session_that_hops_between_them_is_the_same_session(
    name: str, seats: list[Seat], provider: FakeProvider
) -> None:
    proxy = seats[1].proxy
    alone = play(name, [seats[1]], provider, f"alone-{name}".replace(" ", "-").replace(",", ""))
    seen = whole(proxy, alone)
    hopped = play(name, seats, provider, f"hopped-{name}".replace(" ", "-").replace(",", ""))
    assert hopped.bodies == alone.bodies
    assert hopped.session != alone.session
    assert len(set(hopped.ids)) == len(hopped.ids) and hopped.ids == alone.ids
    assert whole(proxy, hopped) == seen
    assert whole(seats[0].proxy, hopped) == seen
    assert provider.refused() == []


def test_a_stream_on_one_and_the_next_request_on_another(seats: list[Seat], provider: FakeProvider) -> None:
    """The client asks again before its stream has ended: both replies are kept, each on a branch."""
    trees = []
    for name, (first, second) in (("alone-beside", (seats[1], seats[1])), ("hopped-beside", (seats[0], seats[1]))):
        streaming = lives.Held(first.openai(), provider, name)
        eventually(lambda n=name: seats[1].proxy.get(f"/sessions/{n}", key=KEY).status_code == 200)
        lives.ask(second.openai(), name, "another beginning")
        streaming.release()
        streaming.rest()
        trees.append(eventually(lambda n=name: tree_of(seats[1].proxy, n, 4)))
    assert trees[0] == trees[1]


def tree_of(proxy: Proxy, session: str, size: int) -> set[tuple[str, str]] | None:
    """Each node with its parent, once there are so many."""
    nodes = proxy.get(f"/sessions/{session}/tree", key=KEY, limit=500).json()["nodes"]
    found = {(node["id"], node["parent"]) for node in nodes}
    return found if len(nodes) == len(found) == size else None


def test_requests_of_one_session_at_once_on_all_of_them(seats: list[Seat], provider: FakeProvider) -> None:
    opening = [{"role": "user", "content": "call report {}"}, {"role": "assistant", "content": "There."}]
    before = len(provider.requests)

    def send(number: int) -> str:
        proxy = seats[number % 2].proxy
        client = openai.OpenAI(base_url=proxy.base_url, api_key=KEY, max_retries=0)
        messages: Any = [*opening, {"role": "user", "content": f"question {number}"}]
        headers = {SESSION: "at-once"}
        reply = client.chat.completions.create(model="gpt", messages=messages, extra_headers=headers)
        return str(reply.choices[0].message.content)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(send, range(AT_ONCE)))
    assert [f"question {number}" in reply for number, reply in enumerate(replies)] == [True] * AT_ONCE
    asked = sorted(orjson.dumps(request.messages) for request in provider.requests[before:])
    assert asked == sorted(
        orjson.dumps([*opening, {"role": "user", "content": f"question {n}"}]) for n in range(AT_ONCE)
    )

    nodes = eventually(lambda: tree_of(seats[0].proxy, "at-once", len(opening) + 2 * AT_ONCE))
    parents = Counter(parent for _, parent in nodes)
    assert max(parents.values()) == AT_ONCE  # all of them went on from the same message
    session = eventually(lambda: counted_whole(seats[1].proxy))
    assert session["subtasks"] == AT_ONCE and session["snapshots"] == AT_ONCE
    branches = seats[1].proxy.get("/sessions/at-once/branches", key=KEY, limit=100).json()["branches"]
    assert len({branch["name"] for branch in branches}) == len({branch["head"] for branch in branches}) == AT_ONCE


def counted_whole(proxy: Proxy) -> Any:
    session = proxy.get("/sessions/at-once", key=KEY).json()
    return session if session["requests"] == AT_ONCE else None


def test_killed_then_told_to_stop(tmp_path: Path, models: dict[str, Any], provider: FakeProvider) -> None:
    """Two workers with the embedded server, which one of them has started."""
    fleet = Fleet(tmp_path, models, server="gunicorn", environ=lives.ENVIRON)
    try:
        fleet.start()
        fleet.workers()
        lives.loses_a_worker(fleet, provider)
        lives.told_to_stop(fleet, provider)
    finally:
        fleet.stop()
    lives.leaves_nothing_running(fleet)
    with lives.embedded_store(fleet) as store:
        lives.all_is_stored(store)
