"""Where moleport leads and where it does not, said from the numbers.

Two comparisons per column: with the peers of its own kind (HTTP mode), and, for the TCP tunnel, with
the encrypted TCP peers. Those without encryption are named when they are ahead of both, so that nothing
is hidden behind the choice of a class.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from moleport_bench.figures.base import Better, Column, Figure
from moleport_bench.page.goals import OURS_HTTP, OURS_TCP
from moleport_bench.page.numbers import Middle, median, middle, write_number
from moleport_bench.peers.base import Mode, Peer
from moleport_bench.record import Record

_IN_THE_CLEAR = {"none", "–"}


class Contest(NamedTuple):
    """One comparison."""

    ours: str
    others: Sequence[Peer]
    against: str


def contests(peers: Sequence[Peer]) -> Sequence[Contest]:
    """Return who is compared with whom."""
    others = [peer for peer in peers if not peer.name.startswith("moleport")]
    http = [peer for peer in others if peer.mode is Mode.HTTP]
    tcp = [peer for peer in others if peer.mode.is_tcp]
    encrypted = [peer for peer in tcp if peer.leg not in _IN_THE_CLEAR]
    plain = [peer for peer in tcp if peer.leg in _IN_THE_CLEAR]
    return (
        Contest(OURS_HTTP, http, "HTTP mode"),
        Contest(OURS_HTTP, encrypted, "encrypted TCP"),
        Contest(OURS_TCP, encrypted, "encrypted TCP"),
        Contest(OURS_TCP, plain, "TCP in the clear"),
    )


def standing_lines(
    record: Record, figures: Iterable[Figure], peers: Sequence[Peer]
) -> Iterator[str]:
    """Return the table of who is ahead, column by column."""
    yield "| figure | moleport | best of | | |"
    yield "| --- | --- | --- | --- | --- |"
    for figure in figures:
        for column in figure.columns:
            if column.plotted and column.better is not Better.NEITHER:
                yield from _rows(record, figure, column, peers)


def _rows(record: Record, figure: Figure, column: Column, peers: Sequence[Peer]) -> Iterator[str]:
    for ours, others, against in contests(peers):
        mine = middle(record.of(figure.name, ours), column.key)
        found = [
            (value, peer.name)
            for peer in others
            if (value := middle(record.of(figure.name, peer.name), column.key)) is not None
        ]
        if mine is None or not found:
            continue
        best, name = max(found) if column.better is Better.HIGHER else min(found)
        unit = f" {column.unit}" if column.unit not in {"", "1/s", "×"} else ""
        cells = (
            f"{figure.name}: {column.heading}",
            f"{ours} {write_number(mine.median)}{unit}",
            against,
            f"{name} {write_number(best.median)}{unit}",
            outcome(mine, best, column.better),
        )
        yield f"| {' | '.join(cells)} |"


def outcome(ours: Middle, best: Middle, better: Better) -> str:
    """Say who is ahead and by how much; nobody where ranges overlap or medians are equal."""
    if ours.median == best.median:
        return "level"
    leads = (ours.median > best.median) is (better is Better.HIGHER)
    low, high = sorted((ours.median, best.median))
    by = f" {high / low:.1f} ×" if low > 0 else ""
    if ours.lowest <= best.highest and best.lowest <= ours.highest:
        return f"level: ranges overlap, {'ahead' if leads else 'behind'}{by}"
    return f"moleport leads{by}" if leads else f"**behind{by}**"


def why_lines(record: Record) -> Iterator[str]:
    """Say what the request rate is bound by, from CPU times: the cores are shared by all processes."""
    for ours, others in ((OURS_HTTP, "nginx-1hop"), (OURS_TCP, "rathole-noise")):
        mine = [median(record, "requests", ours, key) for key in ("cpu", "server_cpu", "agent_cpu")]
        theirs = median(record, "requests", others, "cpu")
        rate = median(record, "requests", ours, "per_second")
        if theirs is None or rate is None or None in mine:
            continue
        total, server, agent = (value for value in mine if value is not None)
        busy = rate * total / 100_000
        yield (
            f"`{ours}` spends {write_number(total)} CPU seconds per 100,000 requests, "
            f"{write_number(server)} in the server and {write_number(agent)} in the agent; `{others}` spends "
            f"{write_number(theirs)}. At {write_number(rate)} requests/s that is {busy:.2f} cores, of which "
            f"the server's single thread takes {rate * server / 100_000:.2f}."
        )
        yield ""
    captured, without = (
        median(record, "requests", name, "cpu") for name in (OURS_HTTP, f"{OURS_HTTP}-nocapture")
    )
    if captured is not None and without is not None:
        yield (
            f"Capturing requests takes {write_number(captured - without)} of the "
            f"{write_number(captured)} CPU seconds."
        )
