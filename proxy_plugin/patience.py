"""Waiting that is bounded in the event loop's own time.

On a busy worker a timer is due before what it waits for has been looked at: a store that answers in a
millisecond would be taken for one that is away, and requests would pass unhandled while nothing is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_STEPS = 10


async def wait_patiently(task: asyncio.Future[Any], seconds: float) -> bool:
    """Whether the task is done after `seconds`, each tenth of which counts once at most, however late the loop
    comes to it; on a free loop those are seconds of the clock. The task itself goes on."""
    for _ in range(_STEPS):
        if task.done():
            break
        await asyncio.wait({task}, timeout=max(0.0, seconds) / _STEPS)
    return task.done()


async def within(seconds: float, answer: Coroutine[Any, Any, T]) -> T:
    """The answer. Raises TimeoutError where it takes longer, and gives it up then."""
    task = asyncio.create_task(answer)
    try:
        if not await wait_patiently(task, seconds):
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()  # has no effect where it is done
