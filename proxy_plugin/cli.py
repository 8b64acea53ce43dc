"""The command `proxy-plugin`: one function a subcommand.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "litellm-session-plugin"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and gives the exit code. Raises SystemExit for wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="proxy-plugin", description="Sessions for agents behind a LiteLLM proxy.")
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="a real proxy with the plugin and a fake provider, end to end on this machine",
        description="Starts a fake provider and a real LiteLLM proxy with the plugin, plays an agent's plan "
        "without the plugin and with it, shows what happened, and ends. Needs no key, network or Redis.",
    )
    demo.add_argument("--keep", action="store_true", help="leave it all running until Ctrl-C, for a client of yours")
    demo.set_defaults(run=_demo)
    return parser


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"


def _demo(arguments: argparse.Namespace) -> int:
    from proxy_plugin.demo.play import run

    return run(sys.stdout, sys.stderr, keep=arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
