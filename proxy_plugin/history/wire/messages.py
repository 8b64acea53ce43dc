"""Anthropic Messages: one wire message can hold several neutral ones, and one can span several.

A user message falls into its tool results, one neutral message each, and the runs of other blocks between
them. An assistant message is one neutral message; those behind its tool calls that no user message parts
from it belong to the same turn, which the provider reads as one, and so to the same neutral message.

Blocks that only this form has (server tools and their results, whatever comes next) are opaque. In front
of the first tool call they stand as a neutral message of their own, so that they outlive the round; a
message with one among its calls, or with half of a pair, is sealed. Thinking is no part of what a message
means and goes where its message goes.

`source` is (first wire message, the one behind the last, first block in the first, block behind the last
in the last); a message whose content is no list counts as one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from proxy_plugin.history.dialects import IdRule
from proxy_plugin.history.model import ASSISTANT, OTHER, SYSTEM, TOOL, USER, Call, Message, dump
from proxy_plugin.history.plan import Edit, Plan
from proxy_plugin.history.repair import Ids
from proxy_plugin.history.wire import parts

_THINKING = ("thinking", "redacted_thinking")
_UNDERSTOOD = frozenset({"text", "tool_use", *_THINKING})


# Reading


def parse(wire: Sequence[Any], start: int = 0, *, continued: bool = False) -> list[Message]:
    """Neutral messages of wire[start:]; what is not understood becomes OTHER and passes."""
    messages: list[Message] = []
    index = start
    while index < len(wire):
        item = wire[index]
        role, content, behind = item.get("role"), item.get("content"), index + 1
        if role == "user":
            _parse_user(content, index, messages)
        elif role == "assistant":
            if _has_calls(content):
                while behind < len(wire) and wire[behind].get("role") == "assistant":
                    behind += 1
            _parse_assistant(wire, index, behind, messages)
        else:
            whole = (index, behind, 0, _length(item))
            messages.append(Message(SYSTEM if role == "system" else OTHER, content_of(content), source=whole))
        index = behind
    return messages


def settled(wire: Sequence[Any], end: int) -> int:
    """How many wire messages are read alike whatever stands from `end` on: all but the last one, whose turn
    may go on."""
    return max(end - 1, 0)


def _parse_user(content: Any, index: int, messages: list[Message]) -> None:
    if not isinstance(content, list) or not content:
        messages.append(Message(USER, content, source=(index, index + 1, 0, 1)))
        return
    begin = 0
    for at, block in enumerate(content):
        if _type(block) == "tool_result":
            if begin < at:
                messages.append(Message(USER, content_of(content[begin:at]), source=(index, index + 1, begin, at)))
            begin = at + 1
            answers, failed = parts.usable_id(block.get("tool_use_id")), block.get("is_error") is True
            result = content_of(block.get("content"))
            messages.append(Message(TOOL, result, (), answers, None, failed, (index, index + 1, at, begin)))
    if begin < len(content):
        rest = content_of(content[begin:])
        messages.append(Message(USER, rest, source=(index, index + 1, begin, len(content))))


def _parse_assistant(wire: Sequence[Any], first: int, behind: int, messages: list[Message]) -> None:
    cells = [(index, at, block) for index in range(first, behind) for at, block in enumerate(_blocks(wire[index]))]
    kinds = [_type(block) for _, _, block in cells]
    blocks = [block for _, _, block in cells]
    apart = 0  # how many blocks stand apart from the calls
    if "tool_use" in kinds:
        apart = 1 + max((at for at in range(kinds.index("tool_use")) if _is_opaque(kinds[at])), default=-1)
    begin = 0
    if apart:
        index, at, _ = cells[apart - 1]
        messages.append(_assistant(blocks[:apart], (first, index + 1, 0, at + 1)))
        first, begin = (index, at + 1) if at + 1 < _length(wire[index]) else (index + 1, 0)
    messages.append(_assistant(blocks[apart:], (first, behind, begin, _length(wire[behind - 1]))))


def _assistant(blocks: list[Any], source: tuple[int, int, int, int]) -> Message:
    said, calls = [], []
    opaque = False
    halves: set[str] = set()  # ids of server tools that are open
    for block in blocks:
        kind = _type(block)
        if kind == "tool_use":
            arguments = block.get("input")
            name = block.get("name")
            calls.append(
                Call(
                    parts.usable_id(block.get("id")),
                    name if isinstance(name, str) else "",
                    "" if arguments is None else dump(arguments).decode(),
                )
            )
        elif kind not in _THINKING:
            said.append(_part(block))
            if _is_opaque(kind):
                opaque = True
                if kind.endswith("_tool_use"):
                    halves ^= {repr(block.get("id"))}
                elif kind.endswith("tool_result"):
                    halves ^= {repr(block.get("tool_use_id"))}
    sealed = bool(halves) or (opaque and bool(calls))
    return Message(ASSISTANT, parts.content(said), tuple(calls), source=source, sealed=sealed)


def _is_opaque(kind: str) -> bool:
    return kind not in _UNDERSTOOD


def _type(block: Any) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    return kind if isinstance(kind, str) else ""


def _has_calls(content: Any) -> bool:
    return isinstance(content, list) and any(_type(block) == "tool_use" for block in content)


def _length(item: Mapping[str, Any]) -> int:
    content = item.get("content")
    return len(content) if isinstance(content, list) and content else 1


def _blocks(item: Mapping[str, Any]) -> list[Any]:
    """The content as blocks; what is no list counts as one, and nothing as none."""
    content = item.get("content")
    if isinstance(content, list):
        return content
    if isinstance(content, str):
        return [parts.text(content)]
    return [] if content is None else [content]


def content_of(content: Any) -> Any:
    """Chat-form content of a string or a list of blocks; anything else as it is."""
    return parts.content([_part(block) for block in content]) if isinstance(content, list) else content


def _part(block: Any) -> Any:
    if not isinstance(block, dict):
        return block
    kind, source = block.get("type"), block.get("source")
    if kind == "text" and isinstance(block.get("text"), str):
        return parts.text(block["text"])
    if isinstance(source, dict):
        url = _url(source)
        if kind == "image" and url is not None:
            return parts.image(url)
        if kind == "document" and block.keys() <= {"type", "source", "title", "cache_control"}:
            if url is not None and source["type"] == "base64":
                return parts.file(file_data=url, filename=block.get("title"))
            if source.get("type") == "file" and isinstance(source.get("file_id"), str):
                return parts.file(file_id=source["file_id"], filename=block.get("title"))
    return parts.opaque(block)


def _url(source: Mapping[str, Any]) -> str | None:
    """The URL of a source, `data:` for base64 text; None for other sources."""
    by, url = source.get("type"), source.get("url")
    if by == "base64":
        data, media_type = source.get("data"), source.get("media_type")
        both = isinstance(data, str) and isinstance(media_type, str)
        return f"data:{media_type};base64,{data}" if both else None
    return url if by == "url" and isinstance(url, str) else None


# Writing


def blocks_of(content: Any) -> list[Any]:
    """Blocks of chat-form content."""
    if isinstance(content, list):
        return [_block(part) for part in content]
    return [] if content is None or content == "" else [parts.text(content)]


def _block(part: Any) -> Any:
    if parts.field(part, "type") == "image_url":
        url = parts.field(part, "image_url", "url")
        inline = parts.split_data_url(url)
        if inline is not None:
            return {"type": "image", "source": {"type": "base64", "media_type": inline[0], "data": inline[1]}}
        if isinstance(url, str):
            return {"type": "image", "source": {"type": "url", "url": url}}
    if parts.field(part, "type") == "file":
        inline = parts.split_data_url(parts.field(part, "file", "file_data"))
        file_id, title = parts.field(part, "file", "file_id"), parts.field(part, "file", "filename")
        titled = {"title": title} if isinstance(title, str) else {}
        if inline is not None:
            source = {"type": "base64", "media_type": inline[0], "data": inline[1]}
            return {"type": "document", "source": source, **titled}
        if isinstance(file_id, str):
            return {"type": "document", "source": {"type": "file", "file_id": file_id}, **titled}
    return part


class _Piece(NamedTuple):
    """Blocks that stand together in one wire message of the output: `blocks`, or if that is None those from
    `begin` to `end` of wire message `at` as they came. `at` None: they are the plugin's own."""

    role: Any
    at: int | None
    begin: int
    end: int
    blocks: list[Any] | None


