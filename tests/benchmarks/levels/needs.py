"""The values of earlier tool traffic that an agent's next message uses.

leaf     a whole argument of a call, one line of at most 80 characters (a number: of at least four digits)
atom     an id, path, e-mail, URL, date or number inside a longer argument: code, a query, a message
answer   the same inside a text that ends a subtask

A value counts where earlier calls or results have it and no text has it that everybody keeps (users,
system, final answers), and where its newest place lies before the running subtask: that is what a collapse
could lose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.levels.homes import Belonging, Results
from tests.benchmarks.peers.measures import holds, running_from
from tests.benchmarks.peers.peer import Message
from tests.benchmarks.peers.text import calls_of, content_text, full_text

KINDS = ("leaf", "atom", "answer")
SHORTEST = 4
LONGEST_LEAF = 80
LONGEST_NAME = 40  # an argument without spaces up to here is one name, with nothing to be found inside

_WORD = re.compile(r"""(?:[^\s"'`<>()\[\]{},;=|*\\]|(?<=\d),(?=\d{3}))+""")
_AROUND = ".,:!?_~$€#&-"  # what sentences, Markdown and code put around a word
# Of files. Code has words with dots too (`path.join`), which name nothing that has to be remembered.
_FILE = re.compile(
    r".+\.(?:[ch]|cfg|cpp|css|csv|docx|go|html|ini|java|jpg|jsx?|json|lock|md|pdf|png|py|rs|rst|sh|sql|svg|toml|tsx?"
    r"|txt|xlsx|xml|ya?ml)"
)


@dataclass(frozen=True, slots=True)
class Need:
    """`belongings`: the objects that the value stood in, of all results that had it."""

    value: str
    kind: str
    belongings: tuple[Belonging, ...]


def needs_of(messages: list[Message]) -> dict[int, list[Need]]:
    """Index of an assistant message (not the first message) -> what it uses of completed subtasks."""
    search = _Search(messages)
    replies = [index for index, message in enumerate(messages) if index and message.get("role") == "assistant"]
    return {index: list(search.needs(index)) for index in replies}


class _Search:
    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.texts = [full_text(message) for message in messages]
        self.results = Results(messages)
        self._holders: dict[str, list[int]] = {}

    def needs(self, reply: int) -> Iterator[Need]:
        running = running_from(self.messages[:reply])
        for value, kind in dict.fromkeys(_used_by(self.messages[reply])):
            holders = [index for index in self._where(value) if index < reply]
            if holders and holders[-1] < running and all(_is_tool_traffic(self.messages[index]) for index in holders):
                found = (place for index in holders for place in self.results.belongings(value, index))
                yield Need(value, kind, tuple(dict.fromkeys(found)))

    def _where(self, value: str) -> list[int]:
        if value not in self._holders:
            self._holders[value] = [index for index, text in enumerate(self.texts) if holds(text, value)]
        return self._holders[value]


def _is_tool_traffic(message: Message) -> bool:
    return message.get("role") == "tool" or bool(message.get("tool_calls"))


def _used_by(reply: Message) -> Iterator[tuple[str, str]]:
    """(value, kind)."""
    if not reply.get("tool_calls"):
        yield from ((atom, "answer") for atom in _atoms(content_text(reply)))
        return
    for _, arguments in calls_of(reply):
        for value in _leaves(arguments):
            if len(value) <= LONGEST_LEAF and "\n" not in value:
                yield value, "leaf"
            if len(value) > LONGEST_NAME or " " in value:
                yield from ((atom, "atom") for atom in _atoms(value) if atom != value)


def _atoms(text: str) -> Iterator[str]:
    """Words that name one thing: with a digit, an e-mail, a path, a file's name."""
    for word in _WORD.findall(text):
        atom = word.strip(_AROUND).rstrip("/")
        if len(atom) >= SHORTEST and _names_one(atom):
            yield atom


def _names_one(word: str) -> bool:
    has_digit = any(letter.isdigit() for letter in word)
    return has_digit or "/" in word[1:] or "@" in word[1:] or _FILE.fullmatch(word) is not None


def _leaves(arguments: str) -> Iterator[str]:
    try:
        left: list[Any] = [json.loads(arguments)]
    except ValueError:
        return
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            left += reversed(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, str):
            if len(value) >= SHORTEST:
                yield value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            text = json.dumps(value)
            if sum(letter.isdigit() for letter in text) >= SHORTEST:
                yield text
