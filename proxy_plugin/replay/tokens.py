"""Counting tokens without a network: OpenAI's o200k_base from the files that LiteLLM brings, else the plugin's own
estimate.

Other models' tokenizers differ by some percent. Both sides of a comparison are counted alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from proxy_plugin.history.tokens import tokens_of

ENCODING = "o200k_base"
_STRETCH = 20_000  # characters encoded at once: one unbroken run takes quadratic time


class Tokenizer(NamedTuple):
    """`count` gives the tokens of a text. `name` says what it is, `exact` whether it is a real tokenizer."""

    name: str
    exact: bool
    count: Callable[[str], int]


def tokenizer() -> Tokenizer:
    """The best one that works here; never touches a network."""
    try:
        encoding = _bundled()
    except Exception:  # no tiktoken, no files, or another version of either: none of it stops a replay
        return Tokenizer("bytes by class", False, tokens_of)

    def count(text: str) -> int:
        stretches = (text[at : at + _STRETCH] for at in range(0, len(text), _STRETCH))
        return sum(len(encoding.encode_ordinary(stretch)) for stretch in stretches)

    return Tokenizer(ENCODING, True, count)


def _bundled() -> Any:
    import tiktoken
    import tiktoken.load

    found = find_spec("litellm")  # finds the package without importing it
    if found is None or found.origin is None:
        raise LookupError("litellm")
    folder = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    before, download = os.environ.get("TIKTOKEN_CACHE_DIR"), tiktoken.load.read_file
    try:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        tiktoken.load.read_file = _refuse
        return tiktoken.get_encoding(ENCODING)
    finally:
        tiktoken.load.read_file = download
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def _refuse(blobpath: str) -> bytes:
    raise OSError(f"{blobpath} is not on this machine")
