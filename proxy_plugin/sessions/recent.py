"""A worker's bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class Recent(OrderedDict[Any, Any]):
    """Keeps the `limit` entries that were put last."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def put(self, key: Any, value: Any) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)
