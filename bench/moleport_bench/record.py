"""The raw data: every measured cell with its run, so that a page can be made from it again.

A run may cover some figures and some peers; runs are merged into one file. For each figure and peer the
newest run that measured it counts, whole: rounds of different runs are never mixed. The file is written
after every cell, so that an interrupted run keeps what it has.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

FORMAT = 1


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One start of the harness."""

    id: str
    """When it began, UTC."""
    command: str
    """How to repeat it."""
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    """Of moleport, the peers and the load generators."""
    missing: Mapping[str, str]
    """Peers that could not take part, and why."""
    seconds: float = 0.0
    """How long it took, so far."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of one round."""

    run: str
    figure: str
    peer: str
    round: int
    values: Mapping[str, float] = {}
    seconds: float = 0.0
    """How long the measurement took, with start and end of the processes."""
    failed: str | None = None
    """Why there are no values."""


class Record(msgspec.Struct, kw_only=True):
    """All runs that still count."""

    format: int = FORMAT
    runs: list[Run] = []
    samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Add a cell; cells of older runs for the same figure and peer go."""
        self.samples = [
            known
            for known in self.samples
            if known.run == sample.run or (known.figure, known.peer) != (sample.figure, sample.peer)
        ]
        self.samples.append(sample)

    def describe(self, run: Run) -> None:
        """Add a run or what is now known of it; runs without a cell go."""
        used = {sample.run for sample in self.samples}
        others = [known for known in self.runs if known.id != run.id and known.id in used]
        self.runs = [*others, run]

    def of(self, figure: str, peer: str) -> list[Sample]:
        """Return the cells of one figure and peer, by round."""
        cells = (s for s in self.samples if (s.figure, s.peer) == (figure, peer))
        return sorted(cells, key=lambda sample: sample.round)

    def figures(self) -> Iterable[str]:
        """Return the names of the measured figures."""
        return dict.fromkeys(sample.figure for sample in self.samples)


def load_record(path: Path) -> Record:
    """Read the raw data; an empty record when there is none yet.

    Raises:
        msgspec.ValidationError: the file is something else.
    """
    if not path.exists():
        return Record()
    return msgspec.json.decode(path.read_bytes(), type=Record)


def save_record(record: Record, path: Path) -> None:
    """Write the raw data at once and whole: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=1)
    partial = path.with_suffix(".partial")
    partial.write_bytes(text + b"\n")
    partial.replace(path)
