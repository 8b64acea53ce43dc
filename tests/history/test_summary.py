"""The summary engine: what a summary keeps, what it leaves out because it is stated, and that any content
gives one, deterministically and in linear time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy_plugin.history.model import ASSISTANT, TOOL, Call, Message, Round
from proxy_plugin.history.summary import Stated, is_summary, summarise
from proxy_plugin.history.summary.cells import NONE, word

REF = "0123456789ab"


def turn(name: str, arguments: Any, result: Any, *, said: Any = None, failed: bool = False) -> Round:
    """One call and its result; values that are no text go as JSON."""
    given = arguments if isinstance(arguments, str) else json.dumps(arguments)
    content = result if isinstance(result, str | list | None) else json.dumps(result)
    answer = None if result is None else Message(TOOL, content, answers="c", failed=failed)
    return Round(Message(ASSISTANT, said, (Call("c", name, given),)), (answer,))


def rows_turn(rows: list[dict[str, Any]], name: str = "search") -> Round:
    """A result that is a list of objects."""
    return turn(name, {"q": "all"}, json.dumps(rows))


def written(*rounds: Round, stated: Stated | None = None, following: Sequence[str] = (), ref: str = REF) -> str:
    return summarise(rounds, stated or Stated(), following, ref)


def after(*texts: str) -> Stated:
    stated = Stated()
    for text in texts:
        stated.add(text)
    return stated


def line_with(text: str, *parts: str) -> str:
    """The one line of the text that holds all the parts."""
    found = [line for line in text.split("\n") if all(part in line for part in parts)]
    assert len(found) == 1, (parts, text)
    return found[0]


def shown(value: Any) -> tuple[str | None, ...]:
    """How a value stands in a cell; one that is none may be left out."""
    if value in (None, ""):
        return NONE, None
    return (word(value) if isinstance(value, str) else json.dumps(value),)


ORDER = {
    "order_id": "#W2378156",
    "user_id": "yusuf_rossi_9620",
    "address": {"address1": "763 Broadway", "city": "Philadelphia", "zip": "19122"},
    "items": [
        {"name": "Keyboard", "item_id": "1151293680", "price": 272.33, "options": {"switch type": "linear"}},
        {"name": "Thermostat", "item_id": "4983901480", "price": 262.47, "options": {"color": "black"}},
    ],
    "status": "delivered",
    "cancel_reason": None,
}


VALUES = st.sampled_from(
    [
        None,
        "",
        0,
        7,
        12345,
        2.5,
        True,
        "=",
        "-",
        "as",
        "as stated",
        "+",
        "x y",
        'q"',
        "a;b",
        "[",
        ":",
        "é",
        "open",
        "A-1",
    ]
)
FIELDS = st.fixed_dictionaries(dict.fromkeys(("status", "city", "a=b", "switch type", "["), VALUES))


@st.composite
def states(draw: st.DrawFn) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """(number of the object, its fields, what the call that shows it was given)."""
    fields = draw(FIELDS)
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True))
    given = {name: draw(st.just(fields[name]) | VALUES) for name in names}
    return draw(st.integers(0, 3)), fields, {"args": given} if given and draw(st.booleans()) else given


ROWS = st.lists(st.tuples(st.integers(0, 9), VALUES, VALUES), min_size=1, max_size=6, unique_by=lambda row: row[0])
ALIKE = st.builds(
    lambda numbers, a, b: [(n, a, n if b is None else b) for n in numbers],
    st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True),
    VALUES,
    VALUES,
)
TABLE = st.tuples(st.one_of(st.just({}), st.fixed_dictionaries({"a": VALUES})), ROWS | ALIKE)


class TestForm:
    def test_names_the_tool_its_arguments_and_where_the_full_output_is(self) -> None:
        text = written(turn("get_weather", {"city": "Lima", "date": "2024-05-01"}, "18 degrees"))
        assert f"full output kept: {REF}" in text.split("\n")[0]
        assert "get_weather(city=Lima date=2024-05-01) → 18 degrees" in text

    def test_says_nothing_of_a_place_where_nothing_is_kept(self) -> None:
        text = written(turn("get_weather", {"city": "Lima"}, "18 degrees"), ref="")
        assert "kept" not in text
        assert is_summary(text)

    def test_is_recognised_and_other_text_is_not(self) -> None:
        text = written(turn("a", {}, "ok"))
        assert is_summary(text)
        assert is_summary(written())
        for other in ("", "Tool calls", "[Tool calls were made]", f"note: {text}", "[tool calls]\na() → ok"):
            assert not is_summary(other)

    def test_calls_stand_in_order_and_each_tool_is_named(self) -> None:
        calls = (Call("1", "first", "{}"), Call("2", "second", "{}"))
        results = (Message(TOOL, "one", answers="1"), None)
        text = written(Round(Message(ASSISTANT, None, calls), results), turn("third", {}, "three"))
        assert text.split("\n")[1:] == ["first() → one", "second() → no result", "third() → three"]

    def test_arguments_are_named_once_then_stand_alone(self) -> None:
        rounds = [turn("route", {"origin": a, "destination": b}, "ok") for a, b in (("JFK", "SEA"), ("SEA", "SFO"))]
        text = written(*rounds)
        assert text.split("\n")[1:] == ["route(origin=JFK destination=SEA) → ok", "(SEA SFO) → ok"]
        again = written(turn("route", {"origin": "SFO", "destination": "LAX"}, "ok"), stated=after(text))
        assert "route(SFO LAX) → ok" in again

    def test_other_argument_names_are_named_again(self) -> None:
        first = written(turn("route", {"origin": "JFK"}, "ok"))
        assert "route(destination=SEA)" in written(turn("route", {"destination": "SEA"}, "ok"), stated=after(first))

    def test_what_the_agent_said_beside_a_call_is_part_of_it(self) -> None:
        assert "Looking up order #W2378156." in written(turn("get", {}, "ok", said="Looking up order #W2378156."))

    def test_no_line_of_a_result_passes_for_a_call(self) -> None:
        text = written(turn("read", {"path": "a.txt"}, "x\nfake(id=1): price=5\n[Tool calls]\nend"))
        stated = after(text)
        assert stated.columns("fake") == []
        assert stated.arguments("read") == ["path"]


class TestObjects:
    def test_values_stand_with_their_object_and_name(self) -> None:
        text = written(turn("get_order", {"order_id": "#W2378156"}, ORDER))
        assert "1151293680" in line_with(text, "Keyboard", "272.33", "linear")
        for name in ("user_id", "address1", "item_id", "price", "status", "switch type"):
            assert name in text
        for value in ("yusuf_rossi_9620", "763 Broadway", "19122", "4983901480", "262.47", "delivered"):
            assert value in text
        assert "cancel_reason" not in text

    def test_rows_under_one_header_constant_columns_once(self) -> None:
        rows = [{"id": f"HAT{n}", "status": "available", "price": 100 + n, "gate": None} for n in range(5)]
        text = written(rows_turn(rows))
        assert [text.count(part) for part in ("id", "price", "available", "status", "gate")] == [1, 1, 1, 1, 0]
        for n in range(5):
            assert line_with(text, f"HAT{n}").split()[:2] == [f"HAT{n}", str(100 + n)] or n == 4
        assert "HAT4 104" in text

    def test_objects_by_key_are_rows(self) -> None:
        variants = {str(9000000000 + n): {"color": "red", "price": n + 0.5} for n in range(4)}
        text = written(turn("get_product", {"product_id": "p-77"}, {"name": "Lamp", "variants": variants}))
        for n in range(4):
            assert f"{n}.5" in line_with(text, str(9000000000 + n))

    def test_a_known_object_states_only_what_changed(self) -> None:
        first = written(turn("get_order", {"order_id": "#W2378156"}, ORDER))
        changed = {**ORDER, "status": "cancelled", "cancel_reason": "no longer needed"}
        text = written(turn("cancel_order", {"order_id": "#W2378156"}, changed), stated=after(first))
        entry = line_with(text, "cancel_order")
        assert "as stated except" in entry
        assert "status=cancelled" in entry
        assert 'cancel_reason="no longer needed"' in entry
        for value in ("Broadway", "Keyboard", "272.33"):
            assert value not in text

    def test_a_value_that_is_gone_is_said_to_be(self) -> None:
        ticket = {"ticket": "T-100", "owner": "Ann Lee", "state": "open", "area": "docs"}
        first = written(turn("get", {"ticket": "T-100"}, ticket))
        text = written(turn("get", {"ticket": "T-100"}, {**ticket, "owner": None}), stated=after(first))
        assert "as stated except owner=-" in text

    def test_a_value_that_went_back_is_stated_again(self) -> None:
        stated = Stated()
        for status in ("open", "shut", "open"):
            text = written(turn("get", {"door_id": "D-100"}, {"door_id": "D-100", "status": status}), stated=stated)
            stated.add(text)
            assert status in text

    def test_the_same_value_of_another_object_is_no_reason_to_leave_it_out(self) -> None:
        stated = after(written(turn("get", {"door_id": "D-100"}, {"door_id": "D-100", "status": "open"})))
        assert "open" in written(
            turn("get", {"door_id": "D-200"}, {"door_id": "D-200", "status": "open"}), stated=stated
        )

    def test_values_given_as_arguments_are_not_repeated(self) -> None:
        arguments = {"user_id": "mia_li_3668", "origin": "JFK", "destination": "SEA", "note": "aisle seat please"}
        text = written(turn("book", arguments, {"reservation_id": "HATHAT", **arguments, "created": "2024-05-15"}))
        assert text.count("aisle seat please") == 1
        assert "reservation_id=HATHAT" in text
        assert "2024-05-15" in text

    def test_wrapped_json_is_unwrapped(self) -> None:
        inner = json.dumps({"ticket": "T-4711", "state": "open"})
        block = {"type": "text", "text": inner, "annotations": None}
        plain = written(turn("get", {}, inner))
        assert plain == written(turn("get", {}, [{"type": "text", "text": inner}]))
        assert plain == written(turn("get", {}, json.dumps(block)))
        assert plain == written(turn("get", {}, json.dumps([block])))
        assert plain == written(turn("get", {}, json.dumps({"content": [block], "isError": False, "_meta": None})))
        printed = f"meta=None content=[TextContent(type='text', text={inner!r}, annotations=None)] isError=False"
        assert plain == written(turn("get", {}, printed))

    @pytest.mark.parametrize(
        "text",
        [
            '{"id": "A-1000", "price": 10}\n{"id": "A-2000", "price": 20}\n{"id": "A-3000", "price": 30}',
            "id,price,unit\nA-1000,10,kg\nA-2000,20,l\nA-3000,30,m",
            "id\tprice\nA-1000\t10\nA-2000\t20\nA-3000\t30",
            "| id | price |\n|---|---:|\n| A-1000 | 10 |\n| A-2000 | 20 |\n| A-3000 | 30 |",
        ],
        ids=["json lines", "csv", "tsv", "markdown"],
    )
    def test_tables_in_text_are_tables(self, text: str) -> None:
        stated = after(written(turn("list", {"of": "stock"}, text)))
        assert [stated.cell("list", f"A-{n}000", "price") for n in (1, 2, 3)] == ["10", "20", "30"]

    def test_amounts_are_as_they_were_written(self) -> None:
        assert "94.80" in written(turn("get", {}, '{"invoice": "INV-1", "total": 94.80, "n": 12345678901234567890123}'))
        assert "12345678901234567890123" in written(turn("get", {}, '{"n": 12345678901234567890123}'))

    def test_rows_beyond_the_budget_keep_their_identifier_and_are_counted(self) -> None:
        rows = [{"id": f"ITEM-{n:05}", "name": f"thing number {n}", "price": n} for n in range(400)]
        text = written(rows_turn(rows))
        assert len(text) < 4000
        assert "ITEM-00010" in line_with(text, "thing number 10")
        assert "more" in text

    def test_wide_objects_are_cut_and_counted(self) -> None:
        text = written(turn("get", {}, {f"key{n}": f"value number {n}" for n in range(2000)}))
        assert len(text) < 4000
        assert "more" in text

    @given(st.lists(states(), min_size=1, max_size=8))
    @example([(1, {"a": 0}, {}), (1, {"a": "open"}, {"a": "open"})])
    @example([(1, {"a": 0}, {}), (1, {"a": "open"}, {"args": {"a": "open"}})])
    @example([(1, {"a": 0}, {}), (2, {"a": "open"}, {"a": "open"})])
    def test_every_value_can_be_read_back_for_its_object(
        self, shows: list[tuple[int, dict[str, Any], dict[str, Any]]]
    ) -> None:
        """Whatever a record leaves out because it is stated, a reader of all summaries knows the last value. What
        the call was given is stated there, and no other value for the object."""
        stated, last = Stated(), dict[tuple[str, str], Any]()
        for number, fields, arguments in shows:
            key = f"OBJ-{number}000"
            stated.add(written(turn("set", {"key": key, **arguments}, {"key": key, **fields}), stated=stated))
            given = arguments.get("args", arguments)
            for name, value in fields.items():
                is_given = name in given and given[name] == value
                last[key, word(name)] = (*shown(value), None) if is_given else shown(value)
        for (key, name), values in last.items():
            assert stated.value(key, name) in values

    @given(st.lists(TABLE, min_size=1, max_size=5))
    @example([({}, [(2, 0, None)]), ({}, [(2, None, 0)])])
    @example([({}, [(n, n, 0) for n in range(4)]), ({"b": "open"}, [(n, 7, "open") for n in range(4)])])
    def test_every_row_can_be_read_back(self, tables: list[tuple[dict[str, Any], list[tuple[int, Any, Any]]]]) -> None:
        """A value that all rows of a table have may be stated for none of them, but no other one either."""
        stated, last = Stated(), dict[tuple[str, str], Any]()
        for arguments, rows in tables:
            result = json.dumps([{"id": f"ROW-{n}000", "a": a, "b": b} for n, a, b in rows])
            stated.add(written(turn("search", {"q": "all", **arguments}, result), stated=stated))
            for n, *values in rows:
                for index, (column, value) in enumerate(zip("ab", values, strict=True), 1):
                    is_shared = all(json.dumps(row[index]) == json.dumps(value) for row in rows)
                    is_stated_once = is_shared and (len(rows) > 3 or arguments.get(column) == value)
                    last[f"ROW-{n}000", column] = (*shown(value), None) if is_stated_once else shown(value)
        for (row, column), values in last.items():
            assert stated.cell("search", row, column) in values


class TestTexts:
    def test_short_results_stay_whole(self) -> None:
        assert "Reservation of Ann Lee is confirmed." in written(
            turn("book", {}, "Reservation of Ann Lee is confirmed.")
        )

    def test_identifiers_of_long_texts_stay(self) -> None:
        kept = [
            "a@example.org",
            "https://example.org/x/1?y=2",
            "src/core/main.rs",
            "./lib/util.js",
            "~/.config/tool.toml",
            "INV-2024-0098",
            "#2E3440",
            "2024-05-15",
            "$63",
            "1,234.50",
            "Maria Lopez",
            "May 24, 2024",
            "report_final.pdf",
            "MAX_RETRIES",
        ]
        filler = "and so the story went on for a good while before anything of note came up. " * 3
        text = written(turn("read", {}, filler + f" {filler}".join(kept) + ". " + filler))
        for value in kept:
            assert value in text
        assert text.count("story") <= 4

    def test_identifiers_stated_before_are_not_repeated(self) -> None:
        long = "lorem ipsum dolor sit amet " * 20 + "see INV-2024-0098 " + "and so on and so forth " * 20
        assert "INV-2024-0098" in written(turn("read", {}, long))
        assert "INV-2024-0098" not in written(turn("read", {}, long), stated=after("Invoice INV-2024-0098 it is."))
        assert "INV-2024-0098" not in written(turn("read", {}, long), following=["Invoice INV-2024-0098 it is."])

    @pytest.mark.parametrize(
        ("result", "line"),
        [
            (
                "Error: flight HAT001 not available on date 2024-05-20\n" + "hint " * 100,
                "Error: flight HAT001 not available",
            ),
            (
                "Traceback (most recent call last):\n" + '  File "a.py", line 1\n' * 60 + "ValueError: bad id X-99",
                "ValueError: bad id X-99",
            ),
            (
                "out\n" * 100 + "main.c:3: error: expected ';'\n" + "more\n" * 100 + "Command exited with code 2",
                "main.c:3: error: expected ';'",
            ),
            ("<tool_use_error>File has not been read yet</tool_use_error>", "File has not been read yet"),
            (
                json.dumps(
                    {
                        "error": "Payment method gift_card_7 has too little balance for this order of 12 items, "
                        + "x" * 60
                    }
                ),
                "gift_card_7 has too little balance for this order of 12 items",
            ),
            (
                json.dumps(
                    {
                        "status": "failed",
                        "content": "No route to host db-7.internal while syncing the tables of " + "y" * 60,
                    }
                ),
                "No route to host db-7.internal while syncing",
            ),
        ],
    )
    def test_the_first_error_line_stays(self, result: str, line: str) -> None:
        assert line in written(turn("run", {"command": "go"}, result))

    def test_a_result_marked_as_failed_keeps_its_line(self) -> None:
        text = "note\n" * 100 + "permission was not found for this key\n" + "note\n" * 100
        assert "permission was not found for this key" in written(turn("run", {}, text, failed=True))

    def test_listings_logs_and_diffs_keep_lines(self) -> None:
        listing = "\n".join(f"-rw-r--r-- 1 root root {n * 137} May {n} 10:00 file{n}" for n in range(1, 30))
        assert "411" in line_with(written(turn("ls", {}, listing)), "file3")
        log = "\n".join(f"2024-05-01T10:00:{n:02} INFO job {n}" for n in range(50))
        log = log.replace("INFO job 40", "ERROR db: refused")
        assert "ERROR db: refused" in written(turn("tail", {}, log))
        diff = (
            "diff --git a/x.py b/x.py\n@@ -1,9 +1,9 @@\n" + " same()\n" * 60 + "-    timeout = 30\n+    timeout = 60\n"
        )
        text = written(turn("diff", {}, diff))
        assert "-    timeout = 30" in text
        assert "+    timeout = 60" in text

    def test_the_last_line_of_output_stays(self) -> None:
        assert "3 failed, 40 passed in 2.1s" in written(
            turn("test", {}, "some words\n" * 100 + "3 failed, 40 passed in 2.1s")
        )

    def test_code_keeps_what_it_defines_and_imports(self) -> None:
        code = (
            "import x\n"
            + "y = f(1);\n" * 100
            + "class OrderBook:\n    def settle(self):\n"
            + "        z = g(2);\n" * 100
        )
        text = written(turn("read", {"path": "a.py"}, code))
        assert "OrderBook" in text
        assert "settle" in text

    def test_pages_keep_text_and_links_without_markup(self) -> None:
        page = (
            "<!DOCTYPE html><html><head><style>.c7781{color:red}</style><script>track('zz9913')</script></head>"
            "<body><h1>Shipment</h1><p>Carrier page: <a href='https://ex.org/t/9921'>track</a></p>" + "<p>text</p>" * 99
        )
        text = written(turn("fetch", {}, page))
        assert "https://ex.org/t/9921" in text
        assert "Shipment" in text
        for gone in ("<p>", "c7781", "zz9913"):
            assert gone not in text

    def test_binary_and_images_by_size_or_reference(self) -> None:
        packed = "iVBORw0KGgo" + "".join(chr(65 + n % 26) + str(n % 10) for n in range(2000))
        assert len(written(turn("read", {}, packed))) < 200
        assert str(len(packed)) in written(turn("read", {}, packed))
        parts = [
            {"type": "text", "text": "Screenshot:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + packed}},
            {"type": "image_url", "image_url": {"url": "https://ex.org/i.png"}},
        ]
        text = written(turn("shot", {}, parts))
        assert "Screenshot:" in text
        assert "https://ex.org/i.png" in text
        assert "iVBORw0KGgo" not in text

    def test_any_script(self) -> None:
        text = written(
            turn(
                "suche",
                {"ort": "東京"},
                json.dumps({"客户": "张伟", "заказ": "№ 77-А", "id": "ש-12"}, ensure_ascii=False),
            )
        )
        for value in ("東京", "客户", "张伟", "заказ", "77-А", "ש-12"):
            assert value in text

    def test_a_written_file_keeps_its_path_and_identifiers(self) -> None:
        content = "from lib.util import x\n" * 50 + "TOKEN = 'tok_4711abcd'\n" + "pass\n" * 200
        text = written(turn("write", {"path": "/srv/app/main.py", "content": content}, "ok"))
        assert "/srv/app/main.py" in text
        assert "tok_4711abcd" in text
        assert len(text) < 500

    def test_an_edit_shows_where_the_texts_differ(self) -> None:
        before = "def keep(a):\n    return a\n\n" * 10 + "def change(b):\n    return b + 1\n" + "x = 1\n" * 20
        edit = {"file": "/a/b.py", "old_string": before, "new_string": before.replace("b + 1", "b + 2")}
        text = written(turn("edit", edit, "ok"))
        assert "return b + 1" in text
        assert "return b + 2" in text
        assert "keep" not in text

    def test_commands_stay_whole(self) -> None:
        command = "mkdir -p ~/.agent/themes && cp packages/agent/src/theme/dark.json ~/.agent/themes/custom.json"
        assert command in written(turn("bash", {"command": command}, ""))


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.sampled_from(["", "=", "[", '"', "\ud800", "a(b): c", "\n(x): y=1", "[Tool calls]\n", "{" * 50, "x" * 500]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=20,
)


@st.composite
def junk_rounds(draw: Callable[[Any], Any]) -> Round:
    value = draw(JUNK)
    text = draw(
        st.sampled_from(
            [lambda v: v, str, lambda v: json.dumps(v), lambda v: [{"type": "text", "text": json.dumps(v)}, v]]
        )
    )
    names = st.one_of(st.text(max_size=5), st.sampled_from(["get", "a b", "> x", "("]))
    arguments = st.one_of(st.text(max_size=20), st.builds(json.dumps, JUNK))
    calls = tuple(draw(st.lists(st.builds(Call, st.none(), names, arguments), max_size=3)))
    results = tuple(
        draw(st.sampled_from([None, Message(TOOL, text(value))])) for _ in draw(st.sampled_from([calls, calls[1:]]))
    )
    return Round(Message(ASSISTANT, draw(JUNK), calls), results)


class TestPromises:
    @given(st.lists(junk_rounds(), max_size=4), st.lists(st.text(), max_size=2))
    def test_total_deterministic_and_without_side_effect(self, rounds: list[Round], following: list[str]) -> None:
        stated = after("Order #W2378156", written(turn("get", {"id": "A-1"}, ORDER)))
        first = summarise(rounds, stated, following, REF)
        assert is_summary(first)
        assert summarise(rounds, stated, following, REF) == first
        assert summarise(rounds, stated.copy(), following, REF) == first

    @given(st.lists(st.lists(junk_rounds(), max_size=2), max_size=4), st.data())
    def test_stated_is_a_function_of_the_texts(self, subtasks: list[list[Round]], data: st.DataObject) -> None:
        """Copies on the way, or a start from the finished texts, make no difference."""
        stated, texts = Stated(), list[str]()
        for rounds in subtasks:
            texts += [data.draw(st.text(max_size=20)), summarise(rounds, stated, (), REF)]
            if data.draw(st.booleans()):
                stated = stated.copy()
            for text in texts[-2:]:
                stated.add(text)
        probe = [turn("get", {"id": "A-1"}, ORDER), rows_turn([{"id": "A-1", "b": 2}, {"id": "A-2", "b": 3}], "get")]
        assert summarise(probe, stated, (), REF) == summarise(probe, after(*texts), (), REF)

    def test_a_copy_goes_its_own_way(self) -> None:
        stated = after(written(turn("get", {"id": "A-1000"}, {"id": "A-1000", "state": "open"})))
        copy = stated.copy()
        copy.add(written(turn("get", {"id": "A-1000"}, {"id": "A-1000", "state": "shut"}), stated=copy))
        assert (stated.value("A-1000", "state"), copy.value("A-1000", "state")) == ("open", "shut")

    @pytest.mark.parametrize("depth", [50, 900, 5000, 100_000])
    def test_nesting_of_any_depth(self, depth: int) -> None:
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, '[{"a":1},' * depth):
            assert is_summary(written(turn("get", text, text)))

    @pytest.mark.parametrize(
        "unit",
        [
            '"',
            "[",
            "(",
            "a=",
            "<",
            "<script>",
            "<!--",
            ".",
            "a@",
            "/",
            "1",
            "a_",
            "*_",
            "\n",
            "\n ",
            "\\'",
            "12:",
            "Error ",
            "a-a",
            "A ",
        ],
    )
    def test_no_trap_in_repetition(self, unit: str) -> None:
        """A rule that took quadratic time would take minutes for these."""
        text = unit * (200_000 // len(unit))
        for result in (
            text,
            f"meta=None content=[TextContent(type='text', text='{text}",
            f"<html>{text}",
            f"Error\n{text}",
        ):
            assert len(written(turn("get", {"q": text}, result), following=[text])) < 10_000
        assert isinstance(after(f"[Tool calls]\nget(a=1): {text}").copy(), Stated)

    @pytest.mark.parametrize(
        "make",
        [
            lambda n: [turn("get", {"id": f"A-{i}00"}, ORDER) for i in range(n)],
            lambda n: [turn("get", {"id": "A-100"}, {**ORDER, "status": f"s{i}"}) for i in range(n)],
            lambda n: [rows_turn([{"id": f"A-{i}00", "b": i, "c": {"d": i}} for i in range(10 * n)])],
            lambda n: [turn("get", {}, {f"k{i}": {"a": i, "b": [i]} for i in range(10 * n)})],
            lambda n: [rows_turn([{f"k{i}": i} for i in range(10 * n)])],
            lambda n: [turn("read", {}, f"line {n} of src/file{n}.py and so on\n" * 10 * n)],
        ],
        ids=["calls", "versions", "rows", "keys", "loose rows", "lines"],
    )
    def test_work_grows_with_the_size(self, make: Callable[[int], list[Round]]) -> None:
        small, large = make(20), make(80)
        assert calls_made(lambda: after(written(*large))) <= 5 * calls_made(lambda: after(written(*small)))


def calls_made(work: Callable[[], object]) -> int:
    """How many functions, also those written in C, the work calls."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
