"""Where subtasks end.

1. At a user message that follows an assistant message without tool calls.
2. Behind the nodes that the client's own subtask ids mark (`Context.ends`).

Steps that a plan tool closes are found by `plan_tools`, and `ledger` decides what becomes of either.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from proxy_plugin.history.model import ASSISTANT, SYSTEM, TOOL, USER, Message
from proxy_plugin.history.plan import TURN_CLOSED
from proxy_plugin.history.summary import is_summary


@dataclass(frozen=True, slots=True)
class Context:
    """What the client said of a conversation beside its messages.

    ends       ids of the nodes behind which a subtask that the client named was over
    resets     ids of the nodes at which the conversation was reset for its age
    continued  the list goes on from a response that the provider keeps (`previous_response_id`,
               `conversation`): it is repaired alone, and results may answer calls that are not in it"""

    ends: frozenset[str] = frozenset()
    continued: bool = False
    resets: frozenset[str] = frozenset()


NOTHING_SAID = Context()


def completed(messages: Sequence[Message], ended: Set[int] = frozenset()) -> list[int]:
    """Where each completed subtask of a repaired history ends (exclusive indices, ascending).

    `ended`: indices of messages behind which the client closed a subtask; a tool round is never torn."""
    ends = []
    size = len(messages)
    for index, message in enumerate(messages):
        if _concludes(message):
            following = index + 1
            while following < size and messages[following].role == SYSTEM:
                following += 1
            if following < size and messages[following].role == USER:
                ends.append(index + 1)
        if index in ended:
            end = index + 1
            while end < size and messages[end].role == TOOL:
                end += 1
            if not ends or ends[-1] < end:
                ends.append(end)
    return ends


def _concludes(message: Message) -> bool:
    """An assistant message without tool calls, unless the plugin itself put it in: to close a turn, or as a
    summary."""
    if message.role != ASSISTANT or message.calls or message.content == TURN_CLOSED:
        return False
    return not (isinstance(message.content, str) and is_summary(message.content))


def still_completed(messages: Sequence[Message], end: int, ended: Set[int]) -> bool:
    """Whether a subtask that was once completed at `end` is so in this list too, which may stop there."""
    follower = end
    while follower < len(messages) and messages[follower].role == SYSTEM:
        follower += 1
    asked = follower < len(messages) and messages[follower].role == USER
    return (asked and _concludes(messages[end - 1])) or _closed_by_client(messages, end, ended)


def _closed_by_client(messages: Sequence[Message], end: int, ended: Set[int]) -> bool:
    index = end - 1
    while index not in ended and messages[index].role == TOOL:
        index -= 1
    return index in ended


def running_start(messages: Sequence[Message]) -> int:
    """Index of the running subtask's first message by rule 1 alone; 0 before the first boundary."""
    follower = None  # role of the next message that is no system message
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if follower == USER and _concludes(message):
            return index + 1
        if message.role != SYSTEM:
            follower = message.role
    return 0
