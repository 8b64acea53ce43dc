"""Tools rebuilt from their documented behaviour, where their code runs only inside their own service or
agent. Each names its source."""

from __future__ import annotations

from tests.benchmarks.peers.peer import TRIGGER_TOKENS, Editor, Message, Peer
from tests.benchmarks.peers.text import calls_of, content_text, tokens

CLIP = 120


def extract(messages: list[Message]) -> str:
    """A summary without a model, for tools that let their user bring a summariser: user and assistant texts
    whole, of each call and result the first 120 characters."""
    lines = ["Summary of the conversation so far:"]
    for message in messages:
        text = content_text(message)
        if message.get("role") == "tool":
            lines.append(f"-> {text[:CLIP]}")
        elif text:
            lines.append(text if text.startswith(lines[0]) else f"{message.get('role')}: {text}")
        lines += [f"{name}({arguments[:CLIP]})" for name, arguments in calls_of(message)]
    return "\n".join(lines)


def _tool_places(messages: list[Message]) -> list[int]:
    return [index for index, message in enumerate(messages) if message.get("role") == "tool"]


def _replaced(messages: list[Message], places: list[int], text: str) -> list[Message]:
    chosen = set(places)
    return [{**message, "content": text} if at in chosen else message for at, message in enumerate(messages)]


class ClearToolUses(Editor):
    """Anthropic's context editing `clear_tool_uses_20250919`: evaluated afresh on each request; above the
    trigger all tool results but the newest `keep` become a placeholder, if that clears `at_least` tokens."""

    keep, at_least = 3, 2_000

    def edit(self, native: list[Message]) -> list[Message]:
        if sum(map(tokens, native)) <= TRIGGER_TOKENS:
            return native
        cleared = _replaced(native, _tool_places(native)[: -self.keep], "[tool result cleared]")
        gained = sum(map(tokens, native)) - sum(map(tokens, cleared))
        return cleared if gained >= self.at_least else native


class ObservationMasking(Editor):
    """OpenHands' ObservationMaskingCondenser with the window of "The Complexity Trap" (2025): the newest
    `window` results stay, older ones become a placeholder."""

    window = 10

    def edit(self, native: list[Message]) -> list[Message]:
        return _replaced(native, _tool_places(native)[: -self.window], "<MASKED>")


class LastObservations(Editor):
    """SWE-agent's history processor `last_n_observations` with n=5, polling=1."""

    newest = 5

    def edit(self, native: list[Message]) -> list[Message]:
        out = list(native)
        for at in _tool_places(native)[: -self.newest]:
            lines = content_text(native[at]).count("\n") + 1
            out[at] = {**native[at], "content": f"Old environment output: ({lines} lines omitted)"}
        return out


class Condenser(Editor):
    """OpenHands' LLMSummarizingCondenser as its default agent sets it (`max_size` 80 events, `keep_first` 4),
    the model's summary replaced by `extract`: above `max_size` events all but the first four and the newest
    35 become one summary, cut between tool rounds, and stay so."""

    max_size, keep_first = 80, 4

    def __init__(self) -> None:
        self.seen = 0
        self.view: list[Message] = []

    def edit(self, native: list[Message]) -> list[Message]:
        self.view += native[self.seen :]
        self.seen = len(native)
        if len(self.view) > self.max_size:
            start = self._cut(self.keep_first)
            end = self._cut(len(self.view) - (self.max_size // 2 - self.keep_first - 1))
            if start < end:
                summary = {"role": "user", "content": extract(self.view[start:end])}
                self.view[start:end] = [summary]
        return list(self.view)

    def _cut(self, at: int) -> int:
        """The first place from `at` on that is not inside a tool round."""
        while at < len(self.view) and self.view[at].get("role") == "tool":
            at += 1
        return at


SPECS = (
    Peer("Anthropic clear_tool_uses", "trigger 8k tokens, keep 3, clear at least 2k", ClearToolUses),
    Peer("OpenHands condenser", "max_size 80, keep_first 4, extractive summary", Condenser),
    Peer("OpenHands observation masking", "newest 10 results", ObservationMasking),
    Peer("SWE-agent last_n_observations", "n 5, polling 1", LastObservations),
)
