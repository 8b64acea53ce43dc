"""The figures for people: a table of 80 to 100 columns, what stands behind it, and a sentence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from proxy_plugin.replay.figures import Figures
from proxy_plugin.replay.prices import Prices
from proxy_plugin.replay.tokens import Tokenizer

_WIDTH = 96  # of running text
_GAP = "  "
_NAME = (12, 40)  # least and most columns of a file's name
_HEAD = ("file", "convs", "requests", "tokens", "saved", "cost", "breaks", "refused")


def lines(
    files: Sequence[tuple[str, Figures]], total: Figures, prices: Prices, tokenizer: Tokenizer, width: int
) -> Iterator[str]:
    """`width`: columns of the screen; the names of the files take what the figures leave."""
    rows = [_HEAD, *((name, *_cells(figures, prices)) for name, figures in files)]
    if len(files) > 1:
        rows.append(("total", *_cells(total, prices)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = min(width, 100) - sum(widths[1:]) - len(_GAP) * len(widths[1:])
    widths[0] = min(widths[0], max(_NAME[0], min(room, _NAME[1])))
    for number, (name, *cells) in enumerate(rows):
        padded = (f"{cell:>{size}}" for cell, size in zip(cells, widths[1:], strict=True))
        yield _GAP.join([f"{_shorten(name, widths[0]):<{widths[0]}}", *padded])
        if number == 0:
            yield "─" * (sum(widths) + len(_GAP) * len(widths[1:]))
    yield ""
    across = min(width, _WIDTH)
    for label, text in _details(total, prices, tokenizer):
        yield from textwrap.wrap(f"{label:<11}{text}", across, subsequent_indent=" " * 11, break_on_hyphens=False)
    yield ""
    yield from textwrap.wrap(_meaning(total, prices), across)


def _shorten(name: str, width: int) -> str:
    """The end of a path says more than its beginning."""
    return name if len(name) <= width else "…" + name[1 - width :]


def _cells(figures: Figures, prices: Prices) -> tuple[str, ...]:
    before, after = figures.before, figures.after
    return (
        _short(figures.conversations),
        _short(figures.requests),
        f"{_short(before.tokens)} → {_short(after.tokens)}",
        _less(before.tokens, after.tokens),
        _change(*figures.costs(prices)),
        f"{_short(before.breaks)} → {_short(after.breaks)}",
        f"{_short(before.refused)} → {_short(after.refused)}",
    )


def _details(total: Figures, prices: Prices, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    counted = tokenizer.name if tokenizer.exact else f"estimated ({tokenizer.name})"
    yield "tokens", f"of the histories alone, summed over requests; {counted}"
    cost_before, cost_after = total.costs(prices)
    unit = f"{_short(round(cost_before))} → {_short(round(cost_after))} tokens at the input price"
    if prices.dollars is not None:
        unit = f"${cost_before * prices.dollars:,.4f} → ${cost_after * prices.dollars:,.4f}"
    yield "cost", f"{unit} (cached {prices.cached:g}, other {prices.write:g} of it)"
    yield (
        "breaks",
        (
            "requests that do not begin with the one before; "
            f"{total.breaks_by_collapse:,} of the {total.after.breaks:,} where a subtask has just been collapsed"
        ),
    )
    yield (
        "collapsed",
        (f"{total.subtasks_collapsed:,} subtasks, {total.tool_messages_cleared:,} tool messages (counted per request)"),
    )
    repairs = [f"{count:,} {kind.replace('_', ' ')}" for kind, count in total.repairs.items() if count]
    yield "repairs", ", ".join(repairs) if repairs else "none"
    for label, faults in (("refused", total.before.faults), ("still", total.after.faults)):
        if faults:
            named = (f"{count:,} {rule.replace('_', ' ')}" for rule, count in faults.most_common())
            yield label, f"for {', '.join(named)}"
    values = total.values
    yield (
        "values",
        (
            f"{_share(values['kept'], values['used'])} of {values['used']:,} that later calls use are still there; "
            f"{_share(values['at_risk_kept'], values['at_risk'])} of the {values['at_risk']:,} that stood only in "
            "what was rewritten"
        ),
    )
    if total.limited:
        yield "passed", ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in total.limited.items())
    yield "time", f"{total.percentile(0.5):.1f} ms a request (p50), {total.percentile(0.9):.1f} ms (p90)"


def _meaning(total: Figures, prices: Prices) -> str:
    if not total.requests:
        return "There is no request in these recordings."
    if not total.changed:
        return f"The plugin would send all {total.requests:,} requests as they came: there is nothing to do in them."
    before, after = total.before, total.after
    tokens = _compared(before.tokens, after.tokens, "fewer tokens", "more tokens", "as many tokens")
    costs = _compared(*total.costs(prices), "less", "more", "as much")
    sentence = f"With the plugin these {total.requests:,} requests would carry {tokens} and cost {costs} under caching"
    if not before.refused and not after.refused:
        return f"{sentence}; the provider would refuse none of them, with or without it."
    return f"{sentence}; the provider would refuse {after.refused:,} of them instead of {before.refused:,}."


def _short(number: int) -> str:
    """Whole up to 9,999, then three digits."""
    if number < 10_000:
        return f"{number:,}"
    size, sign = next((size, sign) for size, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")) if number >= size)
    share = number / size
    return f"{share:.{max(0, 3 - len(str(int(share))))}f}{sign}"


def _less(before: int, after: int) -> str:
    return f"{_percent(before, after)}%" if before else "–"


def _change(before: float, after: float) -> str:
    return f"{-_percent(before, after):+d}%" if before else "–"


def _compared(before: float, after: float, fewer: str, more: str, same: str) -> str:
    saved = _percent(before, after)
    return same if saved == 0 else f"{abs(saved)}% {fewer if saved > 0 else more}"


def _percent(before: float, after: float) -> int:
    """How much less it is."""
    return round(100 * (1 - after / before)) if before else 0


def _share(part: int, whole: int) -> str:
    if not whole:
        return "–"
    return "100%" if part == whole else f"{min(part / whole, 0.999):.1%}"
