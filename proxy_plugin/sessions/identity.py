"""Whose conversation a request belongs to, from what the client sent. Pure.

A client names its session by a header or a body field; one that names nothing is found by how its
conversation opens. Whatever it sends, only hashes of it, bound to the tenant, become part of a key, so
that no id reaches another tenant's data or breaks out of its place.

Three forms of session id are shown and addressed:

    my-chat_1           a plain id (`[A-Za-z0-9._:@-]{1,256}`), as the client sent it
    h_<32 hex>          any other id a client sent, by its hash
    <32 hex>.<n>        the n-th conversation that opened with the text of this hash; the store picks n
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

ANONYMOUS = "anonymous"

_PLAIN = re.compile(r"(?!h_|\.{1,2}\Z)[A-Za-z0-9._:@-]{1,256}\Z")
_HASHED = re.compile(r"h_[0-9a-f]{32}\Z")
_NUMBERED = re.compile(r"([0-9a-f]{32})\.([1-9][0-9]{0,8})\Z")
_TENANT = re.compile(r"[0-9a-f]{32}\Z")
_VENDOR_HEADER = re.compile(r"x-[a-z0-9-]+-session-id\Z")
_CLAUDE_CODE_USER = re.compile(r"user_[0-9A-Za-z]+_account_[0-9A-Za-z-]*_session_([0-9A-Za-z-]+)\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a session lives. `tenant`, `tag` and `family` are 32 hexadecimal characters.

    tag      content of the hash tag that all keys of the session share
    family   the opening's hash for `<family>.<n>` sessions, else ""
    implicit found by the opening; `session_id` is "" until the store has chosen n
    """

    tenant: str
    session_id: str
    tag: str
    implicit: bool = False
    family: str = ""

    def numbered(self, n: int) -> Address:
        """The n-th session of this family."""
        return Address(self.tenant, f"{self.family}.{n}", self.tag, self.implicit, self.family)

    @property
    def number(self) -> int:
        """The n of a `<family>.<n>` session, 0 where it is not chosen or the id has another form."""
        return int(self.session_id.rpartition(".")[2]) if self.family and self.session_id else 0


def tenant_of(
    kind: str,
    *,
    key_hash: str | None = None,
    user_id: str | None = None,
    team_id: str | None = None,
    org_id: str | None = None,
) -> str:
    """The tenant's hash. `kind`: key | user | team | org; where that one is missing the narrowest that is there
    stands in for it. Only callers of whom nothing at all is known are the one anonymous tenant: LiteLLM accepts
    some (JWT, OAuth) without a key of its own, and they are not all the same."""
    known = {"key": key_hash, "user": user_id, "team": team_id, "org": org_id}
    for name in (kind, *known):
        if chosen := known.get(name):
            return _hash("tenant", name, chosen)
    return _hash("tenant", ANONYMOUS)


def is_tenant(text: object) -> bool:
    """Whether it has the form of a tenant's hash."""
    return isinstance(text, str) and _TENANT.match(text) is not None


def address(tenant: str, session_id: str) -> Address:
    """The session a route or an index names; an id that is not shown anywhere is taken as a client's."""
    if numbered := _NUMBERED.match(session_id):
        family = numbered.group(1)
        return Address(tenant, session_id, _family_tag(tenant, family), family=family)
    if not _PLAIN.match(session_id) and not _HASHED.match(session_id):
        session_id = "h_" + _hash("id", session_id)
    return Address(tenant, session_id, _hash("session", tenant, session_id))


def find_session(headers: Mapping[str, Any], body: Mapping[str, Any], tenant: str, opening: str | None) -> Address:
    """The first id that is there, else the family of `opening` (the meaning of the first user message, as
    text) and the body's end-user id. Never raises; an id that is no string or is blank is ignored."""
    for candidate in _candidates({str(k).lower(): v for k, v in headers.items()}, body):
        if isinstance(candidate, str) and candidate.strip():
            return address(tenant, candidate)
    user = body.get("user")
    family = _hash("opening", opening or "", user if isinstance(user, str) else "")
    return Address(tenant, "", _family_tag(tenant, family), implicit=True, family=family)


def kept_under(tenant: str, kind: str, given: str) -> str:
    """What a tenant's path is found by where the client names it by an id of the provider's. `kind`:
    "response" | "conversation". 32 hexadecimal characters, others for each tenant."""
    return _hash("kept", tenant, kind, given)


def _candidates(headers: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[Any]:
    metadata = _mapping(body.get("metadata"))
    yield headers.get("x-litellm-session-id")
    yield body.get("litellm_session_id")
    yield metadata.get("session_id")
    yield headers.get("x-claude-code-session-id")
    yield _claude_code_session(metadata.get("user_id"))
    yield headers.get("session-id")
    yield headers.get("thread-id")
    yield _mapping(body.get("client_metadata")).get("session_id")
    yield headers.get("x-session-id")
    for name in sorted(filter(_VENDOR_HEADER.match, headers)):
        yield headers[name]
    yield body.get("prompt_cache_key")


def _claude_code_session(user_id: Any) -> Any:
    """Claude Code packs its session into `metadata.user_id`: JSON now, underscored parts before."""
    if not isinstance(user_id, str):
        return None
    if user_id.lstrip().startswith("{"):
        try:
            return _mapping(json.loads(user_id)).get("session_id")
        except (ValueError, RecursionError):
            return None
    older = _CLAUDE_CODE_USER.match(user_id)
    return older.group(1) if older else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _family_tag(tenant: str, family: str) -> str:
    return _hash("family", tenant, family)


def _hash(*parts: str) -> str:
    """128 bits of SHA-256 over the parts, each with its length so that no two lists of parts look alike;
    lone surrogates are hashed as they are."""
    digest = sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()[:32]
