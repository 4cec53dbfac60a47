import re

from helpers.metrics import everything
from moleport_server.metrics.catalogue import CATALOGUE, PREFIX, Kind


def test_the_catalogue_lists_exactly_what_is_registered() -> None:
    exposed = {
        (metric.name + "_total" * (metric.type == "counter"), metric.type, metric.documentation)
        for metric in everything().registry.collect()
    }

    assert exposed == {(row.name, str(row.kind), row.meaning) for row in CATALOGUE}


def test_names_follow_the_rules_of_prometheus() -> None:
    for row in CATALOGUE:
        assert re.fullmatch(rf"({PREFIX}|rustunnel_active_)[a-z_]+", row.name)
        assert row.name.endswith("_total") is (row.kind is Kind.COUNTER)
        assert (row.buckets == ()) is (row.kind is not Kind.HISTOGRAM)
        assert not re.search(r"_(ms|kb|mb|millis|minutes)(_|$)", row.name)
        assert row.meaning.endswith(".")


def test_no_label_can_hold_what_a_stranger_chooses() -> None:
    for row in CATALOGUE:
        assert not row.labels.keys() & {"host", "hostname", "path", "ip", "address", "token", "id"}
