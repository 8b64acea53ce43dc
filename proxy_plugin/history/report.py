"""What one rewriting did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of one rewritten history. Bytes are those of the orjson dump of the list.

    subtasks_collapsed     completed subtasks whose tool rounds this history carries as a summary
    tool_messages_cleared  tool messages that those summaries stand for
    pressure_steps         steps in which a running subtask's oldest rounds became a summary because the
                           history filled too much of the model's window
    resets                 resets of the conversation so far: what stood in front of the newest one has left out
    ids_renamed            calls whose id was changed (reused, missing, or refused by the target), and
                           item ids that had to change (doubled, over-long)
    results_added          neutral results for calls that nothing answered
    results_moved          results brought back behind their call
    orphans_moved          results without a call, turned into a note in a user message
    orphans_dropped        results without a call whose text stands there already, and reasoning and
                           references that belong to nothing
    turns_closed           short assistant messages put in where the target needs one
    prefix_break           what made this request differ, by design, in what the one before it had sent:
                           one of CAUSES, "" if nothing did
    """

    subtasks_collapsed: int = 0
    tool_messages_cleared: int = 0
    pressure_steps: int = 0
    resets: int = 0
    ids_renamed: int = 0
    results_added: int = 0
    results_moved: int = 0
    orphans_moved: int = 0
    orphans_dropped: int = 0
    turns_closed: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    prefix_break: str = ""

    CAUSES: ClassVar[tuple[str, ...]] = ("subtask", "plan_step", "pressure", "reset")
    REPAIRS: ClassVar[tuple[str, ...]] = (
        "ids_renamed",
        "results_added",
        "results_moved",
        "orphans_moved",
        "orphans_dropped",
        "turns_closed",
    )

    @property
    def repairs(self) -> dict[str, int]:
        """Kind of repair -> how many; the label values of `proxy_plugin_repairs_total`."""
        return {kind: getattr(self, kind) for kind in self.REPAIRS}

    @property
    def repaired(self) -> int:
        return sum(self.repairs.values())
