from __future__ import annotations

import pytest

from proxy_plugin.sessions import tree
from tests.sessions.paths import ids_of, lead, request


def test_a_head_is_read_as_it_was_written() -> None:
    commit = request("u1 c1 t1", lead=lead("x"), incomplete=True, at_ms=1_800_000_000_123)
    head = tree.encode_head(commit, 2, 4_000_000)
    assert len(head) == 107
    node = tree.decode_head(commit.ids[2], head.encode())
    assert (node.parent, node.depth, node.role, node.at_ms) == (commit.ids[1], 3, "tool", 1_800_000_000_123)
    assert (node.size, node.incomplete, node.side, node.lead) == (4_000_000, True, False, lead("x").id)
    assert node.subtask == tree.automatic(ids_of("u1")[0])
    root = tree.decode_head(commit.ids[0], tree.encode_head(commit, 0, 0).encode())
    assert (root.parent, root.depth, root.incomplete) == ("", 1, False)


@pytest.mark.parametrize("damaged", [b"", b"1u0", b"2" + b"u0" + b"-" * 104, b"\xff" * 107, b"1uX" + b"0" * 104])
def test_a_damaged_head_is_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError):
        tree.decode_head("0" * 32, damaged)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_769_846_400_123, "2026-01-31T08:00:00.123Z"),
        (999, "1970-01-01T00:00:00.999Z"),
    ],
)
def test_times_are_rfc_3339_with_milliseconds(ms: int, text: str) -> None:
    assert tree.rfc3339(ms) == text
