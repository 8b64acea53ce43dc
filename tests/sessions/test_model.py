"""The store against a plain model in memory, step by step, over random conversations, branches and snapshots."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.edits import Refused
from proxy_plugin.sessions.embedded import Endpoint
from proxy_plugin.sessions.reader import now_ms
from proxy_plugin.sessions.snapshots import Restored
from proxy_plugin.sessions.subtasks import Plan, Refusal
from proxy_plugin.sessions.tree import MAX_ATTEMPTS, Branch, Snapshot, Subtask
from tests.sessions.conftest import World
from tests.sessions.paths import meant, reply, request, session, spoken

TURNS = st.sampled_from(["1", "2"])
PLANNED = st.sampled_from(["plan", "build"])
NAMES = st.sampled_from(["main", "branch-2", "branch-3", "mine", "ours"])


def ids_of(path: str) -> list[str]:
    return meant(path)[0]


class Model:
    """A session as the words of the design have it: nodes, branches, the current one, subtasks, snapshots."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {"": ""}  # node id -> path to it
        self.runs: dict[str, str | None] = {}  # node id -> the subtask it was written in
        self.side: set[str] = set()
        self.branches: dict[str, str] = {}
        self.numbered = 0
        self.current: str | None = None
        self.back = False  # the head was set back, and nothing new was said since
        self.subtasks: dict[str, str] = {}
        self.attempts: dict[str, int] = {}  # of those that were begun by hand
        self.needs: dict[str, tuple[str, ...]] = {}
        self.snapshots: dict[str, str] = {}  # made by hand: its id -> node

    @property
    def head(self) -> str:
        return self.branches[self.current] if self.current else ""

    def commit(self, path: str, kind: str, start: int, closes: bool) -> int:
        names, ids = path.split(), ids_of(path)
        begins = "auto-" + ids[start][:12] if start < len(ids) else None
        known = max((i + 1 for i, node in enumerate(ids) if node in self.paths), default=0)
        base = ids[known - 1] if known else ""
        new = ids[known:]
        grows = self.current is not None and self.head == base
        replied = "a" in path[: path.rfind(" ")] or "c" in path[: path.rfind(" ")]
        aside = base in self.side and kind == "reply" if base else self.current is not None and not replied
        side = aside and not grows
        forward = self.back and not side and base and base != self.head and self._is_above(self.head, base)
        branch = self.current
        if new and not grows:
            others = sorted(name for name, head in self.branches.items() if base and head == base)
            branch = others[0] if others else self.current if forward else self._next_name()
        if (new or forward) and branch is not None:
            self.branches[branch] = ids[-1]
            for i, node in enumerate(ids):
                if node not in self.paths:
                    self.paths[node] = " ".join(names[: i + 1])
                    self.runs[node] = begins if begins and i >= start else self.runs.get(ids[i - 1]) if i else None
            if side:
                self.side.update(new)
            else:
                self.current = branch
                self.back = self.back and not new
        if begins is not None:
            if begins not in self.subtasks:
                self.subtasks[begins] = "in_progress"
                before = self.runs[ids[start - 1]] if start and names[start - 1][0] in "ac" else None
                if before in self.subtasks and before != begins:
                    self.subtasks[before] = "completed"
            if closes:
                self.subtasks[begins] = "completed"
        return len(new)

    def _is_above(self, node: str, other: str) -> bool:
        return not node or node in ids_of(self.paths[other])

    def _next_name(self) -> str:
        while True:
            self.numbered += 1
            name = "main" if self.numbered == 1 else f"branch-{self.numbered}"
            if name not in self.branches:
                return name

    def restore(self, node: str, preserve: bool) -> None:
        goal = node
        if preserve:
            path = self.paths[node].split()
            here = set(ids_of(self.paths[node]))
            current = self.paths[self.head].split()
            results = [
                (name, i)
                for i, (name, at) in enumerate(zip(current, ids_of(self.paths[self.head]), strict=True))
                if name[0] == "a" and at not in here
            ]
            if results:
                on_top = " ".join([*path, results[-1][0]])
                goal = ids_of(on_top)[-1]
                original = ids_of(self.paths[self.head])[results[-1][1]]
                if goal != self.head and goal not in self.paths:
                    self.paths[goal] = on_top
                    self.runs[goal] = self.runs.get(node) if node else self.runs[original]
        if goal != self.head:
            self.current = self._next_name()
            self.branches[self.current] = goal
            self.back = True


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
        known = [path for path in self.model.paths.values() if path and path.split()[-1][0] in "ac"]
        before = data.draw(st.sampled_from(["", *sorted(known)]))
        self.go_on(before, turn, worker)

    @rule(turn=TURNS, worker=st.integers(0, 1))
    def ask_on_the_current_path(self, turn: str, worker: int) -> None:
        path = self.model.paths[self.model.head]
        if not path or path.split()[-1][0] in "ac":
            self.go_on(path, turn, worker)

    def go_on(self, before: str, turn: str, worker: int) -> None:
        role = "t" if before.split()[-1:] and before.split()[-1][0] == "c" else "u"
        self.commit(worker, f"{before} {role}{turn}".strip(), "request")

    @rule(data=st.data(), turn=TURNS, kind=st.sampled_from("ac"), worker=st.integers(0, 1))
    def answer(self, data: st.DataObject, turn: str, kind: str, worker: int) -> None:
        asked = [path for path in self.model.paths.values() if path and path.split()[-1][0] in "ut"]
        if asked:
            path = data.draw(st.sampled_from(sorted(asked)))
            self.commit(worker, f"{path} {kind}{turn}", "reply")

    @rule(data=st.data(), worker=st.integers(0, 1))
    def send_again(self, data: st.DataObject, worker: int) -> None:
        asked = [path for path in self.model.paths.values() if path and path.split()[-1][0] in "ut"]
        if asked:
            self.commit(worker, data.draw(st.sampled_from(sorted(asked))), "request")

    @rule(turns=st.lists(st.tuples(TURNS, TURNS), min_size=1, max_size=3), last=TURNS, worker=st.integers(0, 1))
    def import_a_conversation(self, turns: list[tuple[str, str]], last: str, worker: int) -> None:
        self.commit(worker, " ".join(f"u{asked} a{told}" for asked, told in turns) + f" u{last}", "request")

    def commit(self, worker: int, path: str, kind: str) -> None:
        commit = spoken((request if kind == "request" else reply)(path, at_ms=now_ms()), path)
        done = self.do(self.workers[worker].commit(commit))
        assert done.new_nodes == self.model.commit(path, kind, commit.subtask_start, commit.closes)

    @rule(data=st.data(), name=NAMES, worker=st.integers(0, 1))
    def create_a_branch(self, data: st.DataObject, name: str, worker: int) -> None:
        node = data.draw(st.sampled_from([None, *sorted(filter(None, self.model.paths))]))
        made = self.do(self.workers[worker].branches.create(session(), name, node and node[:12]))
        if self.model.current is None:
            assert made is Refused.NO_SESSION
        elif name in self.model.branches:
            assert made is Refused.NAME_TAKEN
        else:
            self.model.branches[name] = self.model.head if node is None else node
            assert isinstance(made, Branch) and made.head == self.model.branches[name]

    @rule(name=NAMES, worker=st.integers(0, 1))
    def switch(self, name: str, worker: int) -> None:
        switched = self.do(self.workers[worker].branches.switch(session(), name))
        if name in self.model.branches:
            self.model.current, self.model.back = name, True
        else:
            assert switched is Refused.NO_BRANCH

    @rule(name=NAMES, new=NAMES, worker=st.integers(0, 1))
    def rename(self, name: str, new: str, worker: int) -> None:
        renamed = self.do(self.workers[worker].branches.rename(session(), name, new))
        if name not in self.model.branches:
            assert renamed is Refused.NO_BRANCH
        elif new != name and new in self.model.branches:
            assert renamed is Refused.NAME_TAKEN
        else:
            self.model.branches[new] = self.model.branches.pop(name)
            self.model.current = new if self.model.current == name else self.model.current

    @rule(name=NAMES, worker=st.integers(0, 1))
    def delete_a_branch(self, name: str, worker: int) -> None:
        deleted = self.do(self.workers[worker].branches.delete(session(), name))
        if name not in self.model.branches:
            assert deleted is Refused.NO_BRANCH
        elif name == self.model.current:
            assert deleted is Refused.BRANCH_CURRENT
        else:
            del self.model.branches[name]

    @rule(data=st.data(), pin=st.booleans(), worker=st.integers(0, 1))
    def make_a_snapshot(self, data: st.DataObject, pin: bool, worker: int) -> None:
        node = data.draw(st.sampled_from([None, *sorted(filter(None, self.model.paths))]))
        made = self.do(self.workers[worker].snapshots.create(session(), "by hand", node=node, pin=pin))
        if self.model.current is None:
            assert made is (Refused.NO_SESSION if node is None else Refused.NO_NODE)
            return
        assert isinstance(made, Snapshot)
        self.model.snapshots[made.snapshot_id] = self.model.head if node is None else node
        assert made.message_count == len(self.model.paths[made.node].split())

    @rule(data=st.data(), preserve=st.booleans(), delete=st.booleans(), worker=st.integers(0, 1))
    def restore(self, data: st.DataObject, preserve: bool, delete: bool, worker: int) -> None:
        """One made by hand, or one that a subtask began with."""
        if self.model.current is None:
            return
        by_itself = {s.snapshot_id: s.node for s in self.do(self.workers[0].reader.snapshots(session())) if s.auto}
        known = {**by_itself, **self.model.snapshots, "unknown": ""}
        # By number: ids of those made by hand are random, and the choice must be the same when it is repeated.
        chosen = [*sorted(by_itself), *self.model.snapshots, "unknown"][data.draw(st.integers(0, len(known) - 1))]
        restored = self.do(
            self.workers[worker].snapshots.restore(session(), chosen, preserve_last_result=preserve, delete=delete)
        )
        if chosen == "unknown":
            assert restored is Refused.NO_SNAPSHOT
            return
        self.model.restore(known[chosen], preserve)
        assert isinstance(restored, Restored)
        assert (restored.branch, restored.head) == (self.model.current, self.model.head)
        if delete:
            self.model.snapshots.pop(chosen, None)

    @rule(name=PLANNED, needed=st.none() | PLANNED, worker=st.integers(0, 1))
    def begin_a_subtask(self, name: str, needed: str | None, worker: int) -> None:
        model, needs = self.model, (needed,) if needed not in (None, name) else ()
        begun = self.do(self.workers[worker].subtasks.begin(session(), Plan(name, depends_on=needs)))
        state, attempts = model.subtasks.get(name), model.attempts.get(name, 0)
        over = state == "completed" or (state == "failed" and attempts == MAX_ATTEMPTS)
        if model.current is None or over:
            assert isinstance(begun, Refusal)
        elif state == "in_progress":
            assert not isinstance(begun, Refusal) and not begun[1]
        elif any(model.subtasks.get(one) != "completed" for one in needs or model.needs.get(name, ())):
            assert isinstance(begun, Refusal)
        else:
            model.subtasks[name], model.attempts[name] = "in_progress", attempts + 1
            model.needs[name] = needs or model.needs.get(name, ())
            assert not isinstance(begun, Refusal) and begun[1]
            assert begun[0].attempts == attempts + 1

    @rule(name=PLANNED, how=st.sampled_from(["completed", "failed"]), worker=st.integers(0, 1))
    def end_a_subtask(self, name: str, how: str, worker: int) -> None:
        subtasks = self.workers[worker].subtasks
        ended = self.do((subtasks.complete if how == "completed" else subtasks.fail)(session(), name, "so"))
        if self.model.subtasks.get(name) == "in_progress":
            self.model.subtasks[name] = how
            assert isinstance(ended, Subtask) and ended.state == how
        else:
            assert isinstance(ended, Refusal) and ended.unknown == (name not in self.model.subtasks)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model") or self.model.current is None:
            return
        store, model = self.workers[0], self.model
        names = keys.of_session(session())
        stored = {key.decode() for key in self.do(self.world.redis("HKEYS", names.nodes))}
        assert stored == set(model.paths) - {""}
        assert {branch.name: branch.head for branch in self.do(store.reader.branches(session()))} == model.branches
        info = self.do(store.reader.session(session()))
        assert (info.branch, info.head) == (model.current, model.head)
        assert info.message_count == len(model.paths[model.head].split())
        for name, head in model.branches.items():
            history = self.do(store.reader.history(session(), branch=name))
            assert [node.id for node in history.nodes] == ids_of(model.paths[head])
            assert {node.id for node in history.nodes if node.side} == model.side & set(ids_of(model.paths[head]))
        assert {subtask.id: subtask.state for subtask in self.do(store.reader.subtasks(session()))} == model.subtasks
        snapshots = self.do(store.reader.snapshots(session()))
        assert {one.snapshot_id: one.node for one in snapshots if not one.auto} == model.snapshots
        nodes, damaged = self.do(store.reader.tree(session()))
        assert not damaged and {node.id: node.parent for node in nodes} == {
            node: ["", *ids_of(path)][-2] for node, path in model.paths.items() if node
        }


def test_the_store_does_what_the_model_does(endpoint: Endpoint) -> None:
    machine = type("Machine", (StoreMachine,), {"endpoint": endpoint})
    run_state_machine_as_test(machine, settings=settings(max_examples=settings().max_examples // 4))
