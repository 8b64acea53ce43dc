"""What a tool under comparison is: one editor per conversation, which gets every request in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Message = dict[str, Any]

TRIGGER_TOKENS = 8_000
"""Where a tool has a threshold in tokens it gets this one: at their defaults (100,000 and more) most would
not do anything on sessions of this size, and the plugin has no threshold to compare with."""


def offline() -> None:
    """To be called before a peer is imported: figures must not depend on what a download brings."""
    spec = find_spec("litellm")
    assert spec is not None and spec.origin is not None
    tokenizers = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(tokenizers))
    os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", HEADROOM_OFFLINE="1")


class Editor:
    """One conversation's editor. `edit` is the tool's own work, and what is timed; `read` and `write`
    translate between chat messages and the tool's own form, which its users' frameworks hold anyway."""

    def read(self, messages: list[Message]) -> Any:
        return messages

    def edit(self, native: Any) -> Any:
        return native

    def write(self, native: Any) -> list[Message]:
        return list(native)

    def __call__(self, messages: list[Message]) -> list[Message]:
        return self.write(self.edit(self.read(messages)))


@dataclass(frozen=True, slots=True)
class Peer:
    """One row. `package`: the distribution whose code runs ("": rebuilt here, `spec`). `make` gives the
    editor of a new conversation and raises ImportError where the package is missing."""

    name: str
    settings: str
    make: Callable[[], Editor]
    package: str = ""

    @property
    def version(self) -> str:
        """The installed version, `spec`, or "" where the package is missing."""
        if not self.package:
            return "spec"
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""

    @property
    def missing(self) -> str:
        """Why this peer cannot run here; "" if it can."""
        if not self.version:
            return "not installed"
        try:
            self.make()
        except (ImportError, ValueError) as error:
            return f"not available: {str(error).splitlines()[0]}"
        return ""
