"""The command `proxy-plugin`: one function a subcommand.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from proxy_plugin.settings import Collapse
from proxy_plugin.shell.arguments import add_sessions
from proxy_plugin.version import DISTRIBUTION, VERSION

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_REPLAY = """\
Replays recorded conversations, request by request, and shows what the plugin
would make of them: tokens, their cost under prompt caching, requests that the
provider would have refused, and whether values that the agent uses later are
still there. Nothing is sent anywhere.

A recording is JSON Lines; the form of each line is found out:
  conversations   {"messages": [...]}, {"input": [...]} or [...], in chat,
                  messages or responses form
  LiteLLM's logs  a StandardLoggingPayload for each request
  Claude Code     ~/.claude/projects/**/*.jsonl
  Codex           ~/.codex/sessions/**/rollout-*.jsonl"""

_REPLAY_EXAMPLES = """\
examples:
  proxy-plugin replay ~/.claude/projects/
  proxy-plugin replay chats.jsonl --provider anthropic --price-write 1.25
  proxy-plugin replay litellm-log.jsonl --model gpt-4o --plot costs.png
  proxy-plugin replay chats.jsonl --show my-session:12

exit codes: 0 done, 1 something could not be read (it is named, the rest is
done), 2 wrong usage"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and gives the exit code. Raises SystemExit for wrong usage."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """Of the whole command line; `run` of what it parses is the subcommand's function."""
    whole = argparse.ArgumentParser(prog="proxy-plugin", description="Sessions for agents behind a LiteLLM proxy.")
    whole.add_argument("--version", action="version", version=f"{DISTRIBUTION} {VERSION}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _add_demo(commands)
    _add_replay(commands)
    _add_doctor(commands)
    add_sessions(commands)
    return whole


def _add_demo(commands: _Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="a real proxy with the plugin and a fake provider, end to end on this machine",
        description="Starts a fake provider and a real LiteLLM proxy with the plugin, plays an agent's plan "
        "without the plugin and with it, shows what happened, and ends. Needs no key, network or Redis.",
    )
    demo.add_argument("--keep", action="store_true", help="leave it all running until Ctrl-C, for a client of yours")
    demo.set_defaults(run=_demo)


def _add_replay(commands: _Commands) -> None:
    replay = commands.add_parser(
        "replay",
        help="what the plugin would do to conversations that you have recorded",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_REPLAY,
        epilog=_REPLAY_EXAMPLES,
    )
    replay.add_argument("files", nargs="+", metavar="FILE", help="a recording, or a folder to look through")
    replay.add_argument("--policy", choices=Collapse.CHOICES["policy"], help="which finished subtasks collapse")
    replay.add_argument("--settings", metavar="FILE", help="the plugin's settings (default: the built-in ones)")
    replay.add_argument("--provider", help="where it goes, as LiteLLM names it (default: what the recording says)")
    replay.add_argument("--api", choices=("chat", "messages", "responses"), help="its wire form (default: found out)")
    replay.add_argument("--limit", type=_count, metavar="N", help="only the first N conversations of each file")
    replay.add_argument("--json", action="store_true", help="all figures as JSON")
    replay.add_argument("--plot", metavar="OUT.png", help="draw tokens per request and costs (needs the extra [plot])")
    replay.add_argument("--show", metavar="ID[:N]", help="only print what changes in request N (default: the last)")
    prices = replay.add_argument_group("prices of a prompt's tokens, where the full input price is 1")
    prices.add_argument("--price-cached", type=_price, metavar="X", help="read from the provider's cache (default 0.1)")
    prices.add_argument("--price-write", type=_price, metavar="X", help="any other (default 1.0; Anthropic: 1.25)")
    prices.add_argument("--model", metavar="NAME", help="take the prices of this model from LiteLLM's cost map")
    replay.set_defaults(run=_replay)


def _add_doctor(commands: _Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="checks a LiteLLM config, the plugin's settings, the store and versions, and says what to fix",
        description="Looks at everything that the plugin needs, as it would find it here and now: the environment "
        "counts, so run it where and as the proxy runs. An embedded store is started for the moment of the check. "
        "Exit codes: 0 nothing must be fixed, 1 something must.",
    )
    doctor.add_argument("config", nargs="?", metavar="CONFIG", help="LiteLLM's config (default: litellm_config.yaml)")
    doctor.add_argument("--workers", type=_count, default=1, metavar="N", help="worker processes of the proxy")
    doctor.add_argument("--json", action="store_true", help="the findings as JSON")
    doctor.set_defaults(run=_doctor)


def _demo(arguments: argparse.Namespace) -> int:
    from proxy_plugin.demo.play import run

    return run(sys.stdout, sys.stderr, keep=arguments.keep)


def _replay(arguments: argparse.Namespace) -> int:
    from proxy_plugin.replay.command import run

    return run(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from proxy_plugin.doctor.run import run

    config = Path(arguments.config or "litellm_config.yaml")
    return run(config, sys.stdout, workers=arguments.workers, json=arguments.json)


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _price(text: str) -> float:
    if not 0 <= (number := float(text)) < inf:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
