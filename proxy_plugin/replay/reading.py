"""What the model reads of one wire item, for every wire form alike.

Text stands under few keys; the rest (ids, types, signatures, sealed reasoning, marks for the cache) is
structure. Images and files are counted, not read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from proxy_plugin.replay.conversations import encode

_TEXT = frozenset({"content", "text", "thinking", "reasoning_content", "refusal", "name", "output"})
_ARGUMENTS = frozenset({"arguments", "input"})  # of whatever has a name: a call of any form
_MEDIA = frozenset(
    {"image", "image_url", "input_image", "file", "input_file", "document", "input_audio", "audio", "container_upload"}
)
_STRUCTURE = frozenset(
    {"cache_control", "annotations", "provider_specific_fields", "logprobs", "thinking_blocks", "metadata", "usage"}
)


class Reading(NamedTuple):
    texts: tuple[str, ...]  # in their order, calls' names and arguments included
    arguments: tuple[str, ...]  # of tool calls, as JSON text or as the model wrote it
    media: int


def reading_of(item: Any) -> Reading:
    texts: list[str] = []
    arguments: list[str] = []
    media = 0
    left: list[tuple[str, Any]] = [("content", item)]
    while left:
        key, value = left.pop()
        if isinstance(value, str):
            if value and key in _TEXT:
                texts.append(value)
        elif isinstance(value, list):
            left += [(key, part) for part in reversed(value)]
        elif isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and kind in _MEDIA:
                media += 1
                continue
            inner: list[tuple[str, Any]] = []
            for name, part in value.items():
                if name in _ARGUMENTS and "name" in value and part is not None:
                    arguments.append(part if isinstance(part, str) else encode(part).decode())
                    inner.append(("text", arguments[-1]))
                elif name not in _STRUCTURE:
                    inner.append((name, part))
            left += reversed(inner)
    return Reading(tuple(texts), tuple(arguments), media)
