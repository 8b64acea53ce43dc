"""The faults: what breaks, what has to be counted, and what the log has to say."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fake_provider import FakeProvider
from tests.faults.stage import Fault, Outcome, Stage
from tests.faults.stores import Cluster, Own, Place, Sentinels, Single

NOTHING: frozenset[str] = frozenset()

DOWN_AT_START = Fault("down at start", Single, Single.down_at_start, says="check that it runs")
FAULTS = (
    DOWN_AT_START,
    Fault("killed", Single, Single.killed, says="check that it runs"),
    Fault("frozen", Single, Single.frozen, says="does not answer in time.*check"),
    Fault("slow by 2 s", Single, Single.slow, says="does not answer in time.*check"),
    Fault("full, noeviction", Single, Single.full, says="maxmemory"),
    Fault("read-only replica", Single, Single.read_only, says="replica.*name the primary"),
    Fault("restarted empty", Single, Single.emptied, NOTHING, at_next_request=True),
    Fault("SCRIPT FLUSH", Single, Single.scripts_flushed, NOTHING),
    Fault("wrong password", Single, Single.other_password, says="check the user and the password"),
    Fault("rights taken", Single, Single.rights_taken, says="rights.*proxy-plugin doctor"),
    Fault("untrusted certificate", Single, Single.foreign_certificate, says="certificate.*ssl_ca_certs"),
    Fault("connection limit", Single, Single.too_many_clients, says="maxclients"),
    Fault("failover", Sentinels, Sentinels.failed_over, says="check that it runs|no primary"),
    Fault("resharding", Cluster, Cluster.resharded),
    *([Fault("disk full", Own, Own.disk_full, says="disk")] if hasattr(resource, "prlimit") else []),  # Linux
    Fault("worker killed in a stream", Own, Own.worker_killed, NOTHING),
)


@contextmanager
def stages(kinds: Sequence[type[Place]], folder: Path) -> Iterator[dict[type[Place], Stage]]:
    """One for each kind of store, started side by side."""
    with FakeProvider() as provider, ExitStack() as ending, ThreadPoolExecutor(len(kinds)) as pool:
        found: dict[type[Place], Stage] = {}
        for kind in kinds:
            home = folder / kind.__name__.lower()
            home.mkdir()
            place = kind(home)
            ending.callback(place.end)
            found[kind] = Stage(home, place, provider)
            ending.callback(found[kind].proxy.stop)
        for start in [pool.submit(stage.start) for stage in found.values()]:
            start.result()
        for kind, stage in found.items():
            if kind is Single:
                stage.opening = stage.run(DOWN_AT_START)
            stage.rehearse()
        yield found


def outcome(stage: Stage, fault: Fault) -> Outcome:
    """That of the start has been seen already: it is there once only."""
    seen = stage.opening if fault is DOWN_AT_START else None
    return seen or stage.run(fault)
