"""The rows of the matrix: what is varied, against what. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHONS = ("3.11", "3.12", "3.13")
SERVERS = ("Redis 6.2", "Redis 7.0", "Redis 7.2", "Redis 7.4", "Redis 8.0", "Valkey 8.1", "Valkey 9.1")
BASE_SERVER = "Valkey 9.1"
TOOLS_OF_TESTS = ("pytest", "pytest-xdist", "hypothesis", "openai", "httpx", "anthropic")
"""What the chosen tests need of the extra `test`."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed. `floors`: the packages that are held at the oldest version that is declared, sorted."""

    python: str
    floors: tuple[str, ...] = ()

    def named(self, project: Mapping[str, Any]) -> str:
        everything = self.floors == tuple(sorted(declared_floors(project)))
        held = "all floors" if everything else ", ".join(f"{package} floor" for package in self.floors)
        return f"Python {self.python} · {held or 'newest'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One run of the tests. `server`: name and release, as in "Redis 6.2"."""

    environment: Environment
    server: str

    def named(self, project: Mapping[str, Any]) -> str:
        """Words to choose it by, and for lines of progress."""
        return f"{self.environment.named(project)} · {self.server}"


def declared_floors(project: Mapping[str, Any]) -> dict[str, str]:
    """Package -> oldest version that `dependencies` of a pyproject's [project] lets in. Raises ValueError for a
    dependency without one: it could not be tested."""
    floors: dict[str, str] = {}
    for requirement in map(Requirement, project["dependencies"]):
        oldest = [bound.version for bound in requirement.specifier if bound.operator in (">=", "==")]
        if len(oldest) != 1:
            raise ValueError(f"no lower bound: {requirement}")
        floors[canonicalize_name(requirement.name)] = oldest[0]
    return floors


def rows(project: Mapping[str, Any]) -> list[Row]:
    """Each axis against the base (the oldest Python, everything newest, the server that the plugin carries), then
    floor with floor and newest with newest."""
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    everything = tuple(sorted(declared_floors(project)))
    planned = [
        *(Row(Environment(python), BASE_SERVER) for python in PYTHONS),
        *(Row(Environment(oldest, (package,)), BASE_SERVER) for package in ("litellm", "redis")),
        *(Row(Environment(oldest), server) for server in SERVERS),
        Row(Environment(oldest, everything), SERVERS[0]),
        Row(Environment(newest, ("litellm",)), BASE_SERVER),
        Row(Environment(newest), "Redis 8.0"),
    ]
    return list(dict.fromkeys(planned))


def constraints(environment: Environment, project: Mapping[str, Any]) -> str:
    """A constraints file for pip: the floors that this environment holds."""
    floors = declared_floors(project)
    return "".join(f"{package}=={floors[package]}\n" for package in environment.floors)


def tools(project: Mapping[str, Any]) -> Sequence[str]:
    """Requirements of the tests themselves, as the extra `test` has them."""
    extra = project["optional-dependencies"]["test"]
    return [line for line in extra if canonicalize_name(Requirement(line).name) in TOOLS_OF_TESTS]
