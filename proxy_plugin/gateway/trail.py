"""What a provider's cache can know of a request: the beginning that it shares with the one before it.

Worked out from the node ids and the plan of the two requests, without looking at a text; the tokens are counted
once the reply is there, and only those of messages that are new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy_plugin.events import Prompt
from proxy_plugin.history.chain import common
from proxy_plugin.history.path import Path
from proxy_plugin.history.plan import Edit, Plan
from proxy_plugin.history.tokens import message_tokens, tokens_of


@dataclass(slots=True)
class Trail:
    """What one request leaves for the next one of its session.

    lead     names the leading system text          nodes    node id of each message, "" for system text
    plan     what leaves                            repairs  how many of each kind
    rules    what the rewriting hangs on beside the history
    context  what the client said of its subtasks
    costs    estimated tokens of each step of the plan, once somebody asked"""

    lead: str
    nodes: Sequence[str]
    plan: Plan
    rules: Any
    context: Any
    repairs: Mapping[str, int]
    costs: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """A request beside the one before it.

    received  messages of the history that both begin with
    sent      steps of the plan that both begin with
    broke     why what leaves neither goes on from what left before nor begins it: "client_edit", "repair",
              "settings", "context", "subtask" or "unexplained"; "" where it does, or nothing is known to compare
              it with"""

    path: Path
    trail: Trail
    before: Trail | None
    received: int
    sent: int
    broke: str

    def prompts(self) -> tuple[Prompt, Prompt]:
        """The history as received, and as it leaves."""
        tokens = self.path.tokens
        known = self.before.costs if self.before is not None else None
        costs = known[: self.sent] if known is not None else []
        costs += [_cost(step, tokens) for step in self.trail.plan[len(costs) :]]
        self.trail.costs = costs
        return (
            Prompt(sum(tokens), sum(tokens[: self.received])),
            Prompt(sum(costs), sum(costs[: self.sent])),
        )


def follow(path: Path, trail: Trail, before: Trail | None) -> Followed:
    """`before`: what the session's previous request left; None where that is not known."""
    if before is None or _opening(before.nodes) != _opening(trail.nodes):
        return Followed(path, trail, None, 0, 0, "")  # another conversation under the same id is no edit of this one
    received = common(before.nodes, trail.nodes) if before.lead == trail.lead else 0
    sent = common(before.plan, trail.plan)
    if received < len(before.nodes):  # steps that are written alike may read other messages
        sent = next((at for at, step in enumerate(trail.plan[:sent]) if _reads(step) >= received), sent)
    broke = ""
    if sent < min(len(before.plan), len(trail.plan)):
        broke = next((cause for cause, holds in _CAUSES if holds(before, trail, received, sent)), "unexplained")
    return Followed(path, trail, before, received, sent, broke)


def _collapsed(before: Trail, now: Trail, received: int, sent: int) -> bool:
    """Messages that left as they are have become a summary. The report says so of the request with which a subtask
    ends; where the client went on further before it asked again, it shows here."""
    step = now.plan[sent]
    return isinstance(before.plan[sent], int) and isinstance(step, Edit) and bool(step.instead_of)


_CAUSES: tuple[tuple[str, Callable[[Trail, Trail, int, int], bool]], ...] = (
    ("client_edit", lambda before, now, received, _: received < min(len(before.nodes), len(now.nodes))),
    ("settings", lambda before, now, *_: before.rules != now.rules),
    ("context", lambda before, now, *_: before.context != now.context),
    ("repair", lambda before, now, *_: before.repairs != now.repairs),
    ("subtask", _collapsed),
)


def _opening(nodes: Sequence[str]) -> str:
    return next((node for node in nodes if node), "")


def _reads(step: int | Edit) -> int:
    """The last message that a step is made of."""
    if isinstance(step, int):
        return step
    return max((*step.instead_of, -1 if step.source is None else step.source))


def _cost(step: int | Edit, tokens: Sequence[int]) -> int:
    """Estimated tokens of what a step puts out; `tokens`: of the messages that came."""
    if isinstance(step, int):
        return tokens[step]
    total = message_tokens(step.added) if step.added is not None else 0
    total += tokens[step.source] if step.source is not None else 0
    return total + sum(tokens_of(text) for text in (step.result, step.summary) if text is not None)
