"""A request whose subtask needs the results of others: read as the path that it stands on, and what is sent of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxy_plugin.gateway import resume
from proxy_plugin.history.dependencies import Dependent, Result, dependent, text_of_stored
from proxy_plugin.history.dialects import Dialect
from proxy_plugin.history.path import Path
from proxy_plugin.history.rewrite import read
from proxy_plugin.sessions.subtasks import Outcome, Place, Standing
from proxy_plugin.sessions.tree import Commit

Committing = Callable[[Path, Mapping[str, Any]], Commit]
"""The commit of a request's path, with these fields beside its list."""


@dataclass(frozen=True, slots=True)
class Placed:
    """path    the whole path that is stored: the client's list behind its base, if that is not in it
    commit     that of it           fields   what the request has beside its list in addition
    sent       what is rewritten    cleared  tool messages of the past that are not sent"""

    path: Path
    commit: Commit
    fields: Mapping[str, Any]
    sent: Path
    cleared: int


def place_of(commit: Commit) -> Place:
    return Place(commit.ids, commit.explicit_base, commit.first_reply)


def placed(standing: Standing, path: Path, body: Mapping[str, Any], dialect: Dialect, make: Committing) -> Placed:
    """`path`: the client's own list. A base that is damaged, or kept without its texts, is done without."""
    if standing.withheld:
        return Placed(path, replace(make(path, {}), subtask_depends_on=standing.depends_on), {}, path, 0)
    whole = resume.before(standing.base, path, body) if standing.base is not None else None
    own = len(path.messages) - path.lead
    joined = read(whole.wire, path.api) if whole is not None else None
    if whole is not None and joined is not None:
        path, fields = joined, whole.fields
        begins = len(path.messages) - own
    else:
        fields, begins = {}, path.lead + standing.begins
    commit = replace(
        make(path, fields),
        explicit_base=begins - path.lead,
        subtask_depends_on=standing.depends_on,
        subtask_given=standing.given,
    )
    context = dependent(path, begins, [_result(outcome) for outcome in standing.outcomes], dialect)
    return Placed(path, commit, fields, _sent(path, context), context.cleared)


def _sent(path: Path, context: Dependent) -> Path:
    """What is sent, its messages known by their nodes: a summary of a round leads to where it is stored."""
    sent = read(context.wire, path.api) if context.wire != path.wire else None
    if sent is None:
        return path
    if len(sent.messages) == len(context.nodes):
        sent.stands_for(context.nodes)
    return sent


def _result(outcome: Outcome) -> Result:
    subtask = outcome.subtask
    text = subtask.result_text if subtask.result_text is not None else text_of_stored(outcome.body)
    return Result(subtask.id, subtask.description, subtask.agent, text)
