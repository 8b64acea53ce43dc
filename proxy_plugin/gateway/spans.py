"""OpenTelemetry spans of what the plugin did, below LiteLLM's own span of the request.

They are made when a hook is done, with the times of its events, by the tracer of LiteLLM's `otel` callback:
they go wherever its spans go. Without that callback a request has no span, and nothing here runs.

    proxy_plugin.rewrite       the request in the plugin: read, stored, rewritten
    proxy_plugin.reply         the reply stored
    proxy_plugin.store.commit  one awaited write to the store, within either; .read: one awaited read
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from proxy_plugin.events import StoreCalled
from proxy_plugin.gateway.calls import Call
from proxy_plugin.logs import describe

log = logging.getLogger("proxy_plugin")

_STORE = {"commit_request": "commit", "commit_reply": "commit", "read": "read"}
"""Operations that a call waits for -> the last part of the span's name."""


class _Span(NamedTuple):
    name: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    error: str = ""


def parent_of(caller: Any) -> Any:
    """LiteLLM's span of the request. With a `custom_auth` LiteLLM loses sight of its own: then the span that is
    current, as LiteLLM does it. None where nothing is traced. Never raises."""
    span = getattr(caller, "parent_otel_span", None)
    trace = sys.modules.get("opentelemetry.trace")
    if span is not None or trace is None:
        return span
    current = trace.get_current_span()
    return current if current.is_recording() else None


def tell(call: Call) -> None:
    """Makes the spans of a call that is over. Never raises."""
    if call.parent is None:
        return
    try:
        _export(call)
    except Exception as error:
        log.warning("a call is not traced: %s", describe(error))


def _export(call: Call) -> None:
    from litellm.proxy import proxy_server
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    tracer = getattr(getattr(proxy_server, "open_telemetry_logger", None), "tracer", None)
    if tracer is None:
        return
    below = set_span_in_context(call.parent)
    for one in _spans(call):
        span = tracer.start_span(one.name, context=below, start_time=one.began_ns, attributes=one.attributes)
        if one.error:
            span.set_status(Status(StatusCode.ERROR, one.error))
        span.end(one.ended_ns)


def _spans(call: Call) -> Iterator[_Span]:
    yield _Span(f"proxy_plugin.{call.hook}", call.began_ns, call.ended_ns, _attributes(call))
    for at_ns, event in call.happened:
        if isinstance(event, StoreCalled) and event.operation in _STORE:
            began_ns = at_ns - int(event.seconds * 1e9)
            about = {"litellm.call_id": call.id, "proxy_plugin.operation": event.operation}
            yield _Span(f"proxy_plugin.store.{_STORE[event.operation]}", began_ns, at_ns, about, event.error or "")


def _attributes(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {"litellm.call_id": call.id}
    if call.session:
        found["proxy_plugin.session"] = call.session
    if call.passed:
        found["proxy_plugin.passthrough"] = call.passed
    handled = call.handled
    if handled is None:
        return found
    report = handled.report
    return found | {
        "proxy_plugin.endpoint": handled.endpoint,
        "proxy_plugin.outcome": handled.outcome,
        "proxy_plugin.collapsed": report.subtasks_collapsed,
        "proxy_plugin.repairs": report.repaired,
        "proxy_plugin.bytes_before": report.bytes_before,
        "proxy_plugin.bytes_after": report.bytes_after,
        "proxy_plugin.rewrite_seconds": handled.seconds,
    }
