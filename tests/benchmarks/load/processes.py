"""What processes use, from /proc (Linux)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
_SAMPLE_SECONDS = 0.25


def resident_mib(pid: int) -> float:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MIB


def children(pid: int) -> list[int]:
    """The processes below one, in any depth."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


@contextlib.asynccontextmanager
async def sampled(pid: int, samples: list[float]) -> AsyncIterator[None]:
    """Adds to `samples` the resident memory of a process, four times a second."""

    async def sample() -> None:
        while True:
            samples.append(resident_mib(pid))
            await asyncio.sleep(_SAMPLE_SECONDS)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()


def thirds(samples: list[float]) -> tuple[float, float, float]:
    """Medians of the first, the middle and the last third."""
    size = len(samples) // 3
    return median(samples[:size]), median(samples[size:-size]), median(samples[-size:])
