"""The log: one line a request at INFO, LiteLLM's call id on every line that is due to a call, LiteLLM's format.

All of the plugin logs to `proxy_plugin`. LiteLLM sets up loggers of its own alone (LITELLM_LOG, --debug, JSON_LOGS,
`json_logs`), so the plugin's records are handed to LiteLLM's proxy logger, at the level that this one has: what shows
the proxy's lines shows the plugin's. A level or handlers that somebody gave `proxy_plugin` (--log_config) stay.

No line holds content, a key or a tenant. What a client chose (its session's id, an id of the call) is quoted where it
is more than a word, so that it cannot pass for another field or line.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from proxy_plugin.gateway.calls import Call, current_id
from proxy_plugin.logs import describe

log = logging.getLogger("proxy_plugin")

_HOST = "LiteLLM Proxy"
_WORD = re.compile(r"[\w.:@,/-]+", re.ASCII)
_LONGEST = 256


class _ToLiteLLM(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(_HOST).handle(record)


class _Named(logging.Filter):
    """Names the call in whose course something was noticed; and, for JSON, the logger, as newer LiteLLM does."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.component = record.name
        call_id = current_id()
        if call_id and not hasattr(record, "call_id"):
            record.call_id = call_id
            record.msg, record.args = f"{record.getMessage()} call_id={_value(call_id)}", None
        return True


def join_litellm() -> None:
    """Once per process, after LiteLLM has set its own levels."""
    if any(isinstance(one, _Named) for one in log.filters):
        return
    log.addFilter(_Named())
    if log.level == logging.NOTSET:
        log.setLevel(logging.getLogger(_HOST).getEffectiveLevel())
    if not log.handlers:
        log.addHandler(_ToLiteLLM())
        log.propagate = False  # LiteLLM's logger hands it up to the root's handlers itself


def tell(call: Call) -> None:
    """One line about a handled request: `request call_id=… endpoint=chat outcome=rewritten …`; the same fields stand
    on the record, for JSON. Never raises."""
    if not log.isEnabledFor(logging.INFO):
        return
    try:
        fields = _fields(call)
        if fields:
            log.info("request %s", " ".join(f"{name}={_value(value)}" for name, value in fields.items()), extra=fields)
    except Exception as error:
        log.warning("a request is not logged: %s", describe(error))


def _fields(call: Call) -> dict[str, Any]:
    handled = call.handled
    if handled is None:
        return {}
    report = handled.report
    fields = {
        "call_id": call.id,
        "endpoint": handled.endpoint,
        "outcome": handled.outcome,
        "collapsed": report.subtasks_collapsed,
        "repairs": report.repaired,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "ms": round((call.ended_ns - call.began_ns) / 1e6, 1),
        "passed": ",".join(call.passed),
        "session": call.session,
    }
    return {name: value for name, value in fields.items() if value != ""}


def _value(value: Any) -> str:
    text = str(value)[:_LONGEST]
    return text if _WORD.fullmatch(text) else json.dumps(text)
