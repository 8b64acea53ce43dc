"""`python -m tests.benchmarks [rewriting|proxying …]`: both of them, or those named.

`python -m tests.benchmarks peers [--data FOLDER] [--json] [--limit N] [--quick]`: beside other tools.

`python -m tests.benchmarks levels [--data FOLDER] [--policy NAME]… [--provider NAME] [--json] [--jobs N]`: what it
saves and what it keeps, on recorded or generated conversations.
"""

from __future__ import annotations

import sys

from tests.benchmarks import proxying, rewriting
from tests.benchmarks.levels import report as levels
from tests.benchmarks.peers import report

BENCHMARKS = {"rewriting": rewriting.main, "proxying": proxying.main}


def main() -> None:
    if sys.argv[1:2] == ["peers"]:
        return report.main(sys.argv[2:])
    if sys.argv[1:2] == ["levels"]:
        return levels.main(sys.argv[2:])
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            there_are = ", ".join([*BENCHMARKS, "peers", "levels"])
            raise SystemExit(f"there is no benchmark {name!r}; there are: {there_are}")
    for name in names:
        BENCHMARKS[name]()
        print()


if __name__ == "__main__":
    main()
