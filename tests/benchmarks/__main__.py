"""`python -m tests.benchmarks [rewriting|proxying …]`: all of them, or those named."""

from __future__ import annotations

import sys

from tests.benchmarks import proxying, rewriting

BENCHMARKS = {"rewriting": rewriting.main, "proxying": proxying.main}


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            raise SystemExit(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    for name in names:
        BENCHMARKS[name]()
        print()


if __name__ == "__main__":
    main()
