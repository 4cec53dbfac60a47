from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from moleport_bench.deployment import Bench
from moleport_bench.errors import NotReady
from moleport_bench.figures.base import Column, Effort, Values
from moleport_bench.peers import PEERS
from moleport_bench.peers.base import Peer
from moleport_bench.rounds import Cell, measure, schedule

TWO = [peer for peer in PEERS if peer.name in {"direct", "ssh"}]
NOTHING = cast("Bench", None)  # the figure below does not look at it


@dataclass
class Figure:
    name: str = "figure"
    title: str = ""
    method: str = ""
    columns: Sequence[Column] = ()
    most_rounds: int = 3
    fails: bool = False

    def takes(self, peer: Peer) -> bool:
        return self.name != "choosy" or peer.name == "ssh"

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        if self.fails:
            raise NotReady("it did not start")
        return {"rate": 1.23456789}


def order(figures: Sequence[Figure], rounds: int) -> list[tuple[str, str, int]]:
    cells = schedule(figures, TWO, rounds)
    return [(cell.figure.name, cell.peer.name, cell.round) for cell in cells]


def test_peers_take_turns_within_a_round() -> None:
    assert order([Figure()], 2) == [
        ("figure", "direct", 1),
        ("figure", "ssh", 1),
        ("figure", "direct", 2),
        ("figure", "ssh", 2),
    ]


def test_a_figure_chooses_its_peers_and_its_rounds() -> None:
    assert order([Figure(name="choosy", most_rounds=1)], 3) == [("choosy", "ssh", 1)]


def test_values_are_kept_with_five_digits() -> None:
    sample = measure(Cell(Figure(), TWO[0], 1), NOTHING, Effort(), run="now")

    assert sample.values == {"rate": 1.2346}
    assert (sample.run, sample.figure, sample.peer, sample.round) == ("now", "figure", "direct", 1)


def test_trouble_of_a_peer_is_part_of_the_result() -> None:
    sample = measure(Cell(Figure(fails=True), TWO[0], 1), NOTHING, Effort(), run="now")

    assert sample.failed == "it did not start"
    assert sample.values == {}
