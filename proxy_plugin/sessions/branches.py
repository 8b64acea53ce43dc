"""Branches by the user's hand: names for the ends of paths. No message is ever added or removed by it."""

from __future__ import annotations

from dataclasses import dataclass

from proxy_plugin.sessions import tree
from proxy_plugin.sessions.edits import Contended, Edits, Refused
from proxy_plugin.sessions.identity import Address
from proxy_plugin.sessions.keys import of_session
from proxy_plugin.sessions.reader import SessionReader
from proxy_plugin.sessions.tree import Branch

MAX_TRIES = 8


@dataclass(frozen=True, slots=True)
class Switched:
    branch: Branch
    message_count: int


class BranchStore:
    """Raises redis-py's errors. Names are taken as they are: whoever asks has checked them."""

    def __init__(self, reader: SessionReader, edits: Edits) -> None:
        self._reader = reader
        self._edits = edits

    async def create(self, address: Address, name: str, node: str | None = None) -> Branch | Refused:
        """A branch that ends at the node (an id or its beginning), or at the current head. It is not current yet."""
        if node is None:
            session = await self._reader.session(address)
            at = session.head if session else None
        else:
            at = await self._reader.resolve(of_session(address), node)
        if at is None:
            return Refused.NO_SESSION if node is None else Refused.NO_NODE
        reply = await self._edits.run("branch_create", address, {"name": name, "node": at or tree.NO_ID})
        match reply[0]:
            case b"gone":
                return Refused.NO_SESSION
            case b"taken":
                return Refused.NAME_TAKEN
        return tree.decode_branch(name, reply[1])

    async def switch(self, address: Address, name: str) -> Switched | Refused:
        """Makes it the current branch: the one that is read by default. Reads the heads of its path."""
        for _ in range(MAX_TRIES):
            branch = await self._reader.branch(address, name)
            if branch is None:
                return Refused.NO_BRANCH
            path = await self._reader.path(address, branch.head)
            said = {
                "name": name,
                "head": branch.head,
                "record_head": branch.head or tree.NO_ID,
                "messages": str(path.message_count),
                "bytes": str(path.size_bytes),
            }
            reply = await self._edits.run("branch_switch", address, said)
            if reply[0] == b"gone":
                return Refused.NO_SESSION
            if reply[0] == b"ok":
                return Switched(branch, path.message_count)
        raise Contended

    async def rename(self, address: Address, name: str, new: str) -> Branch | Refused:
        branch = await self._reader.branch(address, name)
        if branch is None:
            return Refused.NO_BRANCH
        said = {"name": name, "new": new, "created": f"{branch.created_ms:012x}"}
        reply = await self._edits.run("branch_rename", address, said)
        match reply[0]:
            case b"gone":
                return Refused.NO_SESSION
            case b"none":
                return Refused.NO_BRANCH
            case b"taken":
                return Refused.NAME_TAKEN
        return tree.decode_branch(new, reply[1])

    async def delete(self, address: Address, name: str) -> Branch | Refused:
        """Takes the name away; the messages stay readable by their ids. Returns what it was."""
        branch = await self._reader.branch(address, name)
        if branch is None:
            return Refused.NO_BRANCH
        reply = await self._edits.run("branch_delete", address, {"name": name})
        match reply[0]:
            case b"gone":
                return Refused.NO_SESSION
            case b"current":
                return Refused.BRANCH_CURRENT
        return branch
