"""Content parts in the chat form, which every wire form is read into.

One way to write each thing that all three forms can say: text, an image (a URL, `data:` for what is sent
along), a file. So the same message means the same, whatever carried it. What a form alone can say stays
in the content as an opaque part, without the ids that its maker counts anew in every copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy_plugin.history.model import dump

Part = dict[str, Any]

_COUNTED = frozenset({"id", "tool_use_id", "status", "cache_control"})


def usable_id(value: Any) -> str | None:
    """An id that can pair a call with its result; None for what is missing, blank or no string."""
    return value if isinstance(value, str) and value.strip() else None


def text(value: str) -> Part:
    return {"type": "text", "text": value}


def image(url: str, detail: Any = None) -> Part:
    """`detail` as OpenAI names it; its default, "auto", is the same as none."""
    if isinstance(detail, str) and detail != "auto":
        return {"type": "image_url", "image_url": {"url": url, "detail": detail}}
    return {"type": "image_url", "image_url": {"url": url}}


def file(**fields: Any) -> Part:
    """Of file_data (a `data:` URL), file_id and filename those that are there."""
    return {"type": "file", "file": {key: value for key, value in fields.items() if value is not None}}


def opaque(value: Mapping[str, Any]) -> Part:
    """What only one form has, without what is no part of its meaning."""
    if value.get("type") == "item_reference":
        return dict(value)  # its id is all that it says
    return {key: inner for key, inner in value.items() if key not in _COUNTED}


def content(parts: Sequence[Any]) -> Any:
    """Chat-form content of some parts: a single text is a plain string, nothing at all is None."""
    if len(parts) == 1:
        only = parts[0]
        if isinstance(only, dict) and only.get("type") == "text" and isinstance(only.get("text"), str):
            return only["text"]
    return list(parts) or None


def split_data_url(url: Any) -> tuple[str, str] | None:
    """(media type, base64 text) of a `data:` URL; None for any other value."""
    if not isinstance(url, str) or not url.startswith("data:"):
        return None
    head, mark, data = url[5:].partition(";base64,")
    return (head, data) if mark else None


_LONGEST_BREAKPOINT = len('{"type":"ephemeral","ttl":"1h"}')
"""What else stands under that name is no breakpoint that a provider knows, and has no place in the accounts."""


def breakpoint_of(holder: Any) -> Part:
    """The cache breakpoint of an object or of the parts of its content, the first one: {} or
    {"cache_control": …}. The first, because one that lasts longer has to stand in front."""
    inner = field(holder, "content")
    for part in [holder, *(inner if isinstance(inner, list) else ())]:
        mark = field(part, "cache_control")
        if isinstance(mark, dict) and mark and len(dump(mark)) <= _LONGEST_BREAKPOINT:
            return {"cache_control": mark}
    return {}


def field(part: Any, *names: str) -> Any:
    """The value under nested keys, None where one of them is missing or no object."""
    for name in names:
        part = part.get(name) if isinstance(part, dict) else None
    return part
