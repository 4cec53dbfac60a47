"""The tables: one per figure, peers by mode, a cell per column."""

from collections.abc import Iterable, Iterator, Sequence

from moleport_bench.figures.base import Column, Figure
from moleport_bench.page.numbers import middle, write_middle
from moleport_bench.peers.base import Mode, Peer
from moleport_bench.record import Record, Sample

OTHER_RUN = "†"


def figure_table(record: Record, figure: Figure, peers: Iterable[Peer]) -> list[str]:
    """Return the lines of one table, with the failures below it.

    Rows of another run than most are marked: they were not interleaved with the rest.
    """
    rows = [(peer, samples) for peer in peers if (samples := record.of(figure.name, peer.name))]
    columns = [column for column in figure.columns if _is_measured(column, rows)]
    headings = ["peer", "agent leg", *(_heading(column) for column in columns)]
    lines = [_line(headings), _line(["---", "---", *("---:" for _ in columns)])]
    main_run = _most_frequent([sample.run for _, samples in rows for sample in samples])
    for mode in Mode:
        of_mode = [(peer, samples) for peer, samples in rows if peer.mode is mode]
        if of_mode:
            lines.append(_line([f"*{mode.value}*", *([""] * (len(headings) - 1))]))
        for peer, samples in of_mode:
            mark = "" if samples[0].run == main_run else f" {OTHER_RUN}"
            cells = (write_middle(middle(samples, column.key)) for column in columns)
            lines.append(_line([f"{_name(peer)}{mark}", peer.leg, *cells]))
    return [*lines, *_notes(rows, main_run)]


def _notes(rows: Sequence[tuple[Peer, list[Sample]]], main_run: str | None) -> Iterator[str]:
    others = sorted({samples[0].run for _, samples in rows} - {main_run})
    if others:
        yield ""
        yield f"{OTHER_RUN} Measured in another run ({', '.join(others)}), not interleaved with the rest."
    for peer, samples in rows:
        reasons = dict.fromkeys(sample.failed for sample in samples if sample.failed)
        for reason in reasons:
            yield ""
            times = sum(sample.failed == reason for sample in samples)
            yield f"`{peer.name}` failed in {times} of {len(samples)}: {_one_line(reason)}"


def _heading(column: Column) -> str:
    return (
        f"{column.heading} ({column.unit})"
        if column.unit not in {"", "1/s", "×"}
        else column.heading
    )


def _name(peer: Peer) -> str:
    return f"**{peer.name}**" if peer.name.startswith("moleport") else peer.name


def _is_measured(column: Column, rows: Iterable[tuple[Peer, list[Sample]]]) -> bool:
    return any(column.key in sample.values for _, samples in rows for sample in samples)


def _most_frequent(runs: Sequence[str]) -> str | None:
    return max(sorted(set(runs)), key=runs.count, default=None)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:240].replace("|", "¦")
