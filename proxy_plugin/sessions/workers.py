"""The lease by which a worker is known to be alive, and those of workers that are not.

A worker that stops in order gives its lease back. One that is killed leaves it, and the next worker that looks
after it ran out claims it, which exactly one can. Time is the server's, so that clocks need not agree.
"""

from __future__ import annotations

from secrets import token_hex
from time import monotonic

from proxy_plugin.sessions import keys
from proxy_plugin.sessions.connection import Connection

KEPT_SECONDS = 30 * 24 * 3600
"""How long leases and what is known of starts and stops outlive the last worker."""
BEATS = 3
"""Times that a lease is renewed within its length."""


class Workers:
    """One per worker. `lease_ms`: how long a worker may be silent before it counts as lost. `worker`: the id under
    which the lease is held, "" while none is."""

    def __init__(self, connection: Connection, lease_ms: int) -> None:
        self._connection = connection
        self._lease_ms = lease_ms
        self._id = token_hex(8)
        self._renewed = 0.0  # monotonic seconds of the last renewal
        self._judge_from = 0.0
        self._claimed: set[str] = set()
        self.worker = ""

    async def renew(self) -> tuple[list[str], float]:
        """Renews the lease. Returns the ids of lost workers, which this one claims with that, and how many seconds
        the next renewal may wait. Raises redis-py's errors."""
        began, lease = monotonic(), self._lease_ms / 1000
        if self.worker and began - self._renewed > lease:
            self._judge_from = began + lease  # the store was away, or this worker: others may be late as well
        judges = began >= self._judge_from
        reply = await self._lease("held" if self.worker else "start", judges)
        if reply[0] == b"lost":
            self._id = token_hex(8)
            reply = await self._lease("again", judges)
        self.worker, self._renewed = self._id, monotonic()
        wait = lease / BEATS
        if judges and reply[1]:
            wait = min(wait, int(reply[1]) / 1000 + 0.01)
        claimed = [worker.decode() for worker in reply[2:]]
        self._claimed.update(claimed)
        return claimed, wait

    async def _lease(self, how: str, judges: bool) -> list[bytes]:
        args: list[str | bytes | int] = [self._id, how, self._lease_ms, int(judges), KEPT_SECONDS * 1000]
        reply: list[bytes] = await self._connection.run("lease", [keys.WORKERS, keys.RECOVERY], [*args, *self._claimed])
        return reply

    async def recovered(self, worker: str) -> None:
        """Ends the claim on a lost worker: its sessions are recovered."""
        self._claimed.discard(worker)
        await self._connection.run("release", [keys.WORKERS, keys.RECOVERY], [worker, "recovered"])

    def gives_up(self, worker: str) -> None:
        """Leaves a lost worker to whoever claims it next."""
        self._claimed.discard(worker)

    async def release(self) -> None:
        """Gives the lease back: this worker stops in order."""
        if self.worker:
            self.worker = ""
            await self._connection.run("release", [keys.WORKERS, keys.RECOVERY], [self._id, "clean"])

    async def starts_and_stops(self) -> dict[str, int]:
        """last_start, last_clean_stop and last_unclean_stop (ms), and unclean_stops, as far as they are known."""
        stored = await self._connection.command("hgetall", keys.RECOVERY)
        return {name.decode(): int(value) for name, value in stored.items() if value.isdigit()}
