"""The fake tools of the demo's agent: a small travel desk whose answers are as wordy as real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

EMAIL = "ada.okafor@example.com"
CUSTOMER, ORDER, PAYMENT, REFUND = "cus_8Qm2ZtR4", "ord_77NXKD", "pay_3FzPq0V1mB", "rf_9LkT20aW"
_ROUTES = ("LIS", "OSL", "JFK", "NRT", "FCO", "CPH", "ARN", "MAD")


def run(name: str, arguments: Json) -> str:
    """What a tool answers, as JSON. An unknown tool or a wrong argument is an error for the model to read."""
    tool = _TOOLS.get(name)
    try:
        answer = tool(**arguments) if tool else {"error": f"no tool {name!r}"}
    except TypeError as error:
        answer = {"error": f"invalid arguments: {error}"}
    return json.dumps(answer)


def find_customer(email: str) -> Json:
    """Find a customer and the recent orders by e-mail address."""
    return {
        "customer_id": CUSTOMER,
        "email": email,
        "name": {"title": "Ms", "given": "Ada", "family": "Okafor", "display": "Ada Okafor"},
        "phone": "+44 20 7946 0018",
        "address": {"street": "12 Canal Row", "city": "Bristol", "postal_code": "BS1 4ND", "country": "GB"},
        "loyalty": {"programme": "SkyCircle", "tier": "silver", "points": 48210, "member_since": "2017-03-02"},
        "preferences": {"seat": "aisle", "meal": "vegetarian", "language": "en-GB", "currency": "EUR"},
        "consents": [
            {"kind": kind, "granted": kind != "sms", "at": "2023-11-04T09:12:44Z", "source": "web"}
            for kind in ("email", "sms", "post", "profiling")
        ],
        "recent_orders": [
            {
                "order_id": ORDER if n == 0 else f"ord_{41 + n}H{9 - n}QT{n}",
                "route": f"BRS-{city}",
                "departs": f"2025-{10 - n:02}-1{n}",
                "status": "ticketed" if n == 0 else "flown",
                "passengers": 1 + n % 3,
                "total": {"amount": f"{412.80 + 61.35 * n:.2f}", "currency": "EUR"},
            }
            for n, city in enumerate(_ROUTES)
        ],
        "notes": "Calls rarely and prefers a written confirmation. The complaint of last spring about a bag that came "
        "a day late was settled in full, and the customer thanked us for it. Do not offer vouchers again.",
    }


def get_order(order_id: str) -> Json:
    """Everything known about one order: passengers, segments, price, payment, history."""
    return {
        "order_id": order_id,
        "status": "ticketed",
        "customer_id": CUSTOMER,
        "payment_id": PAYMENT,
        "passengers": [{"name": "OKAFOR/ADA MS", "type": "ADT", "ticket": "057-2419083367", "bags": 1}],
        "segments": [
            {
                "flight": flight,
                "from": origin,
                "to": destination,
                "departs": departs,
                "arrives": arrives,
                "cabin": "economy",
                "booking_class": "K",
                "operated_by": "TP",
                "fare_basis": "KLSFLEX",
                "aircraft": "A320neo",
                "seat": "14C",
                "status": "confirmed",
                "baggage": {"hold": "1 x 23 kg", "hand": "1 x 8 kg"},
                "remarks": "Check-in opens 36 hours before departure and closes 45 minutes before. The gate is shown "
                "on the screens an hour before departure. Passengers who need help should come two hours early.",
            }
            for flight, origin, destination, departs, arrives in (
                ("TP1335", "BRS", "LIS", "2025-10-10T06:55", "2025-10-10T09:40"),
                ("TP1334", "LIS", "BRS", "2025-10-17T18:20", "2025-10-17T21:00"),
            )
        ],
        "price": {
            "currency": "EUR",
            "total": "412.80",
            "lines": [
                {"code": code, "label": label, "amount": amount, "refundable": code != "OB"}
                for code, label, amount in (
                    ("BASE", "Base fare, adult, return", "318.00"),
                    ("YQ", "Carrier-imposed surcharge", "42.00"),
                    ("GB", "UK air passenger duty", "15.30"),
                    ("PT", "Portugal security charge", "9.10"),
                    ("YP", "Passenger service charge", "18.40"),
                    ("OB", "Booking fee", "10.00"),
                )
            ],
        },
        "history": [
            {"at": at, "event": event, "by": by, "text": text}
            for at, event, by, text in (
                ("2025-07-02T18:03:11Z", "created", "web", "Order placed by the customer on the web site."),
                ("2025-07-02T18:03:40Z", "paid", "payments", "Card authorised and captured in one step."),
                ("2025-07-02T18:05:02Z", "ticketed", "gds", "Electronic ticket issued and mailed to the customer."),
                ("2025-08-19T07:30:00Z", "schedule", "gds", "Departure moved by ten minutes; no action was needed."),
                ("2025-09-01T10:44:18Z", "seat", "web", "Seat 14C chosen for both segments, free of charge."),
            )
        ],
    }


def get_fare_rules(order_id: str) -> Json:
    """The fare rules of an order: whether and until when it may be changed or cancelled."""
    paragraphs = (
        (
            "APPLICATION",
            "These rules apply to the published fare KLSFLEX for journeys between the United Kingdom and Portugal in "
            "economy class. They do not apply to group bookings or to fares that were combined with others, and they "
            "are void where the ticket was issued before the fare was filed or after it was withdrawn.",
        ),
        (
            "CANCELLATION",
            "Before departure the order may be cancelled against full refund of the fare and of all taxes, up to two "
            "hours before the first flight leaves. The booking fee is not returned. After that time only the taxes "
            "that were not used are returned, upon written request within one year of the date of issue. A partly "
            "used ticket is refunded less the published fare for the part that was flown.",
        ),
        (
            "CHANGES",
            "Changes are free of charge at any time before departure; a difference in fare is collected, and a lower "
            "fare is credited as a voucher. The new journey must begin within the validity of the ticket. Names "
            "cannot be changed, except for the correction of up to three letters.",
        ),
        (
            "NO-SHOW",
            "If the passenger does not appear for a flight, all later flights of the ticket are cancelled and the "
            "value of the ticket is lost, except for airport taxes, which are returned upon written request.",
        ),
        (
            "BAGGAGE",
            "One piece of hold baggage up to 23 kg and one piece of hand baggage up to 8 kg are included. Further "
            "pieces may be bought until four hours before departure; sports equipment has to be announced.",
        ),
        (
            "REFUND",
            "Refunds are made to the original form of payment alone, within seven working days of the cancellation. "
            "The agent must quote the payment reference in the refund request. Vouchers, miles and surcharges for "
            "payment are not paid out, and fees of third parties stay with those who collected them.",
        ),
    )
    return {
        "order_id": order_id,
        "fare_basis": "KLSFLEX",
        "cancellable": True,
        "cancel_before": "2025-10-10T04:55:00Z",
        "fee": {"amount": "10.00", "currency": "EUR"},
        "rules": [{"category": n + 1, "title": title, "text": text} for n, (title, text) in enumerate(paragraphs)],
    }


def get_payment(payment_id: str) -> Json:
    """One payment with its captures, checks and settlement."""
    happened = {
        "authorised": "The issuer approved the full amount without asking for a further confirmation.",
        "captured": "The amount was captured in one step, as is usual for orders that are ticketed at once.",
        "cleared": "The transaction was part of the evening's batch and was cleared without a difference.",
        "settled": "The acquirer settled the batch less its fee; nothing was held back as a reserve.",
        "reconciled": "The booking system's figures and the acquirer's statement agree to the cent.",
    }
    return {
        "payment_id": payment_id,
        "state": "settled",
        "amount": {"amount": "412.80", "currency": "EUR"},
        "method": {"kind": "card", "brand": "visa", "last4": "4417", "expires": "2027-08", "issuer_country": "GB"},
        "checks": {"cvc": "pass", "postal_code": "pass", "three_d_secure": "authenticated", "risk_score": 7},
        "refunded": {"amount": "0.00", "currency": "EUR"},
        "timeline": [
            {"at": f"2025-07-0{day}T18:0{day}:00Z", "event": event, "reference": f"acq-20250702-{day:04}", "text": text}
            for day, (event, text) in enumerate(happened.items(), start=2)
        ],
        "descriptor": "TRAVELDESK BRISTOL",
        "acquirer": {"name": "Harbour Acquiring", "merchant": "m-0042817", "terminal": "t-91", "batch": "b-5530"},
    }


def cancel_order(order_id: str, payment_id: str) -> Json:
    """Cancel an order and refund its payment."""
    return {
        "order_id": order_id,
        "status": "cancelled",
        "cancelled_at": "2025-09-14T11:20:07Z",
        "refund": {
            "refund_id": REFUND,
            "payment_id": payment_id,
            "amount": "402.80",
            "currency": "EUR",
            "expected_by": "2025-09-23",
            "state": "submitted",
        },
        "tickets": [{"ticket": "057-2419083367", "coupon": n, "from": "O", "to": "R"} for n in (1, 2)],
        "steps": [
            {"step": step, "state": "done", "took_ms": 140 + 37 * n, "text": text}
            for n, (step, text) in enumerate(
                (
                    ("lock", "The order was locked against changes by others while it was being cancelled."),
                    ("segments", "Both segments were cancelled with the carrier; the carrier confirmed at once."),
                    ("coupons", "Both coupons of the electronic ticket were set from open to refunded."),
                    ("refund", "The refund less the booking fee was submitted to the acquirer of the payment."),
                    ("seats", "The seats were released and the carrier's inventory was brought up to date."),
                    ("mail", "A confirmation with the refund's amount was mailed to the customer's address."),
                    ("unlock", "The order was unlocked and archived; it can be read but not be changed."),
                )
            )
        ],
    }


def write_report(customer_id: str, order_id: str, payment_id: str, refund_id: str) -> Json:
    """Write the closing report of a case."""
    return {
        "report_id": "rep_2025_0914",
        "stored": True,
        "case": {"customer": customer_id, "order": order_id, "payment": payment_id, "refund": refund_id},
        "recipients": ["backoffice@example.com", EMAIL],
    }


_TOOLS: dict[str, Callable[..., Json]] = {
    tool.__name__: tool for tool in (find_customer, get_order, get_fare_rules, get_payment, cancel_order, write_report)
}


def _offer(name: str, tool: Callable[..., Json]) -> Json:
    names = [parameter for parameter in tool.__annotations__ if parameter != "return"]
    schema = {"type": "object", "properties": {n: {"type": "string"} for n in names}, "required": names}
    return {"type": "function", "function": {"name": name, "description": tool.__doc__, "parameters": schema}}


OFFERED: list[Json] = [_offer(name, tool) for name, tool in _TOOLS.items()]
"""The tools as the client offers them to the model."""
