"""OpenAI Responses: several items make one neutral message.

What the model made between two items of the client falls into assistant messages as chat completions would
have them: reasoning, then a text, then the calls. Reasoning belongs to the item that follows it. Built-in
tools hold their result in the same item; such items are opaque and never part of a tool round, so that
they outlive it. An output is one tool message; everything unknown is one message that passes.

An `item_reference` is opaque. One that may stand for a tool call is sealed, and so is every output behind
it whose call is not in sight.

`source` is (first item, the one behind the last).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy_plugin.history.dialects import IdRule
from proxy_plugin.history.model import ASSISTANT, OTHER, SYSTEM, TOOL, USER, Call, Message, dump
from proxy_plugin.history.plan import Edit, Plan
from proxy_plugin.history.repair import Ids
from proxy_plugin.history.wire import parts

_OUTPUT_OF = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "local_shell_call": "local_shell_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "computer_call": "computer_call_output",
}
_OUTPUTS = frozenset(_OUTPUT_OF.values())
_BY_CLIENT = _OUTPUTS | {"message", "mcp_approval_response", ""}
_NAMELESS = {
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
    "computer_call": ("computer", "action"),
}
"""Calls of tools that have no name of their own: the name given here, and the field of their arguments."""

_SERVED = frozenset({"mcp_list_tools", "mcp_approval_request"})
"""Items that the model's side makes beside those whose type ends in `_call`."""

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
}
"""What an item's id begins with ("Expected an ID that begins with 'fc'")."""

_ITEM_IDS = IdRule(at_most=64)
_WRAPPED = "encitem_"
"""Ids in which LiteLLM names the deployment; it opens them behind the hook and has to find them as they were."""

_HARMLESS = ("ws_", "fs_", "ci_", "ig_", "mcp_", "mcpl_")
"""Beginnings of referenced ids that cannot be half of a pair, beside texts and reasoning."""

_ROLES = {"user": USER, "system": SYSTEM, "developer": SYSTEM, "assistant": ASSISTANT}
_BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
"""One pixel, where only a screenshot can answer a call."""


# Reading


def _kind(item: Mapping[str, Any]) -> str:
    kind = item.get("type", "message" if "role" in item else "")
    return kind if isinstance(kind, str) else ""


def _side(item: Mapping[str, Any]) -> str:
    """What an item is to the reply it belongs to: "reasoning", "said", "call", "served", "" (not of a reply)."""
    kind = _kind(item)
    if kind == "message":
        return "said" if item.get("role") == "assistant" else ""
    if kind in _OUTPUT_OF:
        return "call"
    if kind == "reasoning":
        return kind
    if kind == "item_reference":
        referenced = _reference(item)
        return "reasoning" if referenced.startswith("rs_") else "said" if referenced.startswith("msg_") else "served"
    return "served" if kind.endswith("_call") or kind in _SERVED else ""


def is_item(part: Any) -> bool:
    """Whether a part of an assistant message's content was an item beside the text."""
    return isinstance(part, dict) and part.get("type") != "message" and bool(_side(part))


def _reference(item: Mapping[str, Any]) -> str:
    referenced = item.get("id")
    return referenced if isinstance(referenced, str) else ""


def _may_hide_a_call(item: Mapping[str, Any]) -> bool:
    if item.get("type") != "item_reference":
        return False
    return not _reference(item).startswith(("msg_", "rs_", *_HARMLESS))


class _Reply:
    """An assistant message in the making, from item `begin` on."""

    __slots__ = ("begin", "calls", "said", "sealed", "served", "spoke")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.said: list[Any] = []
        self.calls: list[Call] = []
        self.spoke = self.served = self.sealed = False

    @property
    def is_empty(self) -> bool:
        """Whether there is reasoning at most."""
        return not (self.said or self.calls or self.spoke)

    def ends_before(self, side: str) -> bool:
        if side == "call":
            return self.served  # what is served stays when the round goes
        return self.spoke or bool(self.calls)

    def add(self, item: Mapping[str, Any], side: str) -> None:
        if side == "call":
            self.calls.append(_call(item))
        elif side == "said" and _kind(item) == "message":
            self.spoke = True
            content = item.get("content")
            self.said += [_part(part) for part in content] if isinstance(content, list) else _texts(content)
        elif side != "reasoning":
            self.spoke |= side == "said"
            self.served |= side == "served"
            self.sealed |= _may_hide_a_call(item)
            self.said.append(parts.opaque(item))

    def message(self, behind: int) -> Message:
        content = parts.content(self.said)
        return Message(ASSISTANT, content, tuple(self.calls), source=(self.begin, behind), sealed=self.sealed)


def _texts(content: Any) -> list[Any]:
    return [parts.text(content)] if isinstance(content, str) else [] if content is None else [content]


