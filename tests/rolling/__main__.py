"""`python -m tests.rolling --old REF [--new REF]`: two versions of the plugin side by side on one store.

Each conversation is played on the old version alone, on the new one alone, and hopping between both with every
request. REF is a commit or a wheel; without --new it is the work tree. Prints a table; exits with the number of
conversations that the hopping changed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from proxy_plugin.sessions.embedded import Embedded
from tests.fake_provider import FakeProvider
from tests.instances.plays import PLAYS, Play, Seat, play, portrait, whole
from tests.proxy import Proxy, free_port
from tests.rolling.versions import ROOT, described, unpack

HEADER = (
    "| conversation | requests | bytes sent by each alone | by both in turn | shown by the old | shown by the new |"
)


@contextmanager
def side_by_side(old: str, new: str | None, folder: Path, provider: FakeProvider) -> Iterator[tuple[Proxy, Proxy]]:
    """A proxy of each version, on one store, with the same keys."""
    claude = {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url, "api_key": "sk-up"}
    models = {"gpt": provider.base_url, "claude": claude}
    with ExitStack() as ending:
        server = Embedded(folder / "store", free_port())
        store = server.ensure()
        ending.callback(server.stop)
        url = f"redis://:{store.password}@{store.host}:{store.port}/0"
        proxies: list[Proxy] = []
        for name, version in (("old", old), ("new", new)):
            home, packed = folder / name, folder / f"{name}-package"
            home.mkdir()
            packed.mkdir()
            path = str(ROOT) if version is None else unpack(version, packed)
            key = proxies[0].key if proxies else ""
            options: dict[str, Any] = {"redis_url": url, "custom_auth": True, "key": key}
            proxies.append(Proxy(home, models, environ={"PYTHONPATH": path}, **options))
            ending.callback(proxies[-1].stop)
        with ThreadPoolExecutor(len(proxies)) as pool:
            for start in [pool.submit(proxy.start) for proxy in proxies]:
                start.result()
        yield proxies[0], proxies[1]


def row(name: str, old: Proxy, new: Proxy, provider: FakeProvider) -> tuple[str, bool]:
    """A line of the table, and whether hopping changed nothing."""

    def played(way: str, *proxies: Proxy) -> Play:
        session = f"{way}-{name}".replace(" ", "-").replace(",", "")
        return play(name, [Seat(proxy) for proxy in proxies], provider, session)

    on_old, on_new = played("old", old), played("new", new)
    before, after = whole(old, on_old), whole(new, on_new)
    there, back = played("there", old, new), played("back", new, old)
    alone = "same" if on_old.bodies == on_new.bodies else f"{_differing(on_old, on_new)} differ"
    hops = [_differing(hopped, on_old, on_new) for hopped in (there, back)]
    seen_old = _parts(before, *(_seen(old, hopped) for hopped in (there, back, on_new)))
    seen_new = _parts(after, *(_seen(new, hopped) for hopped in (there, back, on_old)))
    bytes_of = "same" if not sum(hops) else f"{sum(hops)} differ"
    line = f"| {name} | {on_new.asked} | {alone} | {bytes_of} | {seen_old} | {seen_new} |"
    return line, not sum(hops) and seen_old == seen_new == "same"


def _differing(hopped: Play, *alone: Play) -> int:
    """Requests that left as none of those on one version did."""
    return sum(
        body not in [play.bodies[index] for play in alone if index < len(play.bodies)]
        for index, body in enumerate(hopped.bodies)
    )


def _seen(proxy: Proxy, played: Play) -> Mapping[str, Any]:
    """What the proxy shows of a play, once it is whole, or after all what there is."""
    try:
        return whole(proxy, played)
    except AssertionError:
        return portrait(proxy, played.session)


def _parts(expected: Mapping[str, Any], *seen: Mapping[str, Any]) -> str:
    """What is shown otherwise."""
    parts = [part for part in expected if any(found[part] != expected[part] for found in seen)]
    return ", ".join(parts) or "same"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rolling", description=__doc__)
    parser.add_argument("--old", required=True, metavar="REF")
    parser.add_argument("--new", metavar="REF")
    said = parser.parse_args(arguments)
    names = [described(said.old), described(said.new) if said.new else "work tree"]
    print(f"old: {names[0]}, new: {names[1]}\n")
    changed = 0
    with ExitStack() as ending:
        folder, provider = ending.enter_context(tempfile.TemporaryDirectory()), ending.enter_context(FakeProvider())
        old, new = ending.enter_context(side_by_side(said.old, said.new, Path(folder), provider))
        print(HEADER, "|---" * HEADER.count(" | ") + "|---|", sep="\n", flush=True)
        for name in PLAYS:
            line, same = row(name, old, new, provider)
            print(line, flush=True)
            changed += not same
        for proxy, version in ((old, "old"), (new, "new")):
            warned = [line for line in proxy.log().splitlines() if "proxy_plugin:WARNING" in line]
            print(f"\n{version}: {len(warned)} warnings of the plugin", *warned[:5], sep="\n")
    return changed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
