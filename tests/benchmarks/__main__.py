"""`python -m tests.benchmarks [rewriting|proxying …]`: both of them, or those named.

`python -m tests.benchmarks peers [--data FOLDER] [--json] [--limit N] [--quick]`: beside other tools.

`python -m tests.benchmarks levels [--data FOLDER] [--policy NAME]… [--provider NAME] [--json] [--jobs N]`: what it
saves and what it keeps, on recorded or generated conversations.

`python -m tests.benchmarks load [--seconds N] [--clients 64] [--sessions 1000] [--json]`: the proxy under the load of
many agents, with the plugin and without it.

`python -m tests.benchmarks store [--json] [--seconds N]`: the store beside other ways to keep a conversation in Redis.

`python -m tests.benchmarks scale [--sessions 1000000] [--gigabytes 4] [--json]`: what a Redis Cluster carries.
"""

from __future__ import annotations

import sys

from tests.benchmarks import overhead, proxying, rewriting
from tests.benchmarks.levels import report as levels
from tests.benchmarks.load import report as load
from tests.benchmarks.peers import report
from tests.benchmarks.store import report as store
from tests.benchmarks.store import scale

BENCHMARKS = {"rewriting": rewriting.main, "proxying": proxying.main}


def main() -> None:
    if sys.argv[1:2] == ["peers"]:
        return report.main(sys.argv[2:])
    if sys.argv[1:2] == ["levels"]:
        return levels.main(sys.argv[2:])
    if sys.argv[1:2] == ["load"]:
        return load.main(sys.argv[2:])
    if sys.argv[1:2] == ["store"]:
        return store.main(sys.argv[2:])
    if sys.argv[1:2] == ["scale"]:
        return scale.main(sys.argv[2:])
    if sys.argv[1:2] == ["overhead"]:
        return overhead.main(sys.argv[2:])
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            there_are = ", ".join([*BENCHMARKS, "peers", "levels", "load", "store", "overhead"])
            raise SystemExit(f"there is no benchmark {name!r}; there are: {there_are}")
    for name in names:
        BENCHMARKS[name]()
        print()


if __name__ == "__main__":
    main()
