"""What the agent said beside its calls: findings and reasons, not the announcement of the call itself."""

from __future__ import annotations

import re
from itertools import islice

from proxy_plugin.history.summary.digest import identifiers

_SENTENCES = 40  # that are looked at
_BREAK = re.compile(r"(?<=[.!?:])\s+|\n+")
_INTERJECTION = (
    r"(?:ok(?:ay)?|great|perfect|good|excellent|sure|certainly|now|next|then|first|no problem|thanks?(?: you)?)"
)
_ANNOUNCEMENT = re.compile(
    rf"(?:{_INTERJECTION}[,!.]?\s+){{0,3}}"
    rf"(?:{_INTERJECTION}[,!.:]?$|(?:let me|let['’]s|i['’]ll|i will|i['’]m going to|i can help)\b)",
    re.IGNORECASE,
)


def findings(text: str) -> str:
    """The text without sentences that only announce what the call beside them shows; those that hold an
    identifier stay. Empty if nothing else was said."""
    kept, start = [], 0
    for match in islice(_BREAK.finditer(text), _SENTENCES):
        if not _announces(text[start : match.start()]):
            kept.append(text[start : match.end()])
        start = match.end()
    if not _announces(text[start:]):
        kept.append(text[start:])
    return "".join(kept).strip()


def _announces(sentence: str) -> bool:
    return bool(_ANNOUNCEMENT.match(sentence)) and not any(identifiers(sentence))
