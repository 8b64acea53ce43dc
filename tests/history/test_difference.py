"""The difference of two lists: it makes the one of the other, and lists that repeat themselves are no more work."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.history.difference import difference

short = st.lists(st.sampled_from("abcde"), max_size=9)


def marked(before: list[Any], after: list[Any], mark: str) -> Counter[str]:
    return Counter(line.text.strip('"') for line in difference(before, after) if line.mark == mark)


@given(short, short)
def test_what_is_taken_out_and_put_in_makes_the_one_of_the_other(before: list[str], after: list[str]) -> None:
    gone, come = marked(before, after, "-"), marked(before, after, "+")
    assert Counter(before) - gone + come == Counter(after) and not gone - Counter(before)
    assert bool(gone or come) == (before != after)


def test_what_stays_is_no_change_where_the_same_stands_in_front_of_it_too() -> None:
    before, after = ["ask", "found", "ask", "found", "ask", "found", "done"], ["summary", "ask", "found", "done"]
    assert marked(before, after, "-") == {"ask": 2, "found": 2} and marked(before, after, "+") == {"summary": 1}


def test_thousands_of_the_same_are_no_work() -> None:
    before = ["same"] * 20_000
    after = ["other" if n % 10 == 0 else "same" for n in range(20_000)]
    assert marked(before, after, "+") == {"other": 2_000} and marked(before, after, "-") == {"same": 2_000}
