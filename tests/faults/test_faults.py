"""Each fault under a real proxy, beside the healthy run of the same plan."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.faults.faults import FAULTS, outcome, stages
from tests.faults.stage import Fault, Stage
from tests.faults.stores import Place

LONGEST_SECONDS = 3.0
"""Of a request. No measure of the deadline, which `waits` is: far above a loaded machine's delays, and below
what a request would take that waited for the store each time that it could."""


@pytest.fixture(scope="module")
def staged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[type[Place], Stage]]:
    """Only the stages that the chosen tests play on."""
    chosen = [item.callspec.params["fault"] for item in request.session.items if hasattr(item, "callspec")
              and isinstance(item.callspec.params.get("fault"), Fault)]  # fmt: skip
    kinds = list(dict.fromkeys(fault.place for fault in chosen))
    with stages(kinds, tmp_path_factory.mktemp("faults")) as found:
        yield found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_costs_no_request_and_no_history(fault: Fault, staged: dict[type[Place], Stage]) -> None:
    stage = staged[fault.place]
    seen = outcome(stage, fault)
    assert seen.failed == []
    assert seen.bodies == stage.healthy.bodies
    assert seen.whole_after is not None, seen.log
    assert seen.waits == 0
    assert seen.slowest < LONGEST_SECONDS
    assert not fault.counted or fault.counted & seen.counted.keys(), seen.counted
    assert not fault.says or any(re.search(fault.says, line) for line in seen.said), seen.said
    assert "Traceback" not in seen.log
