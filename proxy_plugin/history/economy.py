"""When a collapse pays under prompt caching.

A request costs `cached` for each token of the prefix that the provider has already, and `write` for each
one behind it, both relative to the price of an input token that is not cached. A collapse replaces the
pending part V (tool rounds and the text between them, up to the user's message) by a shorter one C:
the next request pays write·C instead of cached·V, and each one after it cached·(V − C) less. With N
requests to come it pays iff

    cached·V − write·C + cached·(N − 1)·(V − C) > 0

With T and S the tokens of the pending rounds and of their summaries and τ those of the text between,
V = T + τ and C = S + τ.

N is not known. Of a conversation of which only the age is known, R replies, another n follow with the
probability R / (R + n) (Lindy's law). N = R is as likely as not, and the loss is certain while the gain is
not: with it, recorded customer service chats (tau-bench, tau2-bench), which end soon after the rounds have
piled up, cost 102% of sending everything, one of them 118%. So N = R / 4, which four of five
conversations reach. Behind a user's message a few requests follow whatever the age, so what has paid for
itself in less than four of them need not wait for an age: N = 3.5 at least. Measured so: the same chats 100.0%,
none above it; coding sessions 28%; eight search tasks in one thread 52% (`always`: 102, 28 and 51%).
"""

from __future__ import annotations

from typing import NamedTuple

_CERTAIN = 0.25  # part of a conversation's age that it lasts on with a probability of 4/5
_SOON = 3.5  # requests that follow a user's message at any age


class Prices(NamedTuple):
    """Prices of input tokens relative to one that is not cached. `cached`: read from the cache; `write`:
    not in it (above 1 where the provider charges for writing)."""

    cached: float = 0.1
    write: float = 1.25


def pays(before: int, after: int, replies: int, prices: Prices) -> bool:
    """Whether a part of `before` tokens is better collapsed to `after` now, `replies` replies having come so far.

    Never more willing with fewer replies, so that a rewritten history, which has fewer, stays as it is."""
    requests = max(_SOON, _CERTAIN * replies)
    at_once = prices.cached * before - prices.write * after
    return at_once + prices.cached * (requests - 1) * (before - after) > 0