def parse(wire: Sequence[Any], start: int = 0, *, continued: bool = False) -> list[Message]:
    """Neutral messages of wire[start:]; what is not understood becomes OTHER and passes.

    continued: the list goes on from a stored response, which may hold the calls it answers."""
    messages: list[Message] = []
    hidden = continued or any(map(_may_hide_a_call, wire[:start]))
    called: set[str | None] | None = None  # ids of the calls in sight, once it matters
    reply = _Reply(start)
    for index in range(start, len(wire)):
        item = wire[index]
        side = _side(item)
        if side:
            if reply.ends_before(side):
                begin = _reasoned_from(wire, index, reply.begin)
                messages.append(reply.message(begin))
                reply = _Reply(begin)
            reply.add(item, side)
            hidden = hidden or reply.sealed
            if called is not None and side == "call":
                called.add(reply.calls[-1].id)
            continue
        begin = reply.begin
        if not reply.is_empty:
            messages.append(reply.message(index))
            begin = index
        message = _by_client(item, (begin, index + 1))
        if hidden and message.role == TOOL and message.answers is not None:
            if called is None:
                called = {_call_id(other) for other in wire[:index] if _kind(other) in _OUTPUT_OF}
            if message.answers not in called:
                message = message._replace(role=OTHER, answers=None, sealed=True)
        messages.append(message)
        reply = _Reply(index + 1)
    if reply.begin < len(wire):
        messages.append(reply.message(len(wire)))
    return messages


def _reasoned_from(wire: Sequence[Any], index: int, begin: int) -> int:
    """Where the reasoning begins that stands directly in front of an item."""
    while index > begin and _side(wire[index - 1]) == "reasoning":
        index -= 1
    return index


def settled(wire: Sequence[Any], end: int) -> int:
    """How many items are read alike whatever stands from `end` on: all but the last one, which may belong to
    the same message, and the reasoning behind it."""
    return max(_reasoned_from(wire, end, 0) - 1, 0)


def _call_id(item: Mapping[str, Any]) -> str | None:
    call_id = parts.usable_id(item.get("call_id"))
    if call_id is None and _kind(item) == "local_shell_call_output":
        return parts.usable_id(item.get("id"))  # older clients put the call's id there
    return call_id


def _call(item: Mapping[str, Any]) -> Call:
    kind = _kind(item)
    name: Any
    arguments: Any
    if kind in _NAMELESS:
        name, key = _NAMELESS[kind]
        arguments = dump(item.get(key)).decode()
    else:
        name, arguments = item.get("name"), item.get("input" if kind == "custom_tool_call" else "arguments")
    return Call(_call_id(item), name if isinstance(name, str) else "", arguments if isinstance(arguments, str) else "")


def _by_client(item: Mapping[str, Any], source: tuple[int, int]) -> Message:
    kind = _kind(item)
    if kind in _OUTPUTS:
        output = item.get("output")
        if kind == "shell_call_output" and isinstance(output, list):
            output = dump(output).decode()  # a list of what ran, not of parts
        failed = item.get("status") in ("failed", "incomplete")
        return Message(TOOL, content_of(output), (), _call_id(item), None, failed, source)
    role = item.get("role") if kind == "message" else None
    known = _ROLES.get(role, OTHER) if isinstance(role, str) else OTHER
    return Message(known, content_of(item.get("content")) if kind == "message" else parts.opaque(item), source=source)


def content_of(content: Any) -> Any:
    """Chat-form content of a string, a list of parts or a screenshot; anything else as it is."""
    if isinstance(content, dict):
        content = [content]
    return parts.content([_part(part) for part in content]) if isinstance(content, list) else content


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text") and isinstance(part.get("text"), str):
        return parts.text(part["text"])
    if kind in ("input_image", "computer_screenshot") and isinstance(part.get("image_url"), str):
        return parts.image(part["image_url"], part.get("detail"))
    if kind == "input_file" and not part.get("file_url"):
        named = {key: part.get(key) for key in ("file_data", "file_id", "filename")}
        return parts.file(**named)
    return parts.opaque(part)


# Writing


def parts_of(content: Any, kind: str = "input_text") -> list[Any]:
    """Parts of chat-form content; `kind`: input_text, or output_text for what the model said."""
    if isinstance(content, list):
        return [_written(part, kind) for part in content]
    return [] if content is None or content == "" else [{"type": kind, "text": content}]


def _written(part: Any, kind: str) -> Any:
    own = parts.field(part, "type")
    if own == "text":
        return {"type": kind, "text": part.get("text")}
    if own == "image_url" and isinstance(parts.field(part, "image_url", "url"), str):
        detail = parts.field(part, "image_url", "detail") or "auto"
        return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": detail}
    if own == "file" and isinstance(part.get("file"), dict):
        return {"type": "input_file", **part["file"]}
    return part


