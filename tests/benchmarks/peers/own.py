"""The plugin's rows, and the one that sends everything."""

from __future__ import annotations

from functools import partial
from typing import Any

from proxy_plugin import Settings, rewrite_history
from proxy_plugin.settings import Collapse
from tests.benchmarks.peers.peer import Editor, Message, Peer


class Plugin(Editor):
    """`rewrite_history` with a memo for the conversation, as the proxy calls it. ValueError where this
    version has no such policy."""

    def __init__(self, policy: Any) -> None:
        self.settings = Settings(collapse=Collapse(policy=policy))
        self.memo: dict[str, Any] = {}

    def edit(self, native: list[Message]) -> list[Message]:
        return list(rewrite_history(native, settings=self.settings, memo=self.memo).messages)


EVERYTHING = Peer("nothing (everything is sent)", "", Editor)
OWN = tuple(
    Peer(
        f"proxy_plugin, {policy}",
        f"policy {policy}, provider openai",
        partial(Plugin, policy),
        "litellm-session-plugin",
    )
    for policy in ("always", "economical")
)
