"""The command: options in, figures out.

Exit codes: 0 done; 1 something could not be read (it is named on stderr, the rest is done); 2 the options
cannot be used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from proxy_plugin.replay import plot, show, table
from proxy_plugin.replay.conversations import Conversation
from proxy_plugin.replay.figures import Figures
from proxy_plugin.replay.files import Recording, recordings
from proxy_plugin.replay.measure import steps
from proxy_plugin.replay.prices import Prices, prices_of
from proxy_plugin.replay.progress import Progress
from proxy_plugin.replay.tokens import tokenizer
from proxy_plugin.settings import Settings, SettingsError

_NAMED_LINES = 20  # broken lines of one file that are named one by one


class _Unusable(Exception):
    """Options that cannot be used; one line that says why."""


def run(arguments: argparse.Namespace) -> int:
    try:
        settings, prices = _settings(arguments), _prices(arguments)
        if arguments.plot and not plot.available():
            raise _Unusable("--plot needs matplotlib: pip install 'litellm-session-plugin[plot]'")
    except _Unusable as error:
        print(error, file=sys.stderr)
        return 2
    if getattr(sys.stdout, "reconfigure", None):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    found, unreadable = _find(arguments.files)
    with Progress(sum(_size(path) for path in found)) as progress:
        for line in unreadable:
            progress.say(line)
        reader = _Reader(found, arguments, progress)
        if arguments.show:
            done = _show(arguments.show, reader, settings)
            return 0 if done and not unreadable and not reader.failed else 1
        counts = tokenizer()
        files = []
        for path, conversations in reader.files():
            figures = Figures()
            for conversation in conversations:
                figures.conversations += 1
                for number, step in enumerate(steps(conversation, settings, counts)):
                    figures.add(step, number)
            figures.broken_lines = reader.broken
            if reader.readable:
                files.append((str(path), figures))
    total = Figures()
    for _, figures in files:
        total.merge(figures)
    if files and arguments.json:
        body = {
            "files": [{"file": name, **figures.as_json(prices)} for name, figures in files],
            "total": total.as_json(prices),
            "tokenizer": {"name": counts.name, "exact": counts.exact},
            "prices": asdict(prices),
            "policy": settings.collapse.policy,
        }
        print(json.dumps(body, indent=2))
    elif files:
        names = _briefly([name for name, _ in files])
        rows = [(name, figures) for name, (_, figures) in zip(names, files, strict=True)]
        columns = shutil.get_terminal_size((100, 24)).columns
        print("\n".join(table.lines(rows, total, prices, counts, columns)))
    failed = bool(unreadable) or reader.failed
    if files and arguments.plot:
        failed = not _plot(Path(arguments.plot), files, total, prices) or failed
    return int(failed)


def _settings(arguments: argparse.Namespace) -> Settings:
    """The built-in defaults, or the file's (with the environment over it, as in the proxy), and the policy."""
    try:
        settings = Settings.load(arguments.settings) if arguments.settings else Settings()
        if arguments.policy:
            settings = replace(settings, collapse=replace(settings.collapse, policy=arguments.policy))
    except (SettingsError, ValueError) as error:
        raise _Unusable(str(error)) from None
    return settings


def _prices(arguments: argparse.Namespace) -> Prices:
    try:
        prices = prices_of(arguments.model) if arguments.model else Prices()
    except LookupError:
        raise _Unusable(f"--model {arguments.model}: LiteLLM's cost map has no price for it") from None
    given = {"cached": arguments.price_cached, "write": arguments.price_write}
    return replace(prices, **{name: value for name, value in given.items() if value is not None})


def _find(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files, each once, and a line for each name that leads to none."""
    found: dict[Path, None] = {}
    unreadable = []
    for name in names:
        try:
            found.update(dict.fromkeys(recordings(Path(name))))
        except OSError as error:
            unreadable.append(_cannot_read(name, error))
    return list(found), unreadable


def _cannot_read(name: object, error: OSError) -> str:
    return f"{name}: cannot be read: {error.strerror or error}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Reader:
    """The conversations of all files, with what goes wrong named on the way.

    broken    lines of the current file that could not be used
    readable  whether the current file could be read
    failed    something went wrong in any of them"""

    def __init__(self, paths: Sequence[Path], arguments: argparse.Namespace, progress: Progress) -> None:
        self._paths = paths
        self._arguments = arguments
        self._progress = progress
        self.broken = 0
        self.readable = True
        self.failed = False

    def files(self) -> Iterator[tuple[Path, Iterator[Conversation]]]:
        for path in self._paths:
            self.broken, self.readable = 0, True
            yield path, self._conversations(path)
            if self.broken > _NAMED_LINES:
                self._progress.say(f"{path}: {self.broken - _NAMED_LINES:,} more lines like these")

    def _conversations(self, path: Path) -> Iterator[Conversation]:
        def complain(number: int, what: str) -> None:
            self.failed = True
            self.broken += 1
            if self.broken <= _NAMED_LINES:
                self._progress.say(f"{path}:{number}: {what}")

        options = self._arguments
        recording = Recording(path, complain, self._progress.advance, options.api, options.provider)
        try:
            for number, conversation in enumerate(recording.conversations()):
                if number == options.limit:
                    return
                yield conversation
        except OSError as error:
            self.failed, self.readable = True, False
            self._progress.say(_cannot_read(path, error))


def _show(wanted: str, reader: _Reader, settings: Settings) -> bool:
    """Whether the conversation was there."""
    meanings = show.names(wanted)
    seen: list[str] = []
    for _, conversations in reader.files():
        for conversation in conversations:
            seen.append(conversation.id)
            for name, number in meanings:
                if name == conversation.id:
                    return _print_diff(conversation, number, settings)
    some = f"; there are {', '.join(seen[:5])}{', …' if len(seen) > 5 else ''}" if seen else ""
    print(f"--show {wanted}: no such conversation{some}", file=sys.stderr)
    return False


def _print_diff(conversation: Conversation, number: int | None, settings: Settings) -> bool:
    try:
        for line in show.diff(conversation, number, settings):
            print(show.painted(line) if sys.stdout.isatty() else line)
    except LookupError as error:
        print(f"--show: {error.args[0]}", file=sys.stderr)
        return False
    return True


def _plot(path: Path, files: Sequence[tuple[str, Figures]], total: Figures, prices: Prices) -> bool:
    try:
        plot.draw(path, [(Path(name).stem, figures) for name, figures in files], total, prices)
    except (OSError, ValueError) as error:
        print(f"--plot {path}: cannot be written: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return False
    return True


def _briefly(names: Sequence[str]) -> list[str]:
    """Without the folder that all have in common, and without the usual ending."""
    bare = [name.removesuffix(".jsonl") for name in names]
    return [Path(name).name for name in bare] if len({Path(name).parent for name in names}) == 1 else bare
