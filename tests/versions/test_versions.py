"""The matrix as far as it goes without installing anything: its plan, what its environments are made of, what it
makes of a machine that lacks something, and that README shows its table."""

from __future__ import annotations

import tomllib
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.versions import __main__ as command
from tests.versions import environments, outcome, report, servers
from tests.versions.outcome import Outcome
from tests.versions.plan import BASE_SERVER, PYTHONS, SERVERS, Environment, Row, constraints, declared_floors, rows
from tests.versions.pythons import find_python

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EVERYTHING = tuple(sorted(declared_floors(PROJECT)))


def test_every_dependency_has_a_floor_that_its_own_bounds_let_in() -> None:
    bounds = {Requirement(line).name.lower().replace("_", "-"): Requirement(line) for line in PROJECT["dependencies"]}
    assert set(bounds) == set(EVERYTHING)
    for name, floor in declared_floors(PROJECT).items():
        assert Version(floor) in bounds[name].specifier
    with pytest.raises(ValueError, match="redis"):
        declared_floors({"dependencies": ["redis<9"]})


def test_each_axis_is_varied_and_the_ends_meet() -> None:
    planned = rows(PROJECT)
    assert len(set(planned)) == len(planned)
    assert {row.environment.python for row in planned} == set(PYTHONS)
    assert {row.server for row in planned} == set(SERVERS)
    assert {("litellm",), ("redis",), EVERYTHING, ()} == {row.environment.floors for row in planned}
    assert Row(Environment(PYTHONS[0], EVERYTHING), SERVERS[0]) in planned  # floor with floor
    assert Row(Environment(PYTHONS[-1]), "Redis 8.0") in planned  # newest with newest
    assert Version(PYTHONS[0]) in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_an_environment_is_made_of_what_is_declared() -> None:
    held = Environment("3.12", ("litellm", "redis"))
    floors = declared_floors(PROJECT)
    assert constraints(held, PROJECT) == f"litellm=={floors['litellm']}\nredis=={floors['redis']}\n"
    text = environments.specification(held, PROJECT)
    assert text.startswith("python 3.12\n")
    assert set(PROJECT["dependencies"]) < set(text.splitlines())
    assert any(line.startswith("pytest>=") for line in text.splitlines())
    assert text != environments.specification(Environment("3.12"), PROJECT)


def test_the_tests_that_it_runs_are_there() -> None:
    assert all((ROOT / path).exists() for path in (*outcome.TESTS, *outcome.WITHOUT))


def shim(folder: Path, name: str, says: str, code: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    program.chmod(0o755)
    return program


def test_a_python_is_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert find_python("3.12") is None
    shim(tmp_path, "python3.12", "", code=127)  # pyenv's, where this version is not switched on
    assert find_python("3.12") is None
    kept = shim(tmp_path / "pyenv" / "versions" / "3.12.1" / "bin", "python3.12", "3.12")
    assert find_python("3.12") == kept
    assert find_python("3.12") != shim(tmp_path, "python3.11", "3.11")


def test_a_server_is_known_by_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(servers, "SOURCES", {})
    named = [shim(tmp_path, "a", "Redis server v=7.2.11 sha=0"), shim(tmp_path, "b", "Valkey server v=8.1.1 sha=0")]
    assert servers.release_of(named[0]) == ("Redis 7.2", "Redis 7.2.11")
    assert servers.find_server("Valkey 8.1", tmp_path, named) == named[1]
    assert servers.find_server("Redis 8.1", tmp_path, named) is None
    assert servers.release_of(tmp_path / "none") == ("", "")


JUNIT = """<testsuites><testsuite><testcase classname="a" name="one"/>
<testcase classname="a" name="two"><failure/></testcase><testcase classname="a" name="two"><error/></testcase>
<testcase classname="a" name="three"><skipped/></testcase></testsuite></testsuites>"""


def test_what_ran_is_counted_and_only_that_is_good() -> None:
    seen = outcome.read(JUNIT)
    assert (seen.passed, seen.skipped, seen.failures, seen.good) == (1, 1, ("a::two",), False)
    assert Outcome(passed=5).good
    assert not Outcome().good
    assert not Outcome(passed=5, problem="interrupted").good


def test_what_this_machine_lacks_is_a_row_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_python", lambda release: None if release == "3.13" else tmp_path)
    monkeypatch.setattr(command, "find_server", lambda release, *_: None if release == "Redis 7.2" else tmp_path)
    monkeypatch.setattr(environments, "make", lambda *_: tmp_path)
    monkeypatch.setattr(environments, "installed", lambda *_: {"python": "3.x.1", "litellm": "1.2.3", "redis": "4.5.6"})
    monkeypatch.setattr(outcome, "run", lambda *_: Outcome(passed=7, skipped=2))
    assert command.main(["--cache", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [report.HEADER, report.RULE]
    assert len(printed) == 2 + len(rows(PROJECT))
    assert printed[2] == f"| 3.x.1 | 1.2.3 | 4.5.6 | newest | {BASE_SERVER} | 7 | 0 | 2 |"
    assert sum("no Redis 7.2 here" in line for line in printed) == 1
    assert sum("no Python 3.13 here" in line for line in printed) == 3
    assert command.main(["--cache", str(tmp_path), "--only", "Redis 7.2"]) == 1  # nothing ran


def test_a_row_that_cannot_be_installed_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Path:
        raise CalledProcessError(1, "pip")

    monkeypatch.setattr(command, "find_python", lambda release: tmp_path)
    monkeypatch.setattr(command, "find_server", lambda *_: tmp_path)
    monkeypatch.setattr(environments, "make", fails)
    assert command.main(["--cache", str(tmp_path), "--only", "all floors"]) == 1


def test_readme_has_the_table_as_it_is_printed() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{report.HEADER}\n{report.RULE}\n" in text
    table = text.partition(report.RULE + "\n")[2].partition("\n\n")[0].splitlines()
    assert len(table) == len(rows(PROJECT))
    for row, line in zip(rows(PROJECT), table, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == report.HEADER.count("|") - 1
        assert cells[0].startswith(row.environment.python)
        assert cells[4].startswith(row.server)
        floors = declared_floors(PROJECT)
        for cell, package in ((cells[1], "litellm"), (cells[2], "redis")):
            if package in row.environment.floors and "here" not in line:
                assert Version(cell) == Version(floors[package])
