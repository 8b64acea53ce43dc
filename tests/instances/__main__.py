"""`python -m tests.instances [WORD…]`: two workers of each server that LiteLLM runs on, or of those named, with the
embedded server and with one of its own; prints a table. The exit code is the number of cells that are not "ok"."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from proxy_plugin.sessions.embedded import Embedded
from tests.fake_provider import FakeProvider
from tests.instances import lives
from tests.instances.fleet import SERVERS, Fleet
from tests.instances.plays import PLAYS, Seat, play, whole
from tests.proxy import Proxy, free_port

CHECKS = ("hopping as one worker", "kill -9 in a stream", "SIGTERM stores all", "SIGINT stores all", "store away")
KEEPS_ITS_WORKERS = ("uvicorn", "gunicorn")
"""Granian ends, in order, when one of its workers is killed."""
QUICK_ON_SIGINT = "gunicorn"
"""Its own meaning of that signal: the workers end at once, and streams are cut."""


def main(words: list[str]) -> int:
    chosen = [server for server in SERVERS if not words or server in words]
    if not chosen:
        raise SystemExit(f"no such server; there are: {', '.join(SERVERS)}")
    header = f"| server | store | {' | '.join(CHECKS)} |"
    print(header, "|---" * (2 + len(CHECKS)) + "|", sep="\n", flush=True)
    bad = 0
    for server in chosen:
        for external in (False, True):
            cells = _cells(server, external)
            bad += sum(cell not in ("ok", "–") for cell in cells)
            print(f"| {server} | {'external' if external else 'embedded'} | {' | '.join(cells)} |", flush=True)
    return bad


def _cells(server: str, external: bool) -> list[str]:
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        provider = ending.enter_context(FakeProvider())
        store = Embedded(folder / "external", free_port()) if external else None
        if store is not None:
            ending.callback(store.stop)
        return [
            _cell(lambda: _hops(_fleet(server, folder, "hops", provider, store), provider)),
            _cell(lambda: _loses(_fleet(server, folder, "loses", provider, store), provider))
            if server in KEEPS_ITS_WORKERS
            else "–",
            _stop_cell(server, folder, provider, store, signal.SIGTERM),
            "–" if server == QUICK_ON_SIGINT else _stop_cell(server, folder, provider, store, signal.SIGINT),
            _cell(lambda: _away(_fleet(server, folder, "away", provider, store), provider, store)) if store else "–",
        ]


def _stop_cell(server: str, folder: Path, provider: FakeProvider, store: Embedded | None, number: int) -> str:
    return _cell(lambda: _stops(_fleet(server, folder, f"stops-{number}", provider, store), provider, store, number))


def _cell(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # the table goes on
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
    return "ok"


def _fleet(server: str, folder: Path, name: str, provider: FakeProvider, store: Embedded | None) -> Fleet:
    home = folder / name
    home.mkdir()
    options: dict[str, Any] = {"environ": lives.ENVIRON, "custom_auth": True, "server": server}
    if store is not None:
        place = store.ensure()
        options["redis_url"] = f"redis://:{place.password}@{place.host}:{place.port}/0"
        with lives.client_of(store) as client:
            client.flushall()
    return Fleet(home, _models(provider), **options)


def _models(provider: FakeProvider) -> dict[str, Any]:
    claude = {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"}
    return {"gpt": provider.base_url, "claude": claude}


def _hops(fleet: Fleet, provider: FakeProvider) -> None:
    alone_in = fleet.folder / "alone"
    alone_in.mkdir()
    with fleet, Proxy(alone_in, _models(provider), custom_auth=True) as alone:
        seats = [Seat(fleet, worker) for worker in fleet.workers()]
        for name in PLAYS:
            session = name.replace(" ", "-").replace(",", "")
            one, two = play(name, [Seat(alone)], provider, session), play(name, seats, provider, session)
            assert one.bodies == two.bodies, f"{name}: other bytes"
            assert whole(alone, one) == whole(fleet, two), f"{name}: another session"
        assert provider.refused() == []
        assert len(lives.servers_of(fleet)) <= 1


def _loses(fleet: Fleet, provider: FakeProvider) -> None:
    with fleet:
        lives.loses_a_worker(fleet, provider)
    lives.leaves_nothing_running(fleet)


def _stops(fleet: Fleet, provider: FakeProvider, store: Embedded | None, number: int) -> None:
    with fleet:
        fleet.workers()
        lives.told_to_stop(fleet, provider, number)
    lives.leaves_nothing_running(fleet)
    with lives.client_of(store) if store is not None else lives.embedded_store(fleet) as client:
        lives.all_is_stored(client)


def _away(fleet: Fleet, provider: FakeProvider, store: Embedded | None) -> None:
    """The store is frozen, with commits that wait for it: the proxy ends all the same."""
    assert store is not None and store.pid is not None
    with fleet:
        fleet.workers()
        with lives.frozen(store.pid):
            lives.stops_without_its_store(fleet, provider)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
