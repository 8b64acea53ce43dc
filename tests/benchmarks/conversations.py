"""Conversations for benchmarks, made by the project and the same on every machine.

`conversation` makes a plan of subtasks of any length, for timing. `KINDS` make sessions whose later calls
use values of earlier results (ids, paths, e-mails, amounts), for measuring what a rewriting keeps of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

Message = dict[str, Any]


def conversation(messages: int, *, rounds: int = 5, seed: int = 7) -> list[Message]:
    """About `messages` messages that end where the model is to reply; subtasks of `rounds` tool rounds each.
    A result is 0.5-3 KB: rows of a table, a record, or a listing."""
    chance = random.Random(seed)
    out: list[Message] = [{"role": "system", "content": "You are a careful agent. " * 40}]
    number = 0
    while len(out) < messages:
        number += 1
        out.append({"role": "user", "content": f"Subtask {number}: look after customer {chance.randrange(10**6)}."})
        for turn in range(rounds):
            call_id = f"call_{number:04d}{turn:02d}{chance.randrange(16**12):012x}"
            arguments = json.dumps({"customer_id": chance.randrange(10**6), "limit": 20})
            call = {"id": call_id, "type": "function", "function": {"name": f"tool_{turn}", "arguments": arguments}}
            out.append({"role": "assistant", "content": None, "tool_calls": [call]})
            out.append({"role": "tool", "tool_call_id": call_id, "content": _result(chance)})
        out.append({"role": "assistant", "content": f"Subtask {number} is done: all {rounds} checks passed."})
    del out[messages:]
    while out[-1]["role"] != "tool":
        out.pop()
    return out


def _result(chance: random.Random) -> str:
    kind = chance.randrange(3)
    if kind == 0:
        rows = [
            {"id": f"ord_{chance.randrange(16**8):08x}", "amount": chance.randrange(10**5) / 100, "status": "shipped"}
            for _ in range(chance.randrange(8, 30))
        ]
        return json.dumps({"orders": rows})
    if kind == 1:
        return json.dumps({f"field_{n}": f"value {chance.randrange(10**9)}" for n in range(chance.randrange(20, 60))})
    return "\n".join(f"-rw-r--r-- 1 app app {chance.randrange(10**6)} src/m{n}/file_{n}.py" for n in range(40))


def requests(wire: list[Message]) -> list[list[Message]]:
    """The requests that an agent has sent on its way: what stood before each assistant message, and all."""
    ends = [index for index, message in enumerate(wire) if index and message["role"] == "assistant"]
    return [wire[:end] for end in [*ends, len(wire)]]


class Session:
    """Writes one conversation: `ask`, `call` (one assistant message with its calls and their results), `say`."""

    def __init__(self, seed: int, system: str) -> None:
        self.chance = random.Random(seed)
        self.messages: list[Message] = [{"role": "system", "content": system}]

    def ask(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def say(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def call(self, *calls: tuple[str, dict[str, Any], Any]) -> None:
        """`calls`: name, arguments and result (JSON unless it is a string)."""
        made, results = [], []
        for name, arguments, result in calls:
            call_id = f"call_{self.chance.randrange(16**24):024x}"
            function = {"name": name, "arguments": json.dumps(arguments)}
            made.append({"id": call_id, "type": "function", "function": function})
            content = result if isinstance(result, str) else json.dumps(result)
            results.append({"role": "tool", "tool_call_id": call_id, "content": content})
        self.messages += [{"role": "assistant", "content": None, "tool_calls": made}, *results]

    def code(self, prefix: str, digits: int = 6) -> str:
        return prefix + "".join(self.chance.choices("0123456789ABCDEFGHJKLMNPQRSTUVWXYZ", k=digits))

    def amount(self, most: int = 90_000) -> float:
        return self.chance.randrange(500, most) / 100

    def pick(self, *choices: Any) -> Any:
        return self.chance.choice(choices)


FIRST = ("Ada", "Bruno", "Chidi", "Dalia", "Emre", "Freya", "Gita", "Hugo", "Ines", "Jonas", "Kira", "Lena")
LAST = ("Abt", "Berg", "Costa", "Dahl", "Eriksen", "Fonseca", "Gruber", "Haas", "Ito", "Juhasz", "Kaya", "Lund")
GOODS = ("desk lamp", "office chair", "monitor arm", "USB hub", "notebook A5", "travel mug", "wall clock", "headset")
POLICY = "You help customers of a shop. Look everything up before you answer and change nothing without a reason. "


def _order(session: Session, customer: str) -> Message:
    items = [
        {
            "sku": session.code("SKU-", 7),
            "name": session.pick(*GOODS),
            "quantity": session.chance.randrange(1, 4),
            "price": session.amount(),
            "warehouse": session.pick("LEJ1", "RTM2", "WAW3"),
        }
        for _ in range(session.chance.randrange(2, 6))
    ]
    return {
        "order_id": session.code("ORD-", 8),
        "customer_id": customer,
        "placed_at": f"2025-0{session.chance.randrange(1, 10)}-{session.chance.randrange(10, 28)}T09:15:00Z",
        "status": session.pick("delivered", "shipped", "processing"),
        "payment_id": session.code("pay_", 10),
        "tracking_number": session.code("1Z", 12),
        "items": items,
        "total": round(sum(item["price"] * item["quantity"] for item in items), 2),
        "notes": "Leave the parcel with the neighbour if nobody opens the door; ring twice.",
    }


def two_subtasks(seed: int) -> list[Message]:
    """A support chat: first everything is looked up, then something is done with what was found."""
    session = Session(seed, POLICY * 6)
    first, last = session.pick(*FIRST), session.pick(*LAST)
    customer = session.code("cus_", 9)
    orders = [_order(session, customer) for _ in range(6)]
    session.ask(f"Hello, this is {first} {last}. Which of my orders have not arrived yet, and where are they?")
    profile = {
        "customer_id": customer,
        "name": f"{first} {last}",
        "email": f"{first}.{last}{session.chance.randrange(100)}@example.org".lower(),
        "address": {"street": f"{session.chance.randrange(1, 200)} Mill Lane", "zip": session.code("", 5)},
        "orders": [order["order_id"] for order in orders],
        "payment_methods": [{"method_id": session.code("card_", 8), "last4": session.code("", 4)} for _ in range(2)],
    }
    session.call(("find_customer", {"name": f"{first} {last}"}, {"matches": [profile]}))
    session.call(("list_orders", {"customer_id": customer}, {"orders": orders}))
    wanted = session.chance.sample(orders, 3)
    for order in wanted:
        session.call(("get_order", {"order_id": order["order_id"]}, order))
        stops = [
            {"at": f"2025-06-{10 + day}T0{day}:30:00Z", "place": session.pick("Leipzig", "Venlo", "Lodz"), "scan": "ok"}
            for day in range(1, 7)
        ]
        session.call(("track", {"tracking_number": order["tracking_number"]}, {"events": stops, "eta": "2025-06-21"}))
    session.say("Three parcels are still on their way; the carrier expects to deliver all of them within the week.")
    session.ask("Please cancel the one that is the most expensive, refund my card, and mail me a confirmation.")
    dear = max(wanted, key=lambda order: float(order["total"]))
    method = profile["payment_methods"][1]["method_id"]  # type: ignore[index]
    session.call(("cancel_order", {"order_id": dear["order_id"], "reason": "customer"}, {"status": "cancelled"}))
    refund = {"payment_id": dear["payment_id"], "amount": dear["total"], "method_id": method}
    session.call(("refund", refund, {"refund_id": session.code("re_", 10), "state": "pending", **refund}))
    for item in dear["items"]:
        restock = {"sku": item["sku"], "quantity": item["quantity"], "warehouse": item["warehouse"]}
        session.call(("restock", restock, {"ok": True}))
    session.call(("send_mail", {"to": profile["email"], "template": "refund_confirmed"}, {"queued": True}))
    session.say("Done: the order is cancelled, the refund is on its way and the confirmation is in your inbox.")
    return session.messages


WORDS = ("session", "invoice", "cursor", "retry", "tenant", "quota", "ledger", "parser", "router", "digest", "cache")
STEPS = (
    "Find out why the build is red and fix it.",
    "Add a timeout to the callers that have none.",
    "The reviewer wants the helper renamed everywhere, with its tests.",
    "Write a regression test for what you fixed first.",
    "Update the documentation of what changed and bump the version.",
)


def _source(session: Session, name: str, lines: int) -> str:
    """A listing with line numbers, every function different."""
    out = [f'"""{name}: written for the benchmark."""', "", "from __future__ import annotations", ""]
    while len(out) < lines:
        left, right = session.pick(*WORDS), session.pick(*WORDS)
        number = session.chance.randrange(10_000)
        out += [
            f"def {left}_{right}_{number}(value: int, *, limit: int = {session.chance.randrange(10_000)}) -> int:",
            f'    """Gives the {left} of a {right}; raises ValueError above the limit."""',
            "    if value > limit:",
            f'        raise ValueError(f"{right} {{value}} is above {{limit}}")',
            f"    return value * {session.chance.randrange(10**6)} + limit",
            "",
        ]
    return "\n".join(f"{number:>4}  {line}" for number, line in enumerate(out, 1))


def coding(seed: int) -> list[Message]:
    """A long coding session: searches, reads, edits and test logs. From the second subtask on the agent
    first comes back to what earlier results named and nobody touched then: a file, a failing test, a commit."""
    session = Session(seed, "You are a coding agent in a repository. Make small changes and run the tests. " * 10)
    files = [f"src/{session.pick(*WORDS)}/{session.pick(*WORDS)}_{number}.py" for number in range(10, 40)]
    left: list[str] = []
    failing: list[str] = []
    commit = ""
    for step, request in enumerate(STEPS):
        session.ask(request)
        if step:
            session.call(("git_show", {"commit": commit}, _source(session, "diff", 24)))
            for _ in range(2):
                test, path = session.pick(*failing), session.pick(*left)
                session.call(("run_tests", {"path": test}, f"{test} PASSED\n1 passed in 0.40s"))
                session.call(("read_file", {"path": path}, _source(session, path, 50)))
        named = files[6 * step : 6 * step + 6]
        word = session.pick(*WORDS)
        hits = [f"{path}:{session.chance.randrange(1, 90)}:    {word}_value = {word}(limit)" for path in named * 3]
        session.call(("grep", {"pattern": f"{word}_"}, "\n".join(hits)))
        for path in named[:4]:
            listing = _source(session, path, 70)
            session.call(("read_file", {"path": path}, listing))
            line = session.pick(*(row[6:] for row in listing.splitlines() if "return value" in row))
            edit = {"path": path, "old": line, "new": line.replace("limit", "min(limit, value)")}
            session.call(("edit_file", edit, f"Edited {path}: 1 replacement."))
            test = path.replace("src/", "tests/").replace("/", "/test_")
            log = [f"{test}::test_{session.pick(*WORDS)}_{n} PASSED [{4 * n:>3}%]" for n in range(25)]
            first, second = (f"{test}::test_{word}_{session.chance.randrange(10_000)}" for _ in "12")
            for name in (first, second):
                log.append(f"FAILED {name} - ValueError: {word} {session.chance.randrange(10**5)} is above the limit")
            session.call(("run_tests", {"path": test}, "\n".join([*log, "2 failed, 25 passed in 3.21s"])))
            session.call(("run_tests", {"path": first}, f"{first} PASSED\n1 passed in 0.40s"))
            failing.append(second)
        left += named[4:]
        commit = f"{session.chance.randrange(16**9):09x}"
        message = f"Step {step + 1}"
        session.call(("git_commit", {"message": message}, f"[main {commit}] {message}\n 4 files changed"))
        session.say("That is done and the tests pass.")
    return session.messages


def parallel(seed: int) -> list[Message]:
    """A travel desk that calls several tools at once, and books in the next subtask what it found."""
    session = Session(seed, "You plan trips. Call tools in parallel where you can. " * 12)
    session.ask("Find flights and hotels for our four-city tour in September, cheapest first.")
    cities = session.chance.sample(("BER", "LIS", "ATH", "OSL", "VIE", "DUB", "PRG", "RIX"), 5)
    legs = list(pairwise(cities))
    found = []
    for _ in range(3):
        calls = []
        for origin, to in legs:
            flights = [
                {
                    "flight_id": session.code(f"{origin}{to}-", 6),
                    "departs": f"2025-09-{session.chance.randrange(10, 28)}T0{session.chance.randrange(5, 10)}:40",
                    "price": session.amount(60_000),
                    "fare_class": session.pick("Y", "M", "K"),
                    "fare_key": session.code("fk_", 12),
                    "seats_left": session.chance.randrange(1, 9),
                }
                for _ in range(6)
            ]
            found.append(session.pick(*flights))
            calls.append(("search_flights", {"from": origin, "to": to}, {"flights": flights}))
        session.call(*calls)
        rules = {"refundable": False, "change_fee": session.amount(9_000), "baggage": "one piece, 23 kg"}
        session.call(*(("get_fare_rules", {"fare_key": flight["fare_key"]}, rules) for flight in found[-len(legs) :]))
    stays, searches = [], []
    for _, to in legs:
        offers = [
            {"hotel_id": session.code("htl_", 7), "rate": session.amount(), "rate_key": session.code("rk_", 12)}
            for _ in range(5)
        ]
        stays.append(session.pick(*offers))
        searches.append(("search_hotels", {"city": to}, {"hotels": offers}))
    session.call(*searches)
    session.say("I have found flights and hotels for every leg; shall I hold the cheapest ones?")
    session.ask("Yes, hold them, for two people.")
    held = session.chance.sample(found, 4)
    holds = [{"hold_id": session.code("hold_", 9), "until": "2025-08-01T12:00:00Z"} for _ in held]
    session.call(
        *(
            ("hold_flight", {"flight_id": f["flight_id"], "fare_key": f["fare_key"], "price": f["price"]}, hold)
            for f, hold in zip(held, holds, strict=True)
        )
    )
    session.call(*(("hold_hotel", {"rate_key": s["rate_key"], "hotel_id": s["hotel_id"]}, {"ok": True}) for s in stays))
    session.say("Everything is on hold until the first of August.")
    session.ask("Book all of it, and add the train to the airport.")
    session.call(*(("book", {"hold_id": hold["hold_id"]}, {"pnr": session.code("", 6)}) for hold in holds))
    session.call(*(("confirm_hotel", {"hotel_id": s["hotel_id"], "rate": s["rate"]}, {"ok": True}) for s in stays))
    session.say("All booked. The confirmations will reach you by mail.")
    return session.messages


def tables(seed: int) -> list[Message]:
    """Accounting: the same tables are listed again and again, and single rows are worked on."""
    session = Session(seed, "You keep the books. Use the ledger's own ids and amounts, never guess. " * 8)
    rows = [
        {
            "invoice_id": session.code("INV-", 7),
            "vendor_id": session.code("vnd_", 6),
            "contact": f"{session.pick(*FIRST)}.{session.pick(*LAST)}@vendor{number}.example".lower(),
            "amount": session.amount(900_000),
            "currency": "EUR",
            "due": f"2025-{session.chance.randrange(1, 13):02d}-{session.chance.randrange(1, 28):02d}",
            "status": "open",
        }
        for number in range(24)
    ]
    for month in ("January", "February", "March", "April", "May"):
        session.ask(f"Close {month}: pay what is due and tell the vendors.")
        session.call(("list_invoices", {"status": "open", "page": 1}, {"invoices": rows[:12], "next_page": 2}))
        session.call(("list_invoices", {"status": "open", "page": 2}, {"invoices": rows[12:], "next_page": None}))
        for row in session.chance.sample(rows, 3):
            payment = {"invoice_id": row["invoice_id"], "amount": row["amount"], "currency": row["currency"]}
            session.call(("pay_invoice", payment, {"payment_id": session.code("pmt_", 8), "state": "executed"}))
            row["status"] = "paid"
        session.call(("list_invoices", {"status": "all", "page": 1}, {"invoices": rows[:12], "next_page": 2}))
        session.say(f"{month} is closed.")
        late = session.pick(*rows)
        session.ask("Remind the vendor whose invoice looked odd, and reconcile the account.")
        session.call(("send_mail", {"to": late["contact"], "vendor_id": late["vendor_id"]}, {"queued": True}))
        session.call(("reconcile", {"invoice_id": late["invoice_id"], "amount": late["amount"]}, {"difference": 0}))
        session.say("The vendor has been reminded and the account reconciles.")
    return session.messages


KINDS: dict[str, Callable[[int], list[Message]]] = {
    "two subtasks": two_subtasks,
    "coding": coding,
    "parallel calls": parallel,
    "repeated tables": tables,
}
