"""Opens the store for one command, and turns what goes wrong into one line."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from proxy_plugin.sessions.connection import Connection, is_transient
from proxy_plugin.sessions.embedded import EmbeddedError
from proxy_plugin.sessions.outage import kind_of
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.settings import Settings, SettingsError
from proxy_plugin.shell.commands import COMMANDS, Failure, Shell

ANSWER_SECONDS = 15.0


def run(arguments: argparse.Namespace, environ: Mapping[str, str] | None = None) -> int:
    """Returns 0, or 1 where something was not found or failed."""
    env = os.environ if environ is None else environ
    try:
        return asyncio.run(_run(arguments, env, sys.stdin.buffer, sys.stdout.buffer))
    except (Failure, SettingsError, EmbeddedError) as error:
        message = str(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        if not (is_transient(error) or kind_of(error) != "internal"):
            raise
        message = f"the session store does not answer ({kind_of(error)}, {type(error).__name__})"
    print(f"proxy-plugin sessions: {message}", file=sys.stderr)
    return 1


async def _run(arguments: argparse.Namespace, env: Mapping[str, str], stdin: BinaryIO, stdout: BinaryIO) -> int:
    settings = Settings.load(beside=Path(arguments.config).resolve().parent, environ=env)
    if arguments.url:
        settings = replace(settings, store=replace(settings.store, url=arguments.url))
    connection = Connection.open(settings, env)
    if connection is None:
        raise Failure("no session store is configured")
    store = SessionStore(connection, settings)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await store.ping()
        return await COMMANDS[arguments.task](Shell(store, stdin, stdout), arguments)
    finally:
        await store.close()
        await connection.close()
