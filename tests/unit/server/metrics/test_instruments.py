from helpers.metrics import everything


def test_series_with_known_labels_exist_before_the_first_event() -> None:
    registry = everything().registry

    for name, labels in {
        "auth_attempts_total": {"kind": "agent", "result": "rejected"},
        "held_total": {"protocol": "tcp", "result": "served"},
        "tunnel_duration_seconds_count": {"protocol": "http"},
        "captures_total": {},
    }.items():
        assert registry.get_sample_value(f"moleport_server_{name}", labels) == 0


def test_the_build_is_told() -> None:
    labels = {"version": "1.2.3", "python": "3.11"}

    assert everything().registry.get_sample_value("moleport_server_build_info", labels) == 1


def test_groups_count_into_their_own_series() -> None:
    all_of_it = everything()
    all_of_it.edge.refusals.labels(reason="agent-away").inc()
    all_of_it.api.requests.labels(route="/api/status", method="GET", code="200").inc()
    value = all_of_it.registry.get_sample_value

    assert value("moleport_server_refusals_total", {"reason": "agent-away"}) == 1
    assert (
        value(
            "moleport_server_api_requests_total",
            {"route": "/api/status", "method": "GET", "code": "200"},
        )
        == 1
    )
