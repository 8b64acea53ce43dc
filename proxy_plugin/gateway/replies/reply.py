"""What the three endpoints have in common: the names of ids, the collected reply, LiteLLM's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from proxy_plugin.history.dialects import IdRule
from proxy_plugin.history.repair import Ids

NameOf = Callable[[str], str]


def _unchanged(given: str) -> str:
    return given


@dataclass(frozen=True, slots=True)
class Names:
    """The ids under which the client shall see what the provider made: another one if the path holds it.

    Each call of either function is for one thing: asked twice for the same id, they give two.

    call  of a tool call
    item  of the item that holds a tool call (/v1/responses)
    unnamed_items  the client leaves the ids of such items out, so that the path cannot tell which it holds"""

    call: NameOf = _unchanged
    item: NameOf = _unchanged
    unnamed_items: bool = False

    @classmethod
    def beside(cls, ids: Ids, wire: Iterable[Any] = ()) -> Names:
        """Those that are free on a path: `ids` its calls (learns the new ones), `wire` its items."""
        items, unnamed = Ids(IdRule(at_most=64)), False
        for item in wire:
            item_id = field(item, "id")
            if isinstance(item_id, str):
                items.name_new(item_id)
            else:
                unnamed = unnamed or str(field(item, "type")).endswith("_call")
        return cls(ids.name_new, items.name_new, unnamed)


class Reply(NamedTuple):
    """What came of a request, as wire items of its endpoint; the ids are those that the client saw.

    complete     the model came to an end (its own, or that of its tokens); False: it broke off or pauses
    response_id  by which a later request may go on from it, as LiteLLM writes it (/v1/responses)"""

    items: list[Any]
    complete: bool
    response_id: str = ""


class StreamedReply(Protocol):
    """A reply on its way.

    over  a client may go on from the reply as soon as it has the chunk that was seen last"""

    @property
    def over(self) -> bool: ...

    def see(self, chunk: Any) -> Sequence[Any]:
        """What goes on now that this chunk has come: the chunk, changed in place where it is an object.
        When it raises, what goes on is `rest` and the chunk as it came."""

    def rest(self) -> Sequence[Any]:
        """What is still held back, for the end of the stream; once."""

    def reply(self) -> Reply | None:
        """What has come so far; None if that is nothing."""


def field(thing: Any, name: str) -> Any:
    """A field of a dict or of an object; None where it is missing."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def put(thing: Any, name: str, value: Any) -> None:
    if isinstance(thing, dict):
        thing[name] = value
    else:
        setattr(thing, name, value)


def plain(thing: Any) -> Any:
    """A wire value of an object of LiteLLM's, without nulls; anything else as it is."""
    dump = getattr(thing, "model_dump", None)
    return dump(mode="json", exclude_none=True, warnings=False) if dump is not None else thing


def usable(call_id: Any) -> bool:
    return isinstance(call_id, str) and bool(call_id)
