"""Search over the texts of a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy_plugin.sessions import keys, search
from proxy_plugin.sessions.search import Found, Needle
from tests.sessions.conftest import Scenario, World
from tests.sessions.paths import OTHER_TENANT, session
from tests.sessions.spoken import assistant, calling, result, talk, user

Play = Callable[[Scenario], None]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("zürich", "nach ZÜRICH bitte"),
        ("STRASSE", "die Hauptstraße"),
        ("москва", "МОСКВА"),
        ("東京", "京都から東京まで"),
        ("مرحبا", "قال مرحبا"),
        ("caf\u00e9", "Cafe\u0301"),
        ("cafe\u0301", "CAF\u00c9"),
        ("ΣΊΣΥΦΟΣ", "Σίσυφος"),
    ],
)
def test_letters_of_any_script_are_found_in_any_case(query: str, text: str) -> None:
    assert Needle(query).find(text) is not None
    assert Needle(query).find("something else") is None


def test_a_snippet_shows_the_place_also_where_folding_makes_the_text_longer() -> None:
    snippet = Needle("needle").find("ß" * 500 + " a NEEDLE here " + "x" * 500)
    assert snippet is not None and " a NEEDLE here " in snippet
    assert snippet.startswith("…") and snippet.endswith("…") and len(snippet) < 200
    assert Needle("b c").find("a\n b c\n\n d") == "a b c d"
    assert Needle("SS").find("ß") == "ß"


def test_all_branches_are_searched_newest_first(play: Play) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        first = [user("apples?"), calling("c1", "weigh", '{"what": "\\u00c4pfel"}'), result("c1", "3 kg of fruit")]
        await talk(worker, [*first, assistant("Three kilos of apples.")])
        await talk(worker, [*first, assistant("Three kilos of apples."), user("and pears?"), assistant("none")])
        await talk(worker, [*first, assistant("Apples: three kilos.")])
        await talk(worker, [user("apples")], session("s-1", OTHER_TENANT))

        async def find(query: str, **page: int) -> Found:
            return await worker.searches.search(session(), query, **page)

        found = await find("apples")
        assert [(hit.role, hit.branch) for hit in found.hits] == [
            ("assistant", "branch-2"),
            ("assistant", "main"),
            ("user", "main"),
        ]
        assert found.total == 3 and found.complete
        assert (await find("apples", limit=1, offset=1)).hits == found.hits[1:2]
        assert [hit.snippet for hit in (await find("äpfel")).hits] == ['weigh {"what":"Äpfel"}']
        assert [hit.role for hit in (await find("KG of")).hits] == ["tool"]
        assert (await find("plums")).total == 0

        await world.redis("HSET", keys.of_session(session()).bodies, found.hits[0].node, "damaged")
        assert (await find("apples")).hits == found.hits[1:]

    play(scenario)


def test_a_search_reads_no_longer_than_its_time(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        worker = world.worker()
        await talk(worker, [user("apples"), assistant("yes")])
        monkeypatch.setattr(search, "SECONDS", -1.0)
        found = await worker.searches.search(session(), "apples")
        assert not found.complete and found.hits == ()

    play(scenario)
