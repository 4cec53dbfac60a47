from prometheus_client import CollectorRegistry

from moleport_server.metrics.instruments import EdgeMetrics


def test_plain_numbers_show_up_as_series() -> None:
    registry = CollectorRegistry()
    edge = EdgeMetrics.create(registry)
    edge.http.count(2, 0.02)
    edge.http.count(5, 700.0)
    edge.http.upstream.observe(0.003)
    edge.http_bytes.to_agent += 10
    edge.http_bytes.to_visitor += 20
    edge.tcp_bytes.to_visitor += 30

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"moleport_server_{name}", labels)

    assert value("requests_total", protocol="http", code="2xx") == 1
    assert value("requests_total", protocol="http", code="5xx") == 1
    assert value("requests_total", protocol="http", code="aborted") == 0
    assert value("request_duration_seconds_bucket", protocol="http", le="0.01") == 0
    assert value("request_duration_seconds_bucket", protocol="http", le="0.025") == 1
    assert value("request_duration_seconds_bucket", protocol="http", le="600.0") == 1
    assert value("request_duration_seconds_bucket", protocol="http", le="+Inf") == 2
    assert value("request_duration_seconds_count", protocol="http") == 2
    assert value("request_duration_seconds_sum", protocol="http") == 700.02
    assert value("upstream_duration_seconds_count", protocol="http") == 1
    assert value("bytes_total", protocol="http", direction="to_agent") == 10
    assert value("bytes_total", protocol="http", direction="to_visitor") == 20
    assert value("bytes_total", protocol="tcp", direction="to_visitor") == 30
