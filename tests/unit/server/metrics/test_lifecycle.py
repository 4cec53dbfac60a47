from collections.abc import Iterable
from enum import StrEnum

import pytest

from helpers.metrics import everything
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.metrics import catalogue
from moleport_server.metrics.lifecycle import LifecycleCounts
from moleport_server.registry.observer import ClaimResult, LeaseEnd, SessionEnd, TunnelEnd


@pytest.mark.parametrize(
    ("words", "row", "label"),
    [
        (SessionEnd, catalogue.SESSIONS_CLOSED, "reason"),
        (TunnelEnd, catalogue.TUNNEL_CLOSES, "reason"),
        (LeaseEnd, catalogue.LEASES_ENDED, "result"),
        (ClaimResult, catalogue.TUNNEL_OPENS, "result"),
    ],
    ids=["sessions", "tunnels", "leases", "claims"],
)
def test_the_words_of_the_registry_are_those_of_the_catalogue(
    words: Iterable[StrEnum], row: catalogue.Row, label: str
) -> None:
    assert {word.value for word in words} == set(row.labels[label])


def test_each_event_is_counted_once() -> None:
    all_of_it = everything()
    counts = LifecycleCounts(all_of_it.agents, all_of_it.tunnels)

    counts.session_opened(is_resumed=True)
    counts.session_ended(SessionEnd.LOST)
    counts.tunnel_claimed(TunnelProtocol.HTTP, ClaimResult.TAKEN)
    counts.tunnel_ended(TunnelProtocol.TCP, TunnelEnd.UNBOUND, 90.0)
    counts.lease_ended(LeaseEnd.EXPIRED)

    def value(name: str, **labels: str) -> float | None:
        return all_of_it.registry.get_sample_value(f"moleport_server_{name}", labels)

    assert value("sessions_opened_total", result="resumed") == 1
    assert value("sessions_closed_total", reason="lost") == 1
    assert value("tunnel_opens_total", protocol="http", result="taken") == 1
    assert value("tunnel_closes_total", protocol="tcp", reason="unbound") == 1
    assert value("tunnel_duration_seconds_sum", protocol="tcp") == 90.0
    assert value("leases_ended_total", result="expired") == 1
