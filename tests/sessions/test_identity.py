from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.sessions import identity, keys
from proxy_plugin.sessions.identity import address, find_session, tenant_of

TENANT = tenant_of("key", key_hash="k1")
OTHER = tenant_of("key", key_hash="k2")

# Every place an id may stand in, in the order in which they count.
PLACES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"X-LiteLLM-Session-Id": "id-0"}, {}),
    ({}, {"litellm_session_id": "id-1"}),
    ({}, {"metadata": {"session_id": "id-2"}}),
    ({"x-claude-code-session-id": "id-3"}, {}),
    ({}, {"metadata": {"user_id": json.dumps({"device": "d", "session_id": "id-4"})}}),
    ({"Session-ID": "id-5"}, {}),
    ({"thread-id": "id-6"}, {}),
    ({}, {"client_metadata": {"session_id": "id-7"}}),
    ({"x-session-id": "id-8"}, {}),
    ({"x-acme-session-id": "id-9"}, {}),
    ({}, {"prompt_cache_key": "id-10"}),
]


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_the_first_place_that_holds_an_id_counts(first: int) -> None:
    headers: dict[str, object] = {}
    body: dict[str, object] = {}
    for more_headers, more_body in reversed(PLACES[first:]):
        headers.update(more_headers)
        for key, value in more_body.items():
            body[key] = {**body.get(key, {}), **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
    assert find_session(headers, body, TENANT, "hi").session_id == f"id-{first}"


def test_the_older_form_of_claude_codes_user_id() -> None:
    user = "user_0a1b_account_6f1c-11_session_5e0c7a3e-1111-2222-3333-444455556666"
    found = find_session({}, {"metadata": {"user_id": user}}, TENANT, "hi")
    assert found.session_id == "5e0c7a3e-1111-2222-3333-444455556666"
    assert find_session({}, {"metadata": {"user_id": "user_alice"}}, TENANT, "hi").implicit


@pytest.mark.parametrize("useless", [None, 7, "", "   ", "\n", ["a"], {"a": 1}, True])
def test_what_is_no_id_is_passed_over(useless: object) -> None:
    body = {"litellm_session_id": useless, "metadata": {"session_id": useless, "user_id": useless}}
    found = find_session({"x-litellm-session-id": useless}, {**body, "prompt_cache_key": "k"}, TENANT, "hi")
    assert found.session_id == "k"


@pytest.mark.parametrize("shape", [None, [], "text", 3])
def test_metadata_of_another_shape_is_no_error(shape: object) -> None:
    found = find_session({}, {"metadata": shape, "client_metadata": shape, "user": shape}, TENANT, None)
    assert found.implicit


@pytest.mark.parametrize("plain", ["a", "chat-1", "user:alice@example.com", "A.b_c", "x" * 256, "..."])
def test_a_plain_id_is_shown_as_it_is(plain: str) -> None:
    assert address(TENANT, plain).session_id == plain


@pytest.mark.parametrize("odd", [".", "..", "h_x", "a b", "a\n", "a/b", "{a}", "x" * 257, "ä", "\ud800", "a" * 10_000])
def test_any_other_id_is_shown_as_a_hash_that_addresses_it(odd: str) -> None:
    found = address(TENANT, odd)
    assert re.fullmatch(r"h_[0-9a-f]{32}", found.session_id)
    assert address(TENANT, found.session_id) == found


def test_two_odd_ids_are_two_sessions() -> None:
    assert address(TENANT, "a b") != address(TENANT, "a  b")


def test_without_an_id_the_opening_and_the_end_user_tell() -> None:
    found = find_session({}, {}, TENANT, "hi")
    assert (found.implicit, found.session_id) == (True, "")
    assert find_session({}, {}, TENANT, "hi") == found
    assert find_session({}, {}, TENANT, "hi!").tag != found.tag
    assert find_session({}, {"user": "u1"}, TENANT, "hi").tag != found.tag


def test_a_numbered_id_addresses_the_session_that_was_found_by_its_opening() -> None:
    found = find_session({}, {}, TENANT, "hi").numbered(3)
    named = find_session({"x-session-id": found.session_id}, {}, TENANT, "anything")
    assert not named.implicit
    assert keys.of_session(named) == keys.of_session(found)
    assert named.number == 3
    assert address(TENANT, f"{found.family}.0").family == ""  # no such number: a plain id


def test_tenants() -> None:
    assert tenant_of("key", key_hash="k", user_id="u") == tenant_of("key", key_hash="k")
    assert tenant_of("user", key_hash="k", user_id="u") == tenant_of("user", key_hash="other", user_id="u")
    assert tenant_of("team", key_hash="k") == tenant_of("key", key_hash="k")
    assert tenant_of("org", org_id="x") != tenant_of("team", team_id="x") != tenant_of("user", user_id="x")
    assert tenant_of("key") == tenant_of("team") != tenant_of("key", key_hash="anonymous")
    assert re.fullmatch(r"[0-9a-f]{32}", tenant_of("user", user_id="\ud800{}\n"))


@given(st.text(st.characters()), st.text(), st.sampled_from(range(len(PLACES))))
def test_no_id_breaks_out_of_its_place(hostile: str, opening: str, place: int) -> None:
    headers, body = PLACES[place]
    text = json.dumps([headers, body])
    headers, body = json.loads(
        text, object_hook=lambda d: {k: hostile if v == f"id-{place}" else v for k, v in d.items()}
    )
    found = find_session(headers, body, TENANT, opening)
    elsewhere = find_session(headers, body, OTHER, opening)
    assert found.tag != elsewhere.tag
    for some in (found, elsewhere):
        assert re.fullmatch(r"[0-9a-f]{32}", some.tag)
        assert some.session_id == "" or re.fullmatch(r"[A-Za-z0-9._:@-]{1,256}", some.session_id)
        session = some.numbered(1) if some.implicit else some
        names = [
            *asdict(keys.of_session(session)).values(),
            keys.counter(session),
            keys.first(session, "0" * 32),
        ]
        for name in names:
            assert re.fullmatch(r"pp:1:\{[0-9a-f]{32}\}(:[0-9a-z]+)+", name)


@given(
    st.dictionaries(st.text(), st.text()),
    st.dictionaries(
        st.text(),
        st.recursive(
            st.text() | st.none() | st.integers(),
            lambda c: st.lists(c) | st.dictionaries(st.text(), c),
            max_leaves=5,
        ),
    ),
)
def test_total(headers: dict[str, str], body: dict[str, object]) -> None:
    assert identity.find_session(headers, body, TENANT, None).tenant == TENANT
