"""Conversations of messages of 2 KB each."""

from __future__ import annotations

from itertools import accumulate
from random import Random
from typing import Any

SIZE = 2_000
_WORDS = 4_000


class Texts:
    """Texts of words that repeat as words of a language do."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        letters = "etaoinshrdlucmfwypvbgk"
        self._words = ["".join(self._random.choices(letters, k=self._random.randint(2, 11))) for _ in range(_WORDS)]
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(_WORDS)))

    def text(self) -> str:
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=SIZE // 3))[:SIZE]

    def message(self, index: int) -> dict[str, Any]:
        """The user's at even places, the assistant's at odd ones."""
        return {"role": "assistant" if index % 2 else "user", "content": self.text()}

    def turn(self) -> list[dict[str, Any]]:
        """An answer and what the user says next."""
        return [self.message(1), self.message(0)]

    def tool_round(self) -> list[dict[str, Any]]:
        """A call of a tool and its result."""
        call = f"call_{self._random.getrandbits(64):016x}"
        function = {"name": "write", "arguments": "{}"}
        calls = [{"id": call, "type": "function", "function": function}]
        return [
            {"role": "assistant", "content": self.text(), "tool_calls": calls},
            {"role": "tool", "tool_call_id": call, "content": self.text()},
        ]

    def conversation(self, length: int) -> list[dict[str, Any]]:
        """Ends with the user's message, so `length` is odd; what follows is an answer and the next question."""
        return [self.message(index) for index in range(length)]
