"""What is gathered of a call, the line it makes, and who is told: without LiteLLM."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from proxy_plugin.events import Event, PassedThrough, RequestHandled, StoreCalled
from proxy_plugin.gateway import lines, spans
from proxy_plugin.gateway.calls import Call, current_id, during, listening
from proxy_plugin.history.report import Report
from tests.binaries import require_package

HANDLED = RequestHandled("chat", "rewritten", Report(2, 5, ids_renamed=3, bytes_before=1000, bytes_after=400), 0.001)


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """What `proxy_plugin` logs once it has joined LiteLLM's logging, as it comes there."""
    heard: list[logging.LogRecord] = []
    own, host = logging.getLogger("proxy_plugin"), logging.getLogger("LiteLLM Proxy")
    before = own.level, own.propagate, list(own.handlers), list(own.filters), host.level, list(host.handlers)

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)

    try:
        own.setLevel(logging.NOTSET)
        own.handlers, own.filters = [], []
        host.setLevel(logging.INFO)
        host.handlers = [Heard()]
        lines.join_litellm()
        lines.join_litellm()
        yield heard
    finally:
        own.setLevel(before[0])
        own.propagate, own.handlers, own.filters, host.handlers = before[1], before[2], before[3], before[5]
        host.setLevel(before[4])


def told(call: Call, *events: Event) -> None:
    emit = listening(lambda event: None)
    with during(call, lines.tell):
        for event in events:
            emit(event)


def test_a_request_makes_one_line_whose_fields_stand_on_the_record_too(log: list[logging.LogRecord]) -> None:
    told(Call("id-1", session="s-1"), PassedThrough("store_timeout"), StoreCalled("read", 0.1), HANDLED)
    (record,) = log
    assert record.levelno == logging.INFO
    fields = dict(part.split("=", 1) for part in record.getMessage().removeprefix("request ").split())
    assert float(fields.pop("ms")) == record.ms >= 0  # type: ignore[attr-defined]
    assert fields == {
        "call_id": "id-1",
        "endpoint": "chat",
        "outcome": "rewritten",
        "collapsed": "2",
        "repairs": "3",
        "bytes_before": "1000",
        "bytes_after": "400",
        "passed": "store_timeout",
        "session": "s-1",
    }
    assert {name: str(getattr(record, name)) for name in fields} == fields


def test_what_a_client_chose_cannot_pass_for_a_field_or_a_line(log: list[logging.LogRecord]) -> None:
    chosen = 'x outcome=passed\n"\x1b[2K' + "y" * 500
    told(Call(chosen), HANDLED)
    text = log[0].getMessage()
    assert text.count("outcome=") == 2 and text.isprintable()
    assert text.startswith("request call_id=" + json.dumps(chosen[:256]))


def test_what_is_logged_in_the_course_of_a_call_names_it_and_nothing_else_does(log: list[logging.LogRecord]) -> None:
    plugin = logging.getLogger("proxy_plugin")

    async def lasting(over: asyncio.Event) -> None:
        """Begun in the course of a call, as the flush of a backlog is, and alive after it."""
        plugin.warning("in between, %s", "100%")
        await over.wait()
        plugin.warning("long after")

    async def calls() -> None:
        over = asyncio.Event()
        with during(Call("id-1")):
            task = asyncio.create_task(lasting(over))
            await asyncio.sleep(0)
        with during(Call("id-2")):
            over.set()
            await task
            plugin.warning("the next")

    asyncio.run(calls())
    assert [(record.getMessage(), getattr(record, "call_id", None)) for record in log] == [
        ("in between, 100% call_id=id-1", "id-1"),
        ("long after", None),
        ("the next call_id=id-2", "id-2"),
    ]
    assert current_id() == ""


def test_calls_side_by_side_hear_their_own_events_alone() -> None:
    emit = listening(lambda event: None)

    async def one(call: Call) -> None:
        with during(call):
            for _ in range(3):
                await asyncio.sleep(0)
                emit(PassedThrough(call.id))

    async def both() -> list[Call]:
        made = [Call("store_down"), Call("deadline")]
        await asyncio.gather(*map(one, made))
        return made

    assert [call.passed for call in asyncio.run(both())] == [("store_down",), ("deadline",)]


def test_a_level_and_handlers_that_somebody_set_stay(log: list[logging.LogRecord]) -> None:
    plugin = logging.getLogger("proxy_plugin")
    plugin.filters.clear()
    plugin.handlers[:] = [logging.NullHandler()]
    plugin.setLevel(logging.ERROR)
    lines.join_litellm()
    told(Call("id-1"), HANDLED)
    plugin.error("gone another way")
    assert plugin.level == logging.ERROR and log == []


class Broken:
    """A span, and a tracer, that fail at everything."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("broken")


def test_neither_lines_nor_spans_fail_a_request(log: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimpleNamespace(open_telemetry_logger=Broken())
    monkeypatch.setitem(sys.modules, "litellm.proxy", SimpleNamespace(proxy_server=server))
    call = Call("id-1", parent=Broken())
    call.happened.append(object())  # type: ignore[arg-type]
    lines.tell(call)
    spans.tell(call)
    assert [record.getMessage().partition(":")[0] for record in log] == [
        "a request is not logged",
        "a call is not traced",
    ]


def test_without_a_span_of_litellms_there_is_none_of_the_plugins() -> None:
    assert spans.parent_of(object()) is None
    call = Call("id-1")
    call.happened.append(object())  # type: ignore[arg-type]  # would fail if it were looked at
    spans.tell(call)


def test_with_a_custom_auth_the_spans_stand_below_the_one_that_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM hands its own span on with the keys that it checked itself."""
    require_package("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("litellm")
    server = SimpleNamespace(open_telemetry_logger=SimpleNamespace(tracer=tracer))
    monkeypatch.setitem(sys.modules, "litellm.proxy", SimpleNamespace(proxy_server=server))

    with tracer.start_as_current_span("request") as request:
        found = spans.parent_of(SimpleNamespace(parent_otel_span=None))
        assert found is request
        emit = listening(lambda event: None)
        with during(Call("id-1", found), spans.tell):
            emit(StoreCalled("commit_request", 0.05, "timeout"))
            emit(StoreCalled("background", 0.01))  # nothing that the call waited for
            emit(PassedThrough("store_timeout"))
            emit(HANDLED)
    made = {span.name: span for span in exporter.get_finished_spans()}
    assert set(made) == {"request", "proxy_plugin.rewrite", "proxy_plugin.store.commit"}
    commit, rewrite = made["proxy_plugin.store.commit"], made["proxy_plugin.rewrite"]
    assert commit.end_time - commit.start_time == 50_000_000
    assert (commit.status.is_ok, commit.status.description) == (False, "timeout")
    assert rewrite.status.is_ok and rewrite.attributes["proxy_plugin.passthrough"] == ("store_timeout",)
    assert {span.parent.span_id for span in (commit, rewrite)} == {request.get_span_context().span_id}
