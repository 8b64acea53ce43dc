"""What each command does: one function a command, which returns the exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from proxy_plugin.admin.histories import content_of, wire_history
from proxy_plugin.admin.requests import shown_account, told
from proxy_plugin.admin.sessions import summary
from proxy_plugin.sessions import identity
from proxy_plugin.sessions.edits import Refused
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.lines import LineError
from proxy_plugin.sessions.resealing import Resealed
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.transfer import AliasTaken, SessionExists, SessionGone
from proxy_plugin.sessions.tree import SessionInfo
from proxy_plugin.settings import ENCRYPTION_KEYS
from proxy_plugin.shell import show

_PIECE = 1_000_000
_PAGE = 500
_MOVES = 3


class Failure(Exception):
    """What could not be done, in one line."""


@dataclass(frozen=True, slots=True)
class Shell:
    """What a command works with."""

    store: SessionStore
    stdin: BinaryIO
    stdout: BinaryIO

    def say(self, text: str) -> None:
        self.stdout.write(text.encode("utf-8", "replace") + b"\n")
        self.stdout.flush()

    def say_json(self, value: Any) -> None:
        self.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n")
        self.stdout.flush()

    async def session(self, name: str, tenant: str | None) -> SessionInfo:
        """The session of this id or alias. Raises Failure."""
        store = self.store
        if tenant:
            place = identity.address(tenant, name)
            found = [await store.reader.session(place) or await store.profiles.find(tenant, name)]
        else:
            found = [*await store.index.owners(name)]
            if not found:
                found = [*await store.profiles.owners(await store.index.tenants(), name)]
        known = [info for info in found if info is not None]
        if not known:
            raise Failure(f"no such session: {show.plain(name)}")
        if len(known) > 1:
            tenants = " ".join(info.tenant for info in known)
            raise Failure(f"several tenants have a session {show.plain(name)}: add --tenant, one of {tenants}")
        whole = await store.reader.session(address_of(known[0]))
        if whole is None:
            raise Failure(f"no such session: {show.plain(name)}")
        return whole


def address_of(info: SessionInfo) -> Address:
    return identity.address(info.tenant, info.session_id)


async def list_sessions(shell: Shell, arguments: argparse.Namespace) -> int:
    found: list[SessionInfo] = []
    cursor: str | None = None
    total: int | None = 0
    while len(found) < arguments.limit:
        page = await shell.store.index.sessions(
            arguments.tenant, limit=min(_PAGE, arguments.limit - len(found)), cursor=cursor, agent=arguments.agent
        )
        found += page.sessions
        cursor, total = page.cursor, page.total
        if cursor is None:
            break
    if arguments.json:
        shell.say_json({"sessions": [summary(info) for info in found], "total": total})
    else:
        for line in show.table(found):
            shell.say(line)
    return 0


async def show_session(shell: Shell, arguments: argparse.Namespace) -> int:
    info = await shell.session(arguments.session, arguments.tenant)
    history = await shell.store.reader.history(address_of(info), branch=arguments.branch, node=arguments.node)
    if history is None:
        raise Failure("the session has no such branch or node")
    if arguments.json:
        wire = wire_history(history)
        content = content_of(history.lead, history.nodes)
        held = {"format": wire.api, "content": content, "system": wire.system, "messages": wire.messages}
        shell.say_json({**summary(info), **held, "missing_nodes": list(history.missing)})
    else:
        for line in show.conversation(info, history):
            shell.say(line)
    return 0


async def diff(shell: Shell, arguments: argparse.Namespace) -> int:
    info = await shell.session(arguments.session, arguments.tenant)
    place, requests = address_of(info), shell.store.requests
    number = arguments.number or await requests.newest(place)
    record = await requests.record(place, number)
    if record is None:
        raise Failure("the session has no such request, or no longer")
    account = await requests.rebuild(place, record)
    if account is None:
        raise Failure("what the request was made of is gone or damaged")
    if arguments.json:
        shell.say_json(shown_account(number, record, account))
        return 0
    wanted = shell.stdout.isatty() and not os.environ.get("NO_COLOR")
    colours = wanted if arguments.color == "auto" else arguments.color == "always"
    for line in told(number, record, account):
        shell.say(show.difference(line, colours))
    return 0


async def export(shell: Shell, arguments: argparse.Namespace) -> int:
    info = await shell.session(arguments.session, arguments.tenant)
    pieces = await shell.store.transfer.export(address_of(info))
    if pieces is None:
        raise Failure("no such session")
    try:
        if arguments.output == "-":
            async for piece in pieces:
                shell.stdout.write(piece)
            shell.stdout.flush()
        else:
            await _write_file(Path(arguments.output), pieces)
    except SessionGone as error:
        raise Failure(str(error)) from None
    return 0


async def _write_file(path: Path, pieces: AsyncIterator[bytes]) -> None:
    """The whole file or none."""
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            async for piece in pieces:
                file.write(piece)
        draft.replace(path)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)


async def import_session(shell: Shell, arguments: argparse.Namespace) -> int:
    try:
        file = shell.stdin if arguments.file == "-" else Path(arguments.file).open("rb")  # noqa: SIM115
    except OSError as error:
        raise Failure(f"{arguments.file}: {error.strerror or error}") from None
    with file:
        first = file.readline()
        tenant = arguments.tenant or _tenant_in(first)
        try:
            done = await shell.store.transfer.read_in(tenant, _pieces(first, file), replace=arguments.replace)
        except LineError as error:
            raise Failure(f"{arguments.file}: {error}; nothing is imported") from None
        except SessionExists as error:
            raise Failure(f"session {error} is there already: add --replace") from None
        except (AliasTaken, SessionGone) as error:
            raise Failure(str(error)) from None
    answer = {"session_id": done.address.session_id, "tenant": tenant, "nodes": done.nodes}
    if arguments.json:
        shell.say_json(answer)
    else:
        shell.say(f"imported {done.address.session_id}: {done.nodes} messages, {done.entries['branches']} branches")
    return 0


def _tenant_in(header: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        tenant = orjson.loads(header)["session"]["tenant"]
        if identity.is_tenant(tenant):
            return str(tenant)
    raise Failure("line 1: names no tenant: is it an export? (--tenant says whose it becomes)")


async def _pieces(first: bytes, file: BinaryIO) -> AsyncIterator[bytes]:
    yield first
    while piece := file.read(_PIECE):
        yield piece


async def restore(shell: Shell, arguments: argparse.Namespace) -> int:
    info = await shell.session(arguments.session, arguments.tenant)
    restored = await shell.store.snapshots.restore(
        address_of(info),
        arguments.snapshot,
        preserve_last_result=not arguments.drop_result,
        delete=arguments.delete,
    )
    if isinstance(restored, Refused):
        raise Failure(restored.value)
    if arguments.json:
        answer = {"session_id": info.session_id, "snapshot_id": restored.snapshot_id, "branch": restored.branch}
        shell.say_json({**answer, "head": restored.head or None, "message_count": restored.message_count})
    else:
        shell.say(f"restored: branch {restored.branch}, {restored.message_count} messages")
    return 0


async def delete(shell: Shell, arguments: argparse.Namespace) -> int:
    """Goes on behind one that is not there."""
    failed, gone = 0, []
    for name in arguments.sessions:
        try:
            info = await shell.session(name, arguments.tenant)
            await shell.store.delete(address_of(info))
        except Failure as error:
            failed = 1
            _complain(str(error))
        else:
            gone.append(info.session_id)
            if not arguments.json:
                shell.say(f"deleted {info.session_id}")
    if arguments.json:
        shell.say_json({"deleted": gone})
    return failed


async def move(shell: Shell, arguments: argparse.Namespace) -> int:
    """Goes on behind one that cannot be moved."""
    names = arguments.sessions or [info.session_id async for info in _all_of(shell.store, arguments.source)]
    failed, moved = 0, []
    for name in names:
        try:
            moved.append(await _move(shell, name, arguments.source, arguments.target))
        except Failure as error:
            failed = 1
            _complain(str(error))
        else:
            if not arguments.json:
                shell.say(f"moved {moved[-1]}")
    if arguments.json:
        shell.say_json({"moved": moved})
    return failed


async def _all_of(store: SessionStore, tenant: str) -> AsyncIterator[SessionInfo]:
    found: list[SessionInfo] = []
    cursor: str | None = None
    while True:
        page = await store.index.sessions(tenant, limit=_PAGE, cursor=cursor)
        found += page.sessions
        cursor = page.cursor
        if cursor is None:
            break
    for info in found:  # only now: moving them changes the listing
        yield info


async def _move(shell: Shell, name: str, source: str, target: str) -> str:
    """Copies the session and deletes the original, if that did not change meanwhile."""
    if source == target:
        raise Failure("the sessions are that tenant's already")
    store, info = shell.store, await shell.session(name, source)
    for attempt in range(_MOVES):
        pieces = await store.transfer.export(address_of(info))
        if pieces is None:
            raise Failure(f"no such session: {show.plain(name)}")
        try:
            await store.transfer.read_in(target, pieces, replace=attempt > 0)
        except SessionExists:
            raise Failure(f"{info.session_id}: that tenant has a session of this id") from None
        except (LineError, AliasTaken, SessionGone) as error:
            raise Failure(f"{info.session_id}: {error}") from None
        after = await store.reader.session(address_of(info))
        if after is None or after == info:
            await store.delete(address_of(info))
            return info.session_id
        info = after
    raise Failure(f"{info.session_id}: changes faster than it can be moved; the copy stays")


async def reseal(shell: Shell, arguments: argparse.Namespace) -> int:
    """Fails where something is left under a key that is not here."""
    store, keyring = shell.store, shell.store.keyring
    if keyring is None:
        raise Failure(f"{ENCRYPTION_KEYS} is not set")
    done, sessions, cursor = Resealed(), 0, None
    while True:
        page = await store.index.sessions(arguments.tenant, limit=_PAGE, cursor=cursor)
        for info in page.sessions:
            done += await store.resealing.session(address_of(info))
        sessions, cursor = sessions + len(page.sessions), page.cursor
        if cursor is None:
            break
    if arguments.json:
        shell.say_json({"sessions": sessions, "values": done.values, "locked": done.locked, "key": keyring.ids[0]})
    else:
        shell.say(f"{done.values} values of {sessions} sessions came under the key {keyring.ids[0]}")
    if done.locked:
        _complain(f"{done.locked} values are under keys that {ENCRYPTION_KEYS} does not hold")
    return int(done.locked > 0)


def _complain(message: str) -> None:
    print(f"proxy-plugin sessions: {message}", file=sys.stderr)


COMMANDS: Mapping[str, Callable[[Shell, argparse.Namespace], Awaitable[int]]] = {
    "list": list_sessions,
    "show": show_session,
    "diff": diff,
    "export": export,
    "import": import_session,
    "restore": restore,
    "delete": delete,
    "move": move,
    "reseal": reseal,
}