def render(wire: Sequence[Any], messages: Sequence[Message], plan: Plan) -> list[Any]:
    """The wire list that the plan describes; wire messages that come out whole are the objects of `wire`.

    What is left of a wire message stays one wire message. The plugin's own results and notes go into the
    user message beside them."""
    out: list[_Piece] = []
    for step in plan:
        pieces = _span(wire, messages[step]) if isinstance(step, int) else _edited(wire, messages, step)
        for piece in pieces:
            if out and _belong_together(wire, out[-1], piece):
                out[-1] = _joined(wire, out[-1], piece)
            else:
                out.append(piece)
    return [_closed(wire, piece) for piece in out]


def _span(wire: Sequence[Any], message: Message) -> Iterator[_Piece]:
    first, behind, begin, end = message.source
    for at in range(first, behind):
        until = end if at == behind - 1 else _length(wire[at])
        yield _Piece(wire[at].get("role"), at, begin if at == first else 0, until, None)


def _edited(wire: Sequence[Any], messages: Sequence[Message], edit: Edit) -> Iterator[_Piece]:
    mark = _breakpoint(wire, messages, edit.instead_of)
    closing = [] if edit.summary is None else [{**parts.text(edit.summary), **mark}]
    if edit.added is not None:
        own = _own(edit.added, {} if closing else mark)
        yield own._replace(blocks=[*(own.blocks or ()), *closing])
        return
    ids = iter(edit.call_ids or ())
    pieces = list(_span(wire, messages[edit.source]))  # type: ignore[index]
    for piece in pieces:
        blocks = list(_taken(wire, piece))
        for at, block in enumerate(blocks):
            kind = _type(block)
            if edit.call_ids is not None and kind == "tool_use":
                blocks[at] = {**block, "id": next(ids)}
            elif kind == "tool_result":
                blocks[at] = _edited_result(block, edit)
        if closing and piece is pieces[-1]:
            blocks = closing if blocks == [parts.text("")] else [*blocks, *closing]
        yield piece._replace(blocks=blocks)


