"""What a hook does for one call of a client's, gathered from the events that it sets off.

Events know no call. A hook runs in the context of its request, and there they find it. Whatever is started
meanwhile inherits that context and may live much longer (a lease, a flush): a call that is over hears no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proxy_plugin.events import Emit, Event, PassedThrough, RequestHandled


class Happened(NamedTuple):
    at_ns: int
    event: Event


@dataclass(slots=True)
class Call:
    """A client's call while a hook works for it. Times are nanoseconds since 1970.

    id       LiteLLM's id of the call, which is the response header x-litellm-call-id
    parent   LiteLLM's OpenTelemetry span of the request; None where nothing is traced
    hook     what is done for it: "rewrite" (the request) or "reply"
    session  as in the response header x-proxy-plugin-session, "" where there is none"""

    id: str
    parent: Any = None
    hook: str = "rewrite"
    session: str = ""
    began_ns: int = 0
    ended_ns: int = 0
    happened: list[Happened] = field(default_factory=list)

    @property
    def handled(self) -> RequestHandled | None:
        """The request's outcome; None for a reply."""
        found = [event for _, event in self.happened if isinstance(event, RequestHandled)]
        return found[-1] if found else None

    @property
    def passed(self) -> tuple[str, ...]:
        """Reasons for which the plugin stood aside, in whole or in part."""
        return tuple(dict.fromkeys(event.reason for _, event in self.happened if isinstance(event, PassedThrough)))


Tell = Callable[[Call], None]
_current: ContextVar[Call | None] = ContextVar("proxy_plugin_call", default=None)


def current_id() -> str:
    """Of the call that a hook works for here, "" where none does."""
    call = _current.get()
    return call.id if call is not None and not call.ended_ns else ""


def listening(emit: Emit) -> Emit:
    """An `emit` that also notes for the current call what happens."""

    def heard(event: Event) -> None:
        call = _current.get()
        if call is not None and not call.ended_ns:
            call.happened.append(Happened(time.time_ns(), event))
        emit(event)

    return heard


@contextmanager
def during(call: Call, *told: Tell) -> Iterator[Call]:
    """While the block runs, events are the call's; then it is told to each of these, which must not raise."""
    call.began_ns = time.time_ns()
    before = _current.set(call)
    try:
        yield call
    finally:
        call.ended_ns = time.time_ns()
        _current.reset(before)
        for tell in told:
            tell(call)
