"""One request as the plugin would send it, beside the one that came: a unified diff of readable text."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from proxy_plugin.replay.conversations import Conversation
from proxy_plugin.replay.measure import rewritten
from proxy_plugin.settings import Settings

_WIDTH = 100
_COLOURS = {"+": "32", "-": "31", "@": "36"}


def names(wanted: str) -> list[tuple[str, int | None]]:
    """What `ID[:N]` may mean, the likelier first: an id may hold a colon itself."""
    head, mark, tail = wanted.rpartition(":")
    exact: tuple[str, int | None] = (wanted, None)
    return [exact, (head, int(tail))] if mark and head and tail.isdecimal() else [exact]


def diff(conversation: Conversation, number: int | None, settings: Settings) -> Iterator[str]:
    """Lines of the diff of request `number` (from 1; None: the last). LookupError if there is no such one."""
    chosen, count = None, 0
    for count, exchange in enumerate(conversation.exchanges, 1):
        chosen = exchange
        if count == number:
            break
    if chosen is None or (number is not None and count != number):
        raise LookupError(f"{conversation.id} has {count} requests")
    wire, result, _ = rewritten(conversation, chosen, settings, None)
    label = f"{conversation.id} request {count}"
    if result.messages is wire:
        yield f"{label} is sent as it came."
        return
    before, after = _readable(wire), _readable(result.messages)
    yield from difflib.unified_diff(before, after, f"{label}, received", f"{label}, sent", lineterm="")


def painted(line: str) -> str:
    colour = _COLOURS.get(line[:1])
    return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


class _Readable(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML brings no types
    """YAML with texts of several lines written as such, and no references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _readable(wire: Sequence[Any]) -> list[str]:
    text: str = yaml.dump(wire, Dumper=_Readable, allow_unicode=True, sort_keys=False, width=_WIDTH)
    return text.splitlines()