def _edited_result(block: Mapping[str, Any], edit: Edit) -> dict[str, Any]:
    new = dict(block)
    if edit.answers is not None:
        new["tool_use_id"] = edit.answers
    if edit.result is not None:
        new["content"] = edit.result
    return new


def _own(message: Message, mark: Mapping[str, Any]) -> _Piece:
    blocks = blocks_of(message.content)
    if message.role == TOOL:
        content = message.content if isinstance(message.content, str) else blocks
        blocks = [{"type": "tool_result", "tool_use_id": message.answers, "content": content}]
    elif mark and blocks:
        blocks[-1] = {**blocks[-1], **mark}
    return _Piece("user" if message.role in (USER, TOOL) else message.role, None, 0, len(blocks), blocks)


def _breakpoint(wire: Sequence[Any], messages: Sequence[Message], indices: Iterable[int]) -> dict[str, Any]:
    """The first cache breakpoint of these messages, which what stands instead of them takes over."""
    for index in indices:
        for piece in _span(wire, messages[index]):
            for block in _taken(wire, piece):
                if mark := parts.breakpoint_of(block):
                    return mark
    return {}


def _taken(wire: Sequence[Any], piece: _Piece) -> list[Any]:
    if piece.blocks is not None or piece.at is None:
        return piece.blocks or []
    return _blocks(wire[piece.at])[piece.begin : piece.end]


