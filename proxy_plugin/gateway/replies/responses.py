"""OpenAI Responses: a response object, or typed events, most of which name an item by id and place.

An item comes several times: opened, done, and in the response that ends the stream. It keeps the ids that it
was given when it was opened. LiteLLM does not always open an item: of two calls with one id that another
endpoint made, the second one only ends, under the place of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy_plugin.gateway.replies.reply import Names, Reply, field, plain, put, usable

_WRAPPED = "encitem_"
"""Item ids in which LiteLLM names the deployment: it has to find them as they were."""

_ENDS = ("response.completed", "response.incomplete")
_OPEN = ("queued", "in_progress", "failed", "cancelled")
_GROWING = {
    "response.function_call_arguments.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}


def take_reply(response: Any, names: Names) -> Reply | None:
    seen = StreamedResponse(names)
    seen.see_response(response)
    reply = seen.reply()
    return reply and reply._replace(complete=field(response, "status") not in _OPEN)


@dataclass(slots=True)
class _Item:
    """One item of the reply: its ids as the provider gave them and as the client sees them, and its content."""

    item_id: Any
    call_id: Any
    new_item_id: Any
    new_call_id: Any
    text: dict[Any, str]  # what has come of it, by content index
    wire: dict[str, Any] | None = None
    done: bool = False

    def is_of(self, item: Any) -> bool:
        """Whether an object is this item, renamed already or not. Calls are known by the call's id, because
        LiteLLM counts other items anew in some copies."""
        call_id = field(item, "call_id")
        if usable(self.call_id) or usable(call_id):
            return call_id in (self.call_id, self.new_call_id)
        return field(item, "id") in (self.item_id, self.new_item_id)


class StreamedResponse:
    def __init__(self, names: Names) -> None:
        self._names = names
        self._items: list[_Item] = []
        self._newest: dict[Any, _Item] = {}  # by output index
        self._called: dict[str, str] = {}  # id of a call -> what the newest one is called now
        self._output: list[Any] = []
        self._complete = False
        self._id = ""
        self.over = False

    def see(self, chunk: Any) -> Sequence[Any]:
        kind = _kind(chunk)
        response, item = field(chunk, "response"), field(chunk, "item")
        if response is not None:
            self.see_response(response)
            self._complete = self.over = kind in _ENDS
        elif item is not None:
            self._see_item(kind, field(chunk, "output_index"), item)
        elif usable(field(chunk, "item_id")):
            self._see_part(kind, chunk)
        return (chunk,)

    def rest(self) -> Sequence[Any]:
        return ()

    def _see_item(self, kind: str, index: Any, item: Any) -> None:
        known = self._newest.get(index)
        if known is None or known.done or not known.is_of(item):
            known = self._open(index, item)
        _rename(item, known)
        known.wire = plain(item)
        known.done = kind == "response.output_item.done"

    def _open(self, index: Any, item: Any) -> _Item:
        item_id, call_id = field(item, "id"), field(item, "call_id")
        new_item_id, new_call_id = item_id, call_id
        if usable(call_id):
            if _kind(item).endswith("_output"):
                new_call_id = self._called.get(call_id, call_id)
            else:
                new_call_id = self._called[call_id] = self._names.call(call_id)
            if usable(item_id) and not item_id.startswith(_WRAPPED):
                new_item_id = self._names.item(item_id)
                if new_item_id == item_id and new_call_id != call_id and self._names.unnamed_items:
                    # The list does not say which items it had; that this call was one of them, its id does.
                    new_item_id = self._names.item(f"{item_id}_{new_call_id[-8:]}")
        made = self._newest[index] = _Item(item_id, call_id, new_item_id, new_call_id, {})
        self._items.append(made)
        return made

    def _see_part(self, kind: str, event: Any) -> None:
        index, item_id = field(event, "output_index"), field(event, "item_id")
        known = self._newest.get(index)
        if known is None or item_id not in (known.item_id, known.new_item_id):
            return
        if known.done and usable(known.call_id):
            known = self._open(index, {"id": known.item_id, "call_id": known.call_id})
        if known.new_item_id != item_id:
            put(event, "item_id", known.new_item_id)
        delta = field(event, "delta")
        if not isinstance(delta, str) or known.wire is None or known.done:
            return
        if kind in _GROWING:
            known.wire[_GROWING[kind]] = (known.wire.get(_GROWING[kind]) or "") + delta
        elif kind == "response.output_text.delta":
            at = field(event, "content_index")
            known.text[at] = known.text.get(at, "") + delta

    def see_response(self, response: Any) -> None:
        """Takes the items of a response: those of the stream have their ids already."""
        self._id = field(response, "id") or self._id
        output = field(response, "output")
        if not isinstance(output, list):
            return
        left = list(self._items)
        for item in output:
            known = next((known for known in left if known.is_of(item)), None)
            if known is None:
                known = self._open(None, item)
            else:
                left.remove(known)
            _rename(item, known)
        self._output = [plain(item) for item in output]

    def reply(self) -> Reply | None:
        items = self._output or [wire for item in self._items if (wire := _so_far(item)) is not None]
        return Reply(items, self._complete, self._id) if items else None


def _rename(item: Any, known: _Item) -> None:
    if field(item, "call_id") != known.new_call_id:
        put(item, "call_id", known.new_call_id)
    if usable(known.call_id) and field(item, "id") == known.item_id != known.new_item_id:
        put(item, "id", known.new_item_id)


def _so_far(item: _Item) -> dict[str, Any] | None:
    """What has come of an item; None for reasoning that was not ended, which nobody takes back."""
    wire = item.wire
    if wire is None or item.done:
        return wire
    if wire.get("type") == "reasoning":
        return None
    if item.text:
        return {**wire, "content": [{"type": "output_text", "text": text} for text in item.text.values()]}
    return wire


def _kind(thing: Any) -> str:
    kind = field(thing, "type")
    return str(getattr(kind, "value", kind) or "")
