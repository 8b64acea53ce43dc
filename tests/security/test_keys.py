"""Guessing and injecting: whatever a client calls its session, only hashes bound to its tenant become keys."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.identity import Address, address, find_session, is_tenant, kept_under, tenant_of

KEY = re.compile(r"pp:1:\{[0-9a-f]{32}\}:(?:s|[1-9][0-9]*):[a-z]+\Z")
NASTY = (
    "{}", "}{", "a}:s:meta", "x\ny", "x\r\nSET k v", "a:b", "..", "../..", "*", "?", "[a-z]", "pp:1:tenants",
    "\0", "\u202e", "a" * 10_000, "ünï", "\ud800", "h_" + "0" * 32, "0" * 32 + ".1", "%7b%7d", "'; redis.call('X')",
)  # fmt: skip
names = st.one_of(st.sampled_from(NASTY), st.text(max_size=40), st.text("ab:{}._h\n", max_size=12))
filled = names.filter(lambda text: bool(text.strip()))
tenants = st.builds(tenant_of, st.just("key"), key_hash=filled)


def keys_of(place: Address) -> set[str]:
    return set(asdict(keys.of_session(place)).values())


def canonical(session_id: str) -> str:
    """What the session is shown and addressed as."""
    return address("", session_id).session_id


@given(tenants, filled)
def test_a_key_holds_no_text_of_anybody(tenant: str, session_id: str) -> None:
    place = address(tenant, session_id)
    assert all(KEY.match(key) for key in keys_of(place)), keys_of(place)
    assert len({key[: key.index("}")] for key in keys_of(place)}) == 1  # one slot of a cluster
    assert re.fullmatch(r"[A-Za-z0-9._:@-]{1,256}", place.session_id) and place.session_id not in (".", "..")
    assert address(tenant, place.session_id) == place


@given(tenants, tenants, filled, filled)
def test_no_two_sessions_share_a_key(one: str, other: str, first: str, second: str) -> None:
    same = one == other and canonical(first) == canonical(second)
    here, there = address(one, first), address(other, second)
    assert keys_of(here).isdisjoint(keys_of(there)) != same
    if one != other:  # and no tag: what the sessions of a family share is no other tenant's either
        assert here.tag != there.tag
        assert keys.index(one) != keys.index(other) and keys.aliases(one) != keys.aliases(other)


@given(st.lists(filled, min_size=2, max_size=2), st.integers(0, 200), st.sampled_from(("", ":", "\n", "}{")))
def test_parts_that_read_alike_together_stay_apart(parts: list[str], cut: int, joint: str) -> None:
    """("a:b", "c") and ("a", "b:c") are two."""
    joined = joint.join(parts)
    again = [joined[: cut % len(joined)], joined[cut % len(joined) :]]
    if again != parts:
        assert identity._hash("x", *parts) != identity._hash("x", *again)
    assert identity._hash("x", joined) != identity._hash("x", *parts)


@given(st.sampled_from(("key", "user", "team", "org")), filled, filled)
def test_a_user_is_never_the_tenant_that_a_key_or_a_team_of_that_name_is(kind: str, name: str, other: str) -> None:
    found = [
        tenant_of("key", key_hash=name), tenant_of("user", user_id=name),
        tenant_of("team", team_id=name), tenant_of("org", org_id=name), tenant_of("key"),
    ]  # fmt: skip
    assert len(set(found)) == len(found) and all(map(is_tenant, found))
    if name != other:
        ids: dict[str, Any] = {"key_hash": "k", "user_id": "u", "team_id": "t", "org_id": "o"}
        field = "key_hash" if kind == "key" else f"{kind}_id"
        assert tenant_of(kind, **{**ids, field: name}) != tenant_of(kind, **{**ids, field: other})


def test_callers_without_a_key_are_told_apart_by_what_else_is_known_of_them() -> None:
    for kind in ("key", "user", "team", "org"):
        alice, bob = (tenant_of(kind, user_id=user, team_id="shared") for user in ("alice", "bob"))
        assert (alice != bob) == (kind != "team") and alice != tenant_of(kind)
    assert tenant_of("key", team_id="a") != tenant_of("key", team_id="b")
    assert tenant_of("key", user_id="alice", team_id="a") == tenant_of("user", key_hash="k", user_id="alice")


@given(tenants, tenants, filled, filled)
def test_an_opening_or_an_id_of_the_providers_leads_nowhere_else(one: str, other: str, text: str, given_: str) -> None:
    here, there = (find_session({}, {}, tenant, text) for tenant in (one, other))
    assert here.implicit and (here.tag == there.tag) == (one == other)
    assert (kept_under(one, "response", given_) == kept_under(other, "response", given_)) == (one == other)
    assert kept_under(one, "response", given_) != kept_under(one, "conversation", given_)
    assert re.fullmatch(r"pp:1:\{[0-9a-f]{32}\}:kept", keys.kept(kept_under(one, "response", given_)))
    assert find_session({}, {"user": given_}, one, text).tag != here.tag


@given(tenants, filled)
def test_nobody_reaches_a_conversation_without_an_id_by_calling_his_own_so(tenant: str, text: str) -> None:
    """Its id is good for the tenant whose it is, and only for that one."""
    family = find_session({}, {}, tenant, text)
    shown = family.numbered(1).session_id
    assert keys_of(address(tenant, shown)) == keys_of(family.numbered(1))
    stranger = tenant_of("key", key_hash=tenant)
    assert keys_of(address(stranger, shown)).isdisjoint(keys_of(family.numbered(1)))


@pytest.mark.parametrize("nasty", NASTY)
def test_a_nasty_id_is_one_session_wherever_it_stands(nasty: str) -> None:
    tenant = tenant_of("key", key_hash="k")
    by_header = find_session({"x-litellm-session-id": nasty}, {}, tenant, None)
    by_body = find_session({}, {"metadata": {"session_id": nasty}}, tenant, None)
    assert by_header == by_body == address(tenant, nasty)
    assert not re.search(r"[\s{}*?\[\]\\\x00-\x1f]", by_header.session_id)


@given(filled)
def test_the_field_of_a_subtask_is_a_hash(subtask: str) -> None:
    assert re.fullmatch(r"x-[0-9a-f]{32}", keys.subtask_field(subtask))
