"""What is kept without texts: of any message of any wire form, no text, and a form that still reads."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.history.model import Message, dump, text_of
from proxy_plugin.history.path import Path
from proxy_plugin.history.redaction import is_redacted, redacted, redacted_lead, size_of_whole
from proxy_plugin.history.rewrite import rewrite_history
from proxy_plugin.history.wire import CODECS
from proxy_plugin.history.wire.stored import lead_entries, unwrap, wrap
from proxy_plugin.settings import Settings, Store
from tests.strategies import (
    broken_chats,
    broken_messages,
    broken_responses,
    junk,
    valid_chats,
    valid_messages,
    valid_responses,
)

NEEDLE = "needle in a text"
wires = {
    "chat": st.one_of(valid_chats(), broken_chats()),
    "messages": st.one_of(valid_messages(), broken_messages()),
    "responses": st.one_of(valid_responses(), broken_responses()),
}
apis = pytest.mark.parametrize("api", list(CODECS))


def bodies(wire: list[Any], api: str) -> list[bytes]:
    path = Path(wire, api, None)
    return [wrap(api, path.fragment(index)) for index in range(len(path.messages))]


def shape(messages: list[Message]) -> list[Any]:
    """What of the messages stays; ids by the order in which they come, since an odd one is kept as a hash."""
    ids: dict[str | None, int] = {}

    def place(one: str | None) -> int | None:
        return None if one is None else ids.setdefault(one, len(ids))

    return [
        (m.role, [(place(call.id), call.name) for call in m.calls], place(m.answers), m.failed, m.sealed)
        for m in messages
    ]


def read_again(kept: list[bytes], api: str) -> list[Message]:
    return CODECS[api].parse(unwrap([orjson.loads(body) for body in kept], api).messages)


@apis
@given(data=st.data())
def test_a_conversation_keeps_its_shape_and_nothing_else(api: str, data: Any) -> None:
    wire = data.draw(wires[api])
    whole = bodies(wire, api)
    kept = [redacted(body) for body in whole]
    again = read_again(kept, api)
    assert shape(again) == shape(CODECS[api].parse(wire))
    assert {text_of(message.content).strip() for message in again} <= {""}
    assert {call.arguments for message in again for call in message.calls} <= {"", "{}", "null"}
    for before, after in zip(whole, kept, strict=True):
        assert redacted(after) == after
        assert is_redacted(orjson.loads(after)) and not is_redacted(orjson.loads(before))
        assert size_of_whole(orjson.loads(after), 0) == len(before)


_STAYS = {"role", "type", "status", "id", "call_id", "tool_call_id", "tool_use_id", "name"}


def marked(value: Any, key: str = "") -> Any:
    """The same with the needle in every text, and in fields that nobody knows."""
    if isinstance(value, str):
        return value if key in _STAYS else f"{value} {NEEDLE}"
    if isinstance(value, list):
        return [marked(inner, key) for inner in value]
    if isinstance(value, dict):
        return {name: marked(inner, name) for name, inner in value.items()} | {"unknown": {"id": NEEDLE}}
    return value


@apis
@given(data=st.data())
def test_no_text_stays_wherever_it_stands(api: str, data: Any) -> None:
    wire = marked(data.draw(wires[api]))
    assert all(NEEDLE.encode() in body for body in bodies(wire, api))
    assert not any(b"needle" in redacted(body) for body in bodies(wire, api))


ODD: list[tuple[str, Any]] = [
    ("chat", {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "id": NEEDLE, "name": "needle"}]}),
    ("chat", {"role": "user", "name": "needle", "content": {"type": "text", "text": NEEDLE}}),
    ("chat", {"role": "needle", "content": NEEDLE, "refusal": NEEDLE, "reasoning_content": NEEDLE}),
    ("chat", {"role": "assistant", "tool_calls": {"id": "needle"}, "function_call": {"name": "needle"}}),
    ("chat", {"role": "assistant", "tool_calls": [{"id": NEEDLE, "function": {"name": NEEDLE, "arguments": NEEDLE}}]}),
    ("chat", {"role": "assistant", "tool_calls": [{"id": "c__thought__" + "needle" * 20, "type": NEEDLE}]}),
    ("messages", {"role": "assistant", "content": [{"type": "thinking", "thinking": NEEDLE, "signature": "needle"}]}),
    ("messages", {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "needle"}]}),
    ("messages", {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "input": {"name": "needle"}}]}),
    ("messages", [True, {"role": "user", "content": [{"type": "document", "source": {"data": "needle"}}]}]),
    ("messages", {"role": "user", "content": [{"type": "tool_result", "content": [{"id": "needle"}, NEEDLE]}]}),
    ("responses", {"type": "reasoning", "id": "rs_1", "summary": [{"text": NEEDLE}], "encrypted_content": "needle"}),
    ("responses", {"type": "web_search_call", "id": "ws_1", "action": {"query": NEEDLE}, "status": "needle"}),
    ("responses", {"type": "mcp_call", "id": "mcp_1", "name": "f", "server_label": "needle", "output": NEEDLE}),
    ("responses", {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": NEEDLE, "name": "needle"}]}),
    ("responses", {"type": "computer_call_output", "call_id": "c", "output": {"type": "needle", "image_url": NEEDLE}}),
    ("responses", [{"type": "local_shell_call", "call_id": "c", "action": {"name": "needle"}}]),
]


@pytest.mark.parametrize(("api", "wire"), ODD)
def test_what_only_looks_like_structure_goes_too(api: str, wire: Any) -> None:
    kept = redacted(wrap(api, orjson.dumps(wire)))
    assert b"needle" not in kept
    CODECS[api].parse(CODECS[api].join([orjson.loads(kept)["wire"]]))


@given(value=junk())
def test_anything_at_all_gives_something_that_reads(value: Any) -> None:
    for api in CODECS:
        path = Path(value, api, None) if isinstance(value, list) and all(type(v) is dict for v in value) else None
        for body in bodies(value, api) if path is not None else [wrap(api, dump(value)), dump(value)]:
            kept = orjson.loads(redacted(body))
            assert is_redacted(kept) and kept["api"] in CODECS
            CODECS[kept["api"]].parse(CODECS[kept["api"]].join([kept["wire"]] if path is not None else []))


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("chat", {}),
        ("messages", {"system": NEEDLE}),
        ("messages", {"system": [{"type": "text", "text": NEEDLE, "cache_control": {"type": "ephemeral"}}]}),
        ("responses", {"instructions": NEEDLE}),
    ],
)
def test_a_lead_keeps_how_many_messages_it_has(api: str, body: Any) -> None:
    path = Path([{"role": "system", "content": NEEDLE}, {"role": "user", "content": "hello"}], api, None)
    entries = lead_entries(path, body)
    stored = b"[%s]" % b",".join(entries)
    kept = redacted_lead(stored)
    assert b"needle" not in kept and b"needle" in stored
    listed = orjson.loads(kept)
    assert len(listed) == len(entries) and all(map(is_redacted, listed))
    assert redacted_lead(kept) == kept
    wire = unwrap(listed, api)
    assert len(CODECS[api].parse(wire.messages)) == 1 and (wire.system is not None) is bool(body)


PLAIN, REFERRING = Settings(store=Store(content="structure")), Settings()


@apis
@given(data=st.data())
def test_summaries_without_a_reference_are_summaries_too(api: str, data: Any) -> None:
    """Each worker leaves what another one wrote, whichever of the two forms that has."""
    wire = [*data.draw(wires[api]), {"role": "user", "content": "and now?"}]
    plain, referring = (rewrite_history(wire, api=api, settings=settings) for settings in (PLAIN, REFERRING))
    assert b"full output kept" not in dump(plain.messages)
    assert (b"full output kept" in dump(referring.messages)) is (referring.report.subtasks_collapsed > 0)
    for settings in (PLAIN, REFERRING):
        again = rewrite_history(plain.messages, api=api, settings=settings)
        assert dump(again.messages) == dump(plain.messages)
    again = rewrite_history(referring.messages, api=api, settings=PLAIN)
    assert references(again.messages) == references(referring.messages)


def references(wire: Any) -> list[bytes]:
    return re.findall(rb"full output kept: \w+", dump(wire))
