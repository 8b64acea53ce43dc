"""The command line of `proxy-plugin sessions`."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
Looks into the session store directly, with the settings and the environment
that the proxy has; the proxy need not run. The plugin's own store is started
for the moment if nobody has."""

_EXAMPLES = """\
examples:
  proxy-plugin sessions list --agent planner
  proxy-plugin sessions show my-session --branch main
  proxy-plugin sessions diff my-session 12                # what came and what was sent
  proxy-plugin sessions export my-session -o my-session.jsonl
  proxy-plugin sessions import my-session.jsonl
  proxy-plugin sessions move --from 3f0c… --to 91ab…      # follow a rotated key

exit codes: 0 done, 1 not found or failed, 2 wrong usage"""


def add_sessions(commands: _Commands) -> None:
    sessions = commands.add_parser(
        "sessions",
        help="list, show, diff, export, import, restore, delete, move and reseal stored sessions",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", default="litellm_config.yaml", help="LiteLLM's config file")
    common.add_argument("--url", help="address of the store (default: as the proxy finds it)")
    common.add_argument("--json", action="store_true", help="the answer as JSON")
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("--tenant", type=_tenant, help="whose session it is, where several have one of this id")
    tasks = sessions.add_subparsers(title="commands", metavar="COMMAND", dest="task", required=True)

    listing = tasks.add_parser("list", parents=[common, one], help="sessions, newest activity first")
    listing.add_argument("--agent", help="only those that this agent works in")
    listing.add_argument("--limit", type=_count, default=50, metavar="N", help="at most so many (default 50)")

    show = tasks.add_parser("show", parents=[common, one], help="one session with its messages")
    show.add_argument("session", metavar="SESSION", help="its id or an alias")
    place = show.add_mutually_exclusive_group()
    place.add_argument("--branch", help="the messages of this branch (default: the current one)")
    place.add_argument("--node", metavar="ID", help="the messages up to this one")

    diff = tasks.add_parser("diff", parents=[common, one], help="what came with a request, and what was sent")
    diff.add_argument("session", metavar="SESSION", help="its id or an alias")
    diff.add_argument("number", metavar="N", nargs="?", type=_count, help="number of the request (default: the newest)")
    diff.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal, without NO_COLOR"
    )

    export = tasks.add_parser("export", parents=[common, one], help="one session as JSON Lines")
    export.add_argument("session", metavar="SESSION")
    export.add_argument("-o", "--output", metavar="FILE", default="-", help="where to (default: standard output)")

    imported = tasks.add_parser("import", parents=[common], help="take an export in")
    imported.add_argument("file", metavar="FILE", help="the export, - for standard input")
    imported.add_argument("--tenant", type=_tenant, help="whose it becomes (default: whose it was)")
    imported.add_argument("--replace", action="store_true", help="put it in the place of a session that is there")

    restore = tasks.add_parser("restore", parents=[common, one], help="go on from a snapshot, on a new branch")
    restore.add_argument("session", metavar="SESSION")
    restore.add_argument("snapshot", metavar="SNAPSHOT", help="its id")
    restore.add_argument("--drop-result", action="store_true", help="without the last answer on top")
    restore.add_argument("--delete", action="store_true", help="forget the snapshot then")

    delete = tasks.add_parser("delete", parents=[common, one], help="delete sessions with everything in them")
    delete.add_argument("sessions", metavar="SESSION", nargs="+")

    move = tasks.add_parser("move", parents=[common], help="give sessions to another tenant, as a rotated key needs")
    move.add_argument("--from", dest="source", type=_tenant, required=True, metavar="TENANT")
    move.add_argument("--to", dest="target", type=_tenant, required=True, metavar="TENANT")
    move.add_argument("sessions", metavar="SESSION", nargs="*", help="which ones (default: all of that tenant's)")

    reseal = tasks.add_parser("reseal", parents=[common], help="bring what is stored under the newest encryption key")
    reseal.add_argument("--tenant", type=_tenant, help="only that tenant's sessions")
    sessions.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from proxy_plugin.shell.run import run

    return run(arguments)


def _tenant(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", text):
        raise argparse.ArgumentTypeError("a tenant is named by 32 hexadecimal digits, as `sessions list` shows it")
    return text


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number
