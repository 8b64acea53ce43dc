"""The store against a plain model in memory, step by step, over random conversations."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.embedded import Endpoint
from tests.sessions.conftest import World
from tests.sessions.paths import ids_of, reply, request, session

TURNS = st.sampled_from(["1", "2"])


class Model:
    """A session as the words of the design have it: nodes, branches, the current one, subtasks."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}  # node id -> path to it
        self.runs: dict[str, str | None] = {}  # node id -> the subtask it was written in
        self.side: set[str] = set()
        self.branches: dict[str, str] = {}
        self.current: str | None = None
        self.subtasks: dict[str, str] = {}

    def commit(self, path: str, kind: str, start: int, closes: bool) -> int:
        names, ids = path.split(), ids_of(path)
        begins = "auto-" + ids[start][:12] if start < len(ids) else None
        known = max((i + 1 for i, node in enumerate(ids) if node in self.paths), default=0)
        base = ids[known - 1] if known else None
        new = ids[known:]
        if new:
            replied = "a" in path[: path.rfind(" ")] or "c" in path[: path.rfind(" ")]
            side = (base in self.side and kind == "reply") if base else (self.current is not None and not replied)
            branch = next((name for name, head in self.branches.items() if head == base), None)
            branch = branch or ("main" if not self.branches else f"branch-{len(self.branches) + 1}")
            self.branches[branch] = ids[-1]
            for i, node in enumerate(ids):
                if node not in self.paths:
                    self.paths[node] = " ".join(names[: i + 1])
                    self.runs[node] = begins if begins and i >= start else self.runs.get(ids[i - 1]) if i else None
            if side:
                self.side.update(new)
            else:
                self.current = branch
        if begins is not None:
            if begins not in self.subtasks:
                self.subtasks[begins] = "in_progress"
                before = self.runs[ids[start - 1]] if start and names[start - 1][0] in "ac" else None
                if before in self.subtasks and before != begins:
                    self.subtasks[before] = "completed"
            if closes:
                self.subtasks[begins] = "completed"
        return len(new)


class StoreMachine(RuleBasedStateMachine):
    endpoint: Endpoint

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = World(self.endpoint)
        self.do(self.world.redis("FLUSHALL"))
        self.workers = [self.world.worker() for _ in range(2)]
        self.model = Model()

    def do(self, answer: Any) -> Any:
        return self.loop.run_until_complete(answer)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.do(self.world.close())
            self.loop.close()

    @rule(data=st.data(), turn=TURNS, worker=st.integers(0, 1))
    def ask(self, data: st.DataObject, turn: str, worker: int) -> None:
        """A user's turn or a tool's result on any message that can have one, or on nothing."""
        known = [path for path in self.model.paths.values() if path.split()[-1][0] in "ac"]
        before = data.draw(st.sampled_from(["", *sorted(known)]))
        role = "t" if before.split()[-1:] and before.split()[-1][0] == "c" else "u"
        self.commit(worker, f"{before} {role}{turn}".strip(), "request")

    @rule(data=st.data(), turn=TURNS, kind=st.sampled_from("ac"), worker=st.integers(0, 1))
    def answer(self, data: st.DataObject, turn: str, kind: str, worker: int) -> None:
        asked = [path for path in self.model.paths.values() if path.split()[-1][0] in "ut"]
        if asked:
            path = data.draw(st.sampled_from(sorted(asked)))
            self.commit(worker, f"{path} {kind}{turn}", "reply")

    @rule(data=st.data(), worker=st.integers(0, 1))
    def send_again(self, data: st.DataObject, worker: int) -> None:
        asked = [path for path in self.model.paths.values() if path.split()[-1][0] in "ut"]
        if asked:
            self.commit(worker, data.draw(st.sampled_from(sorted(asked))), "request")

    @rule(turns=st.lists(st.tuples(TURNS, TURNS), min_size=1, max_size=3), last=TURNS, worker=st.integers(0, 1))
    def import_a_conversation(self, turns: list[tuple[str, str]], last: str, worker: int) -> None:
        self.commit(worker, " ".join(f"u{asked} a{told}" for asked, told in turns) + f" u{last}", "request")

    def commit(self, worker: int, path: str, kind: str) -> None:
        commit = (request if kind == "request" else reply)(path)
        done = self.do(self.workers[worker].commit(commit))
        assert done.new_nodes == self.model.commit(path, kind, commit.subtask_start, commit.closes)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model") or not self.model.paths:
            return
        store, model = self.workers[0], self.model
        names = keys.of_session(session())
        stored = {key.decode() for key in self.do(self.world.redis("HKEYS", names.nodes))}
        assert stored == set(model.paths)
        assert {branch.name: branch.head for branch in self.do(store.reader.branches(session()))} == model.branches
        info = self.do(store.reader.session(session()))
        assert info.branch == model.current
        assert info.message_count == len(model.paths[model.branches[model.current or ""]].split())
        for name, head in model.branches.items():
            history = self.do(store.reader.history(session(), branch=name))
            assert [node.id for node in history.nodes] == ids_of(model.paths[head])
            assert {node.id for node in history.nodes if node.side} == model.side & set(ids_of(model.paths[head]))
        assert {subtask.id: subtask.state for subtask in self.do(store.reader.subtasks(session()))} == model.subtasks


def test_the_store_does_what_the_model_does(endpoint: Endpoint) -> None:
    machine = type("Machine", (StoreMachine,), {"endpoint": endpoint})
    run_state_machine_as_test(machine, settings=settings(max_examples=settings().max_examples // 4))
