"""`python -m tests.benchmarks [rewriting|proxying …]`: both of them, or those named.

`python -m tests.benchmarks peers [--data FOLDER] [--json] [--limit N] [--quick]`: beside other tools.
"""

from __future__ import annotations

import sys

from tests.benchmarks import proxying, rewriting
from tests.benchmarks.peers import report

BENCHMARKS = {"rewriting": rewriting.main, "proxying": proxying.main}


def main() -> None:
    if sys.argv[1:2] == ["peers"]:
        return report.main(sys.argv[2:])
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            raise SystemExit(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}, peers")
    for name in names:
        BENCHMARKS[name]()
        print()


if __name__ == "__main__":
    main()
