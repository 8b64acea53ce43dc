"""The figures as a picture: tokens along the conversations, and what the files cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxy_plugin.replay.figures import Figures
from proxy_plugin.replay.prices import Prices

_FILES = 12  # bars that can still be told apart; with more files only the total is drawn
_LONGEST = 20  # characters of a file's name beside its bar


def available() -> bool:
    """Whether the extra that draws is installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    return bool(matplotlib)


def draw(path: Path, files: Sequence[tuple[str, Figures]], total: Figures, prices: Prices) -> None:
    """Writes a picture in the format of the file's ending. Raises OSError and ValueError (unknown ending)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    along, costs = figure.subplots(1, 2, width_ratios=(3, 2))

    numbers = range(1, len(total.course) + 1)
    style = {"marker": "o"} if len(total.course) == 1 else {}
    for side, (label, colour) in enumerate((("received", "#999999"), ("sent", "#1f77b4")), 1):
        means = [sums[side] / sums[0] for sums in total.course]
        along.plot(numbers, means, label=label, color=colour, **style)
    along.set(xlabel="request of the conversation", ylabel="tokens (mean)", title="Tokens per request", ylim=0)
    along.yaxis.set_major_formatter(EngFormatter(sep=""))
    along.legend()

    shown = list(files) if len(files) <= _FILES else [("total", total)]
    for row, (_, figures) in enumerate(shown):
        before, after = figures.costs(prices)
        costs.barh(row - 0.2, before, height=0.4, color="#999999", label="received" if row == 0 else None)
        costs.barh(row + 0.2, after, height=0.4, color="#1f77b4", label="sent" if row == 0 else None)
    costs.set_yticks(range(len(shown)), [name[-_LONGEST:] for name, _ in shown])
    costs.invert_yaxis()
    costs.set(xlabel="tokens at the input price", title="Cost under prompt caching")
    costs.xaxis.set_major_formatter(EngFormatter(sep=""))
    costs.legend()
    figure.savefig(path, dpi=120)
