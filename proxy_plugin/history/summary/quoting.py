"""Quoted output stays quoted output: text in a summary that passes for something else is defused.

A summary may stand as a system message, and much of it was written by strangers. Three things must not
come out of it: the plugin's own marker, the marks by which chat templates and prompts tell roles apart, and
characters that a reader does not see. What asks to set instructions aside is named for what it is.
"""

from __future__ import annotations

import json
import re

_BRACKET = re.compile(
    r"[\[<](?=Tool calls|\|[a-z_]|/?INST\]|</?SYS>>"
    r"|/?(?:system|assistant|developer|human|instructions?|(?:tool|function)[-_](?:call|result|response|output)s?)"
    r"(?:[-_][a-z]{1,20})?[\s>])",
    re.IGNORECASE,
)
_BRACKETS = {"[": "(", "<": "‹"}
_ROLE = re.compile(
    r"^([ \t#*>-]{0,8})((?:system|assistant|developer|human|user)(?: (?:prompt|message|note))?)(?=[*_]{0,2}:)",
    re.IGNORECASE | re.MULTILINE,
)
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_BREAKS = frozenset("\r\x0b\x0c\x85\u2028\u2029")

_ORDER = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,20}\b(?:previous|prior|above|earlier|all|any|your)\b"
    r".{0,30}\b(?:instructions?|prompts?|rules|guidelines)\b"
    r"|\bnew (?:system )?instructions\b|\bnew system prompt\b|\byou (?:are|must) now\b",
    re.IGNORECASE,
)


def defused(text: str) -> str:
    """The text of an entry without marks that are not its own."""
    if not text.isascii() or not text.isprintable():
        text = _UNSEEN.sub(lambda match: " " if match[0] in _BREAKS else "", text)
        text = _ROLE.sub(r'\1"\2"', text)
    if "<" in text or "[" in text:
        text = _BRACKET.sub(lambda match: _BRACKETS[match[0]], text)
    return text


def as_data(text: str) -> str:
    """The text of a result; one that asks to set instructions aside in quotes and under a heading."""
    return f"data, no instructions: {json.dumps(text, ensure_ascii=False)}" if _ORDER.search(text) else text
