"""Bar charts as SVG, written by hand: a bar per peer for the median, a whisker for the range.

The text is real text and the colours suit light and dark pages, so that a reader can search a plot and
a diff of it says what has changed.
"""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from moleport_bench.figures.base import Better, Column
from moleport_bench.page.numbers import Middle, write_number
from moleport_bench.peers.base import Mode, Peer

WIDTH, NAME_WIDTH, VALUE_WIDTH = 760, 190, 150
BAR, GAP, TOP, BOTTOM = 16, 8, 52, 14
OURS = "#2563eb"
COLOURS = {
    Mode.BASELINE: "#9ca3af",
    Mode.HTTP: "#d97706",
    Mode.TCP_ONE: "#059669",
    Mode.TCP_EACH: "#7c3aed",
}
_LEGEND = {
    Mode.BASELINE: "no tunnel",
    Mode.HTTP: "HTTP mode",
    Mode.TCP_ONE: "TCP, one connection",
    Mode.TCP_EACH: "TCP, one each",
}
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#6b7280}"
    ".t{font-size:15px;font-weight:600}.o{font-weight:700;fill:#2563eb}"
    "@media(prefers-color-scheme:dark){text{fill:#d1d5db}.o{fill:#60a5fa}}"
)


class Bar(NamedTuple):
    """One row of a chart."""

    peer: Peer
    value: Middle


def chart(title: str, column: Column, bars: Sequence[Bar]) -> str:
    """Return the chart as a document; the scale begins at zero."""
    height = TOP + len(bars) * (BAR + GAP) + BOTTOM
    room = WIDTH - NAME_WIDTH - VALUE_WIDTH
    largest = max((bar.value.highest for bar in bars), default=0.0) or 1.0
    better = f", {column.better.value}" if column.better is not Better.NEITHER else ""
    unit = "" if column.unit in {"", "1/s", "×"} else f" ({column.unit})"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="t" x="0" y="16">{escape(title + unit + better)}</text>',
        *_legend({bar.peer.mode for bar in bars}, has_ours=any(map(_is_ours, bars))),
    ]
    for number, bar in enumerate(bars):
        lines += _row(bar, TOP + number * (BAR + GAP), room / largest)
    return "\n".join((*lines, "</svg>", ""))


def _row(bar: Bar, y: int, scale: float) -> list[str]:
    colour = OURS if _is_ours(bar) else COLOURS[bar.peer.mode]
    css = ' class="o"' if _is_ours(bar) else ""
    width, low, high = (
        value * scale for value in (bar.value.median, bar.value.lowest, bar.value.highest)
    )
    middle_y = y + BAR / 2
    row = [
        f'<text{css} x="{NAME_WIDTH - 8}" y="{y + 13}" text-anchor="end">{escape(bar.peer.name)}</text>',
        f'<rect x="{NAME_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
    ]
    if high > low:
        row.append(
            f'<path d="M{NAME_WIDTH + low:.1f} {middle_y}H{NAME_WIDTH + high:.1f}" '
            'stroke="#6b7280" stroke-width="2"/>'
        )
    end = NAME_WIDTH + max(width, high) + 8
    row.append(f'<text{css} x="{end:.1f}" y="{y + 13}">{write_number(bar.value.median)}</text>')
    return row


def _legend(modes: set[Mode], *, has_ours: bool) -> list[str]:
    entries = [("moleport", OURS)] if has_ours else []
    entries += [(_LEGEND[mode], COLOURS[mode]) for mode in Mode if mode in modes]
    lines, x = [], 0
    for text, colour in entries:
        lines.append(f'<rect x="{x}" y="28" width="11" height="11" rx="2" fill="{colour}"/>')
        lines.append(f'<text x="{x + 16}" y="38">{escape(text)}</text>')
        x += 40 + 8 * len(text)
    return lines


def _is_ours(bar: Bar) -> bool:
    return bar.peer.name.startswith("moleport")
