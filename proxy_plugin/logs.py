"""What may be logged of an error: its class and where it arose. Its text may hold content or keys."""

from __future__ import annotations

from pathlib import Path


def describe(error: BaseException) -> str:
    """Such as `TypeError at rewrite.py:120`."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame is not None else ""
    return type(error).__name__ + where
