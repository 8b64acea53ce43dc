"""A request between the hooks of its call: what came, and what is known of it until its reply is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from proxy_plugin.events import HistoryEstimated
from proxy_plugin.gateway.calls import Call
from proxy_plugin.history.dialects import Dialect
from proxy_plugin.history.path import Path
from proxy_plugin.history.rewrite import Rewrite
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.tree import Commit
from proxy_plugin.sessions.writer import GuardedStore
from proxy_plugin.settings import Settings


@dataclass(frozen=True, slots=True)
class Incoming:
    """One client request as the gateway hands it over. `wire` is the client's list and is not changed."""

    api: str
    wire: Any
    headers: Mapping[str, str]  # lower-case names; no credentials
    body: Mapping[str, Any]
    tenant: str
    dialect: Dialect
    mode: str  # "enforce" or "audit"
    settings: Settings | None = None  # those that hold for its model, key and team; None: the pipeline's own
    continued: bool = False  # goes on from a response that the provider keeps
    earlier: str = ""  # what the store finds the path by that it goes on from (see identity.kept_under)
    conversation: str = ""  # what the conversation is found by that the provider adds the reply to
    model: str = ""  # the model group, where its name may stand in a label
    dollars: tuple[float, float] | None = None  # see facts.dollars_of


@dataclass(slots=True)
class Work:
    """What a request leaves for its reply."""

    path: Path  # that of the commit
    sent: Path  # what was rewritten: another one where a subtask needs the results of others
    commit: Commit
    rewrite: Rewrite
    address: Address  # of the session, once the store has said which it is
    store: GuardedStore | None  # where its reply goes
    kept: bool  # the provider keeps the reply, to be gone on from by its id
    conversation: str  # what the conversation is found by that the provider adds it to
    request: Commit  # the one that the call to the model is under way for
    reckon: Callable[[], HistoryEstimated] | None  # counts the tokens of what came and of what left


@dataclass(slots=True, weakref_slot=True)
class Turn:
    """One request on its way. `work` is given up once the reply is stored: LiteLLM keeps what a turn hangs on
    for much longer, and a history that outlives its request is work for every garbage collection.

    subtask  node id before the running subtask: names it while the session runs
    headers  the response headers; in audit mode they say what would have been done
    call     what its reply is told as, in logs and spans"""

    messages: Any  # what to send on
    fields: Mapping[str, Any]  # what to send beside it in addition
    headers: Mapping[str, str]
    tag: str
    subtask: str
    enforced: bool
    changed: bool  # it differs from what the client sent, or would
    collapsed: bool
    work: Work | None
    call: Call = field(default_factory=partial(Call, ""))
