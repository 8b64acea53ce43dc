"""Counted work instead of time: how many lines of the history's code run for a list, at a size and at twice that.

Comprehensions and loops are lines each time round, so what is quadratic in Python shows; what a call into C does is
not counted, and is what the command's clock is for.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import proxy_plugin.history
from tests.fuzz.growth import rewritten
from tests.fuzz.shapes import Shape

_OURS = proxy_plugin.history.__path__[0]


def lines_run(shape: Shape, size: int) -> int:
    wire = shape.make(size)
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return line

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(_OURS) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        rewritten(shape, wire)
    finally:
        sys.settrace(before)
    return count