def render(wire: Sequence[Any], messages: Sequence[Message], plan: Plan) -> list[Any]:
    """The items that the plan describes; untouched ones are the objects of `wire`."""
    out: list[Any] = []
    kinds: dict[Any, str] = {}  # id of a call as it leaves -> type of its item
    for step in plan:
        source = step if isinstance(step, int) else step.source
        if source is None:
            own = _own(step.added, kinds)  # type: ignore[union-attr, arg-type]
            out.append(_with_summary(own, step.summary))  # type: ignore[union-attr]
            continue
        message = messages[source]
        first, behind = message.source
        items = wire[first:behind]
        if not isinstance(step, int):
            items = _edited(items, step, kinds)
        if message.calls:
            kinds.update((_call_id(item), item["type"]) for item in items if _side(item) == "call")
        out += items
    return out


def _edited(items: Sequence[Any], edit: Edit, kinds: Mapping[Any, str]) -> list[Any]:
    out = list(items)
    last = dict(out[-1])
    if edit.call_ids is not None:
        ids = iter(edit.call_ids)
        return [{**item, "call_id": next(ids)} if _side(item) == "call" else item for item in out]
    if edit.answers is not None:
        last["call_id"] = edit.answers
        fitting = _OUTPUT_OF.get(kinds.get(edit.answers, ""))
        if fitting in ("function_call_output", "custom_tool_call_output"):
            last["type"] = fitting
    if edit.result is not None:
        last["output"] = edit.result
    return [*out[:-1], _with_summary(last, edit.summary)]


def _with_summary(item: dict[str, Any], summary: str | None) -> dict[str, Any]:
    if summary is None:
        return item
    content = item.get("content")
    said = content if isinstance(content, list) else parts_of(content)
    return {**item, "content": [*said, {"type": "input_text", "text": summary}]}


def _own(message: Message, kinds: Mapping[Any, str]) -> dict[str, Any]:
    if message.role == TOOL:
        return _result(message, kinds.get(message.answers, "function_call"))
    kind = "output_text" if message.role == ASSISTANT else "input_text"
    return {"type": "message", "role": message.role, "content": parts_of(message.content, kind)}


def _result(message: Message, kind: str) -> dict[str, Any]:
    """An output item of the plugin's own, in the shape that the tool's call wants."""
    content = message.content
    item: dict[str, Any] = {"type": _OUTPUT_OF[kind], "call_id": message.answers}
    if kind == "computer_call":
        return {**item, "output": {"type": "computer_screenshot", "image_url": _BLANK}}
    if kind == "shell_call":
        return {**item, "output": [{"stdout": "", "stderr": content, "outcome": {"type": "exit", "exit_code": 1}}]}
    if kind == "apply_patch_call":
        item["status"] = "failed"
    return {**item, "output": content if isinstance(content, str) else parts_of(content)}


def weight(items: Sequence[Any], sizes: Mapping[int, int]) -> int:
    """Bytes of the items, a comma included for each. `sizes`: those of known objects, by identity."""
    return sum(sizes.get(id(item)) or len(dump(item)) for item in items) + len(items)


def mend(wire: list[Any]) -> tuple[list[Any], dict[str, int]]:
    """Item ids that the list holds already or that no provider takes are changed. Reasoning without the item
    that followed it goes, and so does a reference that leads nowhere or to what stands there already."""
    ids = Ids(_ITEM_IDS)
    out: list[Any] = []
    renamed = 0
    for item in wire:
        item_id, kind = item.get("id"), _kind(item)
        if isinstance(item_id, str) and not item_id.startswith(_WRAPPED):
            if kind == "item_reference":
                if item_id in ids or not _ITEM_IDS.accepts(item_id):
                    continue
                ids.name_new(item_id)
            else:
                prefix = _PREFIXES.get(kind, "")
                new = ids.assign(item_id if item_id.startswith(prefix) else f"{prefix}_{item_id}")
                if new != item_id:
                    item = {**item, "id": new}
                    renamed += 1
        out.append(item)
    followed = False
    kept: list[Any] = []
    for item in reversed(out):
        kind = _kind(item)
        if kind != "reasoning":
            followed = bool(_side(item)) or kind not in _BY_CLIENT
        if kind != "reasoning" or followed:
            kept.append(item)
    out = kept[::-1]
    counts = {"ids_renamed": renamed, "orphans_dropped": len(wire) - len(out)}
    return (out, counts) if any(counts.values()) else (wire, {})


# Keeping


def fragment(wire: Sequence[Any], message: Message) -> bytes:
    """What the message occupies: its item, or the list of its items."""
    first, behind = message.source
    return dump(wire[first] if behind == first + 1 else wire[first:behind])


def join(fragments: Sequence[Any]) -> list[Any]:
    """The wire list of a path, out of its fragments."""
    out: list[Any] = []
    for kept in fragments:
        out += kept if isinstance(kept, list) else [kept]
    return out