def _belong_together(wire: Sequence[Any], left: _Piece, right: _Piece) -> bool:
    if left.at is not None and left.at == right.at:
        return True
    beside = left.role == right.role == "user" and (left.at is None or right.at is None)
    return beside and _can_take(wire, left) and _can_take(wire, right)


def _can_take(wire: Sequence[Any], piece: _Piece) -> bool:
    """Whether blocks may be added: what is empty or no content at all stays the client's own fault."""
    return piece.blocks is not None or bool(piece.at is not None and wire[piece.at].get("content"))


def _joined(wire: Sequence[Any], left: _Piece, right: _Piece) -> _Piece:
    if left.blocks is None and right.blocks is None and left.at == right.at and left.end == right.begin:
        return left._replace(end=right.end)
    at = left.at if left.at is not None else right.at
    blocks = left.blocks if left.blocks is not None else _taken(wire, left)
    blocks += _taken(wire, right)  # a list of this rendering's own: a turn of many pieces grows in place
    return _Piece(left.role, at, 0, 0, blocks)


def _closed(wire: Sequence[Any], piece: _Piece) -> Any:
    if piece.at is None:
        return {"role": piece.role, "content": piece.blocks}
    item = wire[piece.at]
    if piece.blocks is None and piece.begin == 0 and piece.end == _length(item):
        return item
    return {**item, "content": _taken(wire, piece)}


def weight(items: Sequence[Any], sizes: Mapping[int, int]) -> int:
    """Bytes of the blocks alone, so that it does not matter in which wire messages they stand."""
    return sum(len(dump(block)) + 1 for item in items for block in _blocks(item))


def _has_server_tools(content: Any) -> bool:
    return isinstance(content, list) and any(_is_opaque(_type(block)) for block in content)


def mend(wire: list[Any]) -> tuple[list[Any], dict[str, int]]:
    """Gives a server tool's call whose id the list holds already another one, together with its result."""
    ids = Ids(IdRule())
    out, renamed = wire, 0
    for index, item in enumerate(wire):
        content = item.get("content")
        if item.get("role") != "assistant" or not _has_server_tools(content):
            continue
        names: dict[str, str] = {}
        answered = {parts.usable_id(parts.field(block, "tool_use_id")): at for at, block in enumerate(content)}
        blocks = content
        for at, block in enumerate(content):
            kind = _type(block)
            key = "id" if kind.endswith("_tool_use") else "tool_use_id" if kind.endswith("_tool_result") else ""
            old = parts.usable_id(block.get(key)) if key else None
            if old is None:
                continue
            if key == "id":
                names.pop(old, None)
                if old not in ids:
                    ids.assign(old)
                elif answered.get(old, -1) > at:
                    names[old] = ids.assign(old)
                    renamed += 1
            if old in names:
                blocks = list(blocks) if blocks is content else blocks
                blocks[at] = {**block, key: names[old]}
        if blocks is not content:
            out = list(out) if out is wire else out
            out[index] = {**item, "content": blocks}
    return out, {"ids_renamed": renamed} if renamed else {}


# Keeping


def fragment(wire: Sequence[Any], message: Message) -> bytes:
    """What the message occupies: its wire message, as far as it is its own; or [whether the first one below
    goes on with the last one of the message before, wire message, …]."""
    begin = message.source[2]
    items = [_closed(wire, piece) for piece in _span(wire, message)]
    return dump(items[0] if len(items) == 1 and not begin else [begin > 0, *items])


def join(fragments: Sequence[Any]) -> list[Any]:
    """The wire list of a path, out of its fragments."""
    out: list[Any] = []
    joined: list[Any] = []  # the content of the last message, where it is put together here
    for kept in fragments:
        goes_on, *items = kept if isinstance(kept, list) else [False, kept]
        if goes_on and out and isinstance(out[-1].get("content"), list):
            if out[-1]["content"] is not joined:
                joined = [*out[-1]["content"]]
                out[-1] = {**out[-1], "content": joined}
            joined += items.pop(0)["content"]
        out += items
    return out
