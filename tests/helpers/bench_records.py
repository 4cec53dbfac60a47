"""Raw data of benchmarks, as short as a test can say it."""

from collections.abc import Mapping, Sequence

from moleport_bench.record import Record, Run, Sample

RUN = "2026-01-01T00:00:00Z"


def record_of(
    figure: str, cells: Mapping[str, Sequence[Mapping[str, float]]], *, run: str = RUN
) -> Record:
    """Return a record of one run: for each peer the values of its rounds."""
    record = Record()
    for peer, rounds in cells.items():
        for number, values in enumerate(rounds, 1):
            record.add(Sample(run=run, figure=figure, peer=peer, round=number, values=values))
    record.describe(
        Run(
            id=run,
            command="python -m moleport_bench run",
            machine={"cores": "2"},
            versions={"wrk": "4.1.0"},
            missing={"chisel": "chisel is not on PATH"},
            seconds=60.0,
        )
    )
    return record
