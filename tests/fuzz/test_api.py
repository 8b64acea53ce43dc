"""The HTTP API under schemathesis, in short. `python -m tests.fuzz http` is the long form."""

from __future__ import annotations

from tests.binaries import require_package
from tests.proxy import Proxy

EXAMPLES = 3  # of each operation
SEED = 7


def test_every_answer_is_one_that_the_document_tells_of(proxy: Proxy) -> None:
    require_package("schemathesis")
    from tests.fuzz import api

    api.fill(proxy)
    tallies = dict(api.fuzz(proxy, examples=EXAMPLES, number=SEED))
    assert {operation: tally.faults for operation, tally in tallies.items() if tally.faults} == {}
    assert len(tallies) > 25 and all(tally.statuses for tally in tallies.values())
    assert sum(tally.statuses[200] for tally in tallies.values()) > len(tallies) / 2
