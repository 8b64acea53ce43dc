"""`python -m tests.faults [WORD…]`: plays each fault, or those whose name holds a word, and prints a table."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.faults.faults import FAULTS, outcome, stages
from tests.faults.stage import Outcome

HEADER = "| fault | requests failed | upstream bytes | slowest request ms | counted as | history whole after s |"


def main(words: list[str]) -> int:
    """The number of faults that cost something."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if not chosen:
        raise SystemExit(f"no such fault; there are: {', '.join(fault.name for fault in FAULTS)}")
    costly = 0
    with tempfile.TemporaryDirectory() as folder:
        kinds = list(dict.fromkeys(fault.place for fault in chosen))
        with stages(kinds, Path(folder)) as staged:
            print(HEADER, "|---" * HEADER.count(" | ") + "|---|", sep="\n", flush=True)
            for kind in kinds:
                print(_row(f"none ({kind.__name__.lower()})", staged[kind].healthy, True), flush=True)
            for fault in chosen:
                stage = staged[fault.place]
                seen = outcome(stage, fault)
                same = seen.bodies == stage.healthy.bodies
                print(_row(fault.name, seen, same), flush=True)
                costly += bool(seen.failed or not same or seen.whole_after is None)
    return costly


def _row(name: str, seen: Outcome, same: bool) -> str:
    counted = ", ".join(f"{reason} {times}" for reason, times in sorted(seen.counted.items())) or "–"
    whole = "never" if seen.whole_after is None else f"{seen.whole_after:.1f}"
    bodies = "as healthy" if same else "DIFFERENT"
    return f"| {name} | {len(seen.failed)} | {bodies} | {seen.slowest * 1000:.0f} | {counted} | {whole} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
