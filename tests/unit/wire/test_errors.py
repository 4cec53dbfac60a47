import pytest

from moleport_wire.errors import (
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    SessionRefused,
    TransportLost,
    WireError,
)


@pytest.mark.parametrize("kind", [ProtocolError, LocalProtocolError, RemoteProtocolError])
def test_a_broken_rule_has_a_code_for_the_peer_and_a_sentence(kind: type[ProtocolError]) -> None:
    error = kind(3, "session window exceeded")

    assert error.code == 3
    assert str(error) == error.reason == "session window exceeded"
    assert isinstance(error, WireError)


def test_a_refusal_has_a_code_and_a_sentence() -> None:
    error = SessionRefused(11, "invalid token")

    assert error.code == 11
    assert str(error) == error.reason == "invalid token"
    assert isinstance(error, WireError)


def test_a_lost_transport_is_no_broken_rule() -> None:
    assert isinstance(TransportLost("gone"), WireError)
    assert not isinstance(TransportLost("gone"), ProtocolError)
