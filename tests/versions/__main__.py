"""`python -m tests.versions`: the chosen tests in every environment and against every server of the plan.

Environments and servers are made once, in `.versions` (about 0.8 GB an environment). Progress goes to stderr, the
table to stdout. The exit code is the number of rows that failed, or 1 where none ran; a row that cannot be run here
is no failure.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.versions import environments, outcome, report
from tests.versions.plan import Environment, Row, rows
from tests.versions.pythons import find_python
from tests.versions.report import Line
from tests.versions.servers import find_server, release_of

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chosen = [row for row in rows(project) if all(word in row.named(project) for word in given.only)]
    if given.list:
        print(*(row.named(project) for row in chosen), sep="\n")
        return 0
    if given.fresh:
        shutil.rmtree(given.cache, ignore_errors=True)
    given.cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        made = Made(given.cache.resolve(), given.server, project, pool, chosen)
        lines = list(pool.map(lambda row: _run(row, made), chosen))
    if given.json:
        print(json.dumps([report.as_json(line) for line in lines], indent=1))
    else:
        print(report.HEADER, report.RULE, *map(report.text, lines), sep="\n")
    ran = [line for line in lines if not line.missing]
    return sum(not line.outcome.good for line in ran) if ran else 1


class Made:
    """What the rows need, each thing made once. `interpreters` and `servers`: what there is to a release, or in its
    place why there is nothing."""

    def __init__(
        self, cache: Path, named: Sequence[Path], project: Mapping[str, Any], pool: Executor, chosen: Sequence[Row]
    ) -> None:
        self.cache = cache
        self.project = project
        self._named = named
        wanted = list(dict.fromkeys(row.server for row in chosen))
        self.servers = dict(zip(wanted, pool.map(self._server, wanted), strict=True))
        needed = list(dict.fromkeys(row.environment for row in chosen if self.servers[row.server]))
        self.interpreters = dict(zip(needed, pool.map(self._interpreter, needed), strict=True))

    def _server(self, release: str) -> Path | None:
        found = find_server(release, self.cache, self._named)
        _progress(f"{release}: {'found' if found else 'not to be had here'}")
        return found

    def _interpreter(self, environment: Environment) -> Path | str | None:
        """None where this machine has no such Python; a text where pip cannot install it."""
        python = find_python(environment.python)
        if python is None:
            return None
        try:
            made = environments.make(ROOT, self.cache, environment, python, self.project)
        except subprocess.CalledProcessError as error:
            return f"pip ended with {error.returncode}"
        _progress(f"{environment.named(self.project)}: installed")
        return made


def _run(row: Row, made: Made) -> Line:
    server = made.servers[row.server]
    if server is None:
        return Line(row, missing=f"no {row.server} here")
    interpreter = made.interpreters[row.environment]
    if interpreter is None:
        return Line(row, missing=f"no Python {row.environment.python} here")
    if isinstance(interpreter, str):
        return Line(row, outcome=outcome.Outcome(problem=interpreter))
    began = time.monotonic()
    name = row.named(made.project)
    seen = outcome.run(ROOT, interpreter, server, made.cache / (re.sub(r"\W+", "-", name) + ".log"))
    line = Line(row, environments.installed(interpreter, made.project), release_of(server)[1], seen)
    _progress(f"{name}, {time.monotonic() - began:.0f} s: {report.text(line)}")
    for failure in seen.failures:
        _progress(f"    failed: {failure}")
    return line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="rows whose name holds all of these")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and end")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--fresh", action="store_true", help="make environments and servers again")
    parser.add_argument("--server", type=Path, action="append", default=[], metavar="PATH", help="a server to use")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="rows at once, of two processes each")
    parser.add_argument("--cache", type=Path, default=ROOT / ".versions", help="the folder of environments")
    return parser


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
