"""Writes docs/benchmarks.md and its plots from the raw data, and from nothing else.

A run that was interrupted, or that measured some figures only, makes a page that says so: what is not
in the raw data is not on the page, and every table tells how many rounds stand behind it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from moleport_bench.figures import FIGURES
from moleport_bench.figures.base import Column, Figure
from moleport_bench.page.goals import goal_lines
from moleport_bench.page.numbers import middle
from moleport_bench.page.plots import Bar, chart
from moleport_bench.page.standing import standing_lines, why_lines
from moleport_bench.page.tables import figure_table
from moleport_bench.peers import PEERS
from moleport_bench.record import Record, Run

PAGE, PLOTS = "benchmarks.md", "benchmarks"

_INTRODUCTION = """# Benchmarks

<!-- Made by `make bench` from benchmarks/data.json; do not edit. -->

moleport beside its peers on one machine, everything over loopback: load generator, tunnel server, agent
and a small nginx as the local service share the cores. Cells are the median of the rounds and, in
parentheses, the lowest and the highest. [The raw data](benchmarks/data.json) has every round.

Absolute numbers belong to this machine and move by a quarter between two runs on a virtual one. Compare
peers within one table, they were measured in turns within minutes; the CPU time per request moves least.
A loopback has no delay and loses nothing: nothing here tells how a peer behaves over a slow link."""

_TERMS = """**HTTP mode** peers parse HTTP and choose the tunnel by Host, as moleport does. **TCP mode** peers
copy bytes and keep the local connection as long as the visitor's; compare within one mode first. *Agent leg*
says how the connection between agent and server is encrypted. moleport is measured as its users run it:
installed from its wheel, TLS on the agent leg, capture and metrics on; one more row has captures off."""


ENOUGH_ROUNDS = 3
"""A median and a range need so many."""


def write_page(record: Record, out: Path) -> None:
    """Write the page and the plots; plots that nothing belongs to any more go.

    Args:
        record: the raw data.
        out: directory of the page.
    """
    directory = out / PLOTS
    directory.mkdir(parents=True, exist_ok=True)
    plots = make_plots(record)
    for old in directory.glob("*.svg"):
        if old.name not in plots:
            old.unlink()
    for name, text in plots.items():
        (directory / name).write_text(text, encoding="utf-8")
    (out / PAGE).write_text(make_page(record), encoding="utf-8")


def make_page(record: Record) -> str:
    """Return the page."""
    figures = [figure for figure in FIGURES if figure.name in set(record.figures())]
    lines = [_INTRODUCTION, "", *_caution(record, figures)]
    lines += ["## What was wanted, and what it became", "", *goal_lines(record)]
    lines += ["", "## Who is ahead", "", *standing_lines(record, figures, PEERS), ""]
    lines += [*why_lines(record), "", "## Figures", "", _TERMS, ""]
    for figure in figures:
        lines += _section(record, figure)
    lines += _how(record)
    return "\n".join(lines).rstrip() + "\n"


def _caution(record: Record, figures: Sequence[Figure]) -> Iterator[str]:
    """Warn of figures that were measured too seldom, or from sources that no commit holds."""
    few = [
        figure.title.partition(":")[0]
        for figure in figures
        if any(0 < len(record.of(figure.name, peer.name)) < ENOUGH_ROUNDS for peer in PEERS)
    ]
    if few:
        yield (
            f"**Preliminary:** fewer than {ENOUGH_ROUNDS} rounds, so take these for an order of "
            f"magnitude only: {', '.join(few)}."
        )
        yield ""
    if any("dirty" in run.versions.get("moleport", "") for run in record.runs):
        yield "**Preliminary:** some runs measured moleport with changes that no commit holds."
        yield ""


def make_plots(record: Record) -> Mapping[str, str]:
    """Return the documents by file name."""
    return {
        plot_name(figure, column): chart(f"{figure.title}: {column.heading}", column, bars)
        for figure in FIGURES
        for column in figure.columns
        if column.plotted and (bars := _bars(record, figure, column))
    }


def plot_name(figure: Figure, column: Column) -> str:
    """Return the file name of a column's plot."""
    return f"{figure.name}-{column.key.replace('_', '-')}.svg"


def _bars(record: Record, figure: Figure, column: Column) -> Sequence[Bar]:
    cells = ((peer, middle(record.of(figure.name, peer.name), column.key)) for peer in PEERS)
    return [Bar(peer, cell) for peer, cell in cells if cell is not None]


def _section(record: Record, figure: Figure) -> Iterator[str]:
    rounds = [len(record.of(figure.name, peer.name)) for peer in PEERS]
    counts = sorted({count for count in rounds if count})
    yield f"### {figure.title}"
    yield ""
    yield f"{figure.method} Rounds: {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}."
    yield ""
    yield from figure_table(record, figure, PEERS)
    yield ""
    for column in figure.columns:
        if column.plotted and _bars(record, figure, column):
            yield f"![{figure.title}: {column.heading}]({PLOTS}/{plot_name(figure, column)})"
            yield ""


def _how(record: Record) -> Iterator[str]:
    yield "## How it was measured"
    yield ""
    yield (
        "Figure by figure, and within a figure round after round over all peers, each time with fresh "
        "processes. `make bench` does all of it; `make bench ARGS='--figures bulk --peers direct,ssh'` "
        "a part, which replaces those rows only. [bench/README.md](../bench/README.md) tells more."
    )
    yield ""
    yield "| peer | how it was run |"
    yield "| --- | --- |"
    measured = {sample.peer for sample in record.samples}
    for peer in PEERS:
        if peer.name in measured:
            yield f"| {peer.name} | {peer.how} |"
    for run in sorted(record.runs, key=lambda run: run.id):
        yield from _run(record, run)


def _run(record: Record, run: Run) -> Iterator[str]:
    samples = [sample for sample in record.samples if sample.run == run.id]
    if not samples:
        return
    figures = ", ".join(
        figure.name for figure in FIGURES if any(s.figure == figure.name for s in samples)
    )
    yield ""
    yield f"### Run of {run.id}"
    yield ""
    yield f"{figures}; {len(samples)} measurements in {run.seconds / 60:.0f} min."
    yield ""
    yield f"* Command: `{run.command}`"
    yield f"* Machine: {'; '.join(f'{name} {value}' for name, value in sorted(run.machine.items()))}"
    yield f"* Versions: {', '.join(f'{name} {value}' for name, value in sorted(run.versions.items()))}"
    if run.missing:
        reasons: dict[str, list[str]] = {}
        for peer, reason in sorted(run.missing.items()):
            reasons.setdefault(reason, []).append(peer)
        absent = "; ".join(f"{', '.join(peers)} ({reason})" for reason, peers in reasons.items())
        yield f"* Not there, so not measured: {absent}"
