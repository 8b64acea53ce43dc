"""Many writers at once: what was acknowledged is there exactly once, and nobody ever sees half a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.store import SessionStore
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import TENANT, ids_of, reply, request, session

Play = Callable[[Scenario], None]
WORKERS, WRITERS, TURNS = 4, 32, 8
SESSIONS = 1_000


class OneSession:
    """What is written to it, by whom ever. `begun`: ends of the requests and replies that were sent to the store."""

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.new_nodes = 0
        self.acknowledged: set[str] = set()

    async def commit(self, worker: SessionStore, path: str, kind: str = "request") -> None:
        self.begun.add(ids_of(path)[-1])
        done = await worker.commit((request if kind == "request" else reply)(path))
        self.new_nodes += done.new_nodes
        self.acknowledged.add(path)


def test_32_writers_on_one_session(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers, written = [world.worker() for _ in range(WORKERS)], OneSession()

        async def talks(number: int) -> None:
            """Turn by turn, each by another worker. Two writers say the same."""
            path, said = "u a", number // 2
            for turn in range(TURNS):
                path += f" u{said}.{turn}"
                await written.commit(workers[(number + turn) % WORKERS], path)
                path += f" a{said}.{turn}"
                await written.commit(workers[number % WORKERS], path, "reply")

        async def brings_several(number: int) -> None:
            """Four messages that nobody has stored yet with each request."""
            path = "u a"
            for turn in range(TURNS):
                name = f"{number}.{turn}"
                path += f" u{name} c{name} t{name} a{name}" * (turn > 0) + f" u{name}+"
                await written.commit(workers[(number + turn) % WORKERS], path)

        async def reads(worker: SessionStore) -> int:
            """All heads that it sees are ends of requests or replies, with all that is before."""
            seen = 0
            while not writing.done():
                for branch in await worker.reader.branches(session()):
                    assert branch.head in written.begun
                history = await worker.reader.history(session())
                assert history is not None and not history.missing
                parents = ["", *(node.id for node in history.nodes[:-1])]
                assert [node.parent for node in history.nodes] == parents
                assert history.nodes[-1].id in written.begun and history.nodes[-1].depth == len(parents)
                seen += 1
            return seen

        await written.commit(workers[0], "u")
        await written.commit(workers[0], "u a", "reply")
        half = WRITERS // 2
        writers = [*map(talks, range(half)), *map(brings_several, range(half, WRITERS))]
        writing = asyncio.gather(*writers)
        assert await reads(world.worker()) > 1
        await writing

        nodes = {node for path in written.acknowledged for node in ids_of(path)}
        assert written.new_nodes == len(nodes)
        names = keys.of_session(session())
        stored = [node.decode() for node in await world.redis("LRANGE", names.log, 0, -1)]
        assert sorted(stored) == sorted(nodes)
        assert {node.decode() for node in await world.redis("HKEYS", names.bodies)} == nodes
        reader = workers[0].reader
        tree, damaged = await reader.tree(session())
        assert {node.id for node in tree} == nodes and not damaged
        ends = nodes - {node.parent for node in tree}
        assert ends <= {branch.head for branch in await reader.branches(session())}
        for end in ends:
            history = await reader.history(session(), node=end)
            assert history is not None and not history.missing
            assert [node.id for node in history.nodes] in [ids_of(path) for path in written.acknowledged]

    play(scenario)


def test_1000_sessions_in_parallel(play: Play) -> None:
    async def scenario(world: World) -> None:
        workers = [world.worker() for _ in range(WORKERS)]
        path = "u1 a1 u2 a2"

        async def talks(number: int) -> int:
            place, new = session(f"s-{number}"), 0
            for length in range(1, 5):
                said = " ".join(path.split()[:length])
                commit = (reply if length % 2 == 0 else request)(said, place)
                new += (await workers[(number + length) % WORKERS].commit(commit)).new_nodes
            return new

        assert await asyncio.gather(*map(talks, range(SESSIONS))) == [4] * SESSIONS
        for number in range(SESSIONS):
            names = keys.of_session(session(f"s-{number}"))
            assert [node.decode() for node in await world.redis("LRANGE", names.log, 0, -1)] == ids_of(path)
        history = await workers[0].reader.history(session("s-500"))
        assert history is not None and [node.id for node in history.nodes] == ids_of(path)
        for worker in workers:
            await worker.index.flush()
        assert (await workers[0].index.sessions(TENANT, limit=1)).total == SESSIONS

    play(scenario)
