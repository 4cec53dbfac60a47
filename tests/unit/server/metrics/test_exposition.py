from prometheus_client.parser import text_string_to_metric_families

from helpers.metrics import everything
from moleport_server.metrics.exposition import CONTENT_TYPE, new_registry, render


def test_the_text_parses_and_has_no_creation_times() -> None:
    text = render(everything().registry).decode()
    names = {family.name for family in text_string_to_metric_families(text)}

    assert "moleport_server_requests" in names
    assert "_created" not in text
    assert "# TYPE moleport_server_requests_total counter\n" in text
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_a_new_registry_knows_the_process() -> None:
    text = render(new_registry()).decode()

    assert "process_resident_memory_bytes" in text
    assert "python_gc_collections_total" in text
