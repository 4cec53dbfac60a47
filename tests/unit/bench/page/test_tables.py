from helpers.bench_records import record_of
from moleport_bench.figures.bulk import BulkFigure
from moleport_bench.page.tables import figure_table
from moleport_bench.peers import PEERS
from moleport_bench.record import Sample

BULK = BulkFigure()


def test_peers_stand_under_their_mode_with_their_encryption() -> None:
    record = record_of("bulk", {"direct": [{"down": 3000.0}], "ssh": [{"down": 200.0}]})

    assert figure_table(record, BULK, PEERS) == [
        "| peer | agent leg | down, 1 stream (MB/s) |",
        "| --- | --- | ---: |",
        "| *no tunnel* |  |  |",
        "| direct | – | 3,000 |",
        "| *TCP mode, one connection carries all* |  |  |",
        "| ssh | SSH | 200 |",
    ]


def test_failures_are_told_below() -> None:
    record = record_of("bulk", {"direct": [{"down": 3000.0}]})
    record.add(
        Sample(run=record.runs[0].id, figure="bulk", peer="ssh", round=1, failed="a | b\nended")
    )

    lines = figure_table(record, BULK, PEERS)

    assert "| ssh | SSH | – |" in lines
    assert lines[-1] == "`ssh` failed in 1 of 1: a ¦ b ended"


def test_rows_of_another_run_are_marked() -> None:
    record = record_of("bulk", {"direct": [{"down": 3000.0}, {"down": 3100.0}]})
    record.add(Sample(run="later", figure="bulk", peer="ssh", round=1, values={"down": 1.0}))

    lines = figure_table(record, BULK, PEERS)

    assert "| ssh † | SSH | 1.00 |" in lines
    assert lines[-1].startswith("† Measured in another run (later)")
