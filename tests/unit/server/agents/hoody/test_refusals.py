import pytest

from moleport_server.agents.hoody.refusals import bind_refusal, session_refusal
from moleport_server.errors import (
    Forbidden,
    InvalidRequest,
    NameTaken,
    PortTaken,
    QuotaExceeded,
    RateLimited,
    ServerError,
    StoreFull,
    Unauthenticated,
)
from moleport_wire.hoody.frames import Code


@pytest.mark.parametrize(
    ("error", "code", "is_final"),
    [
        (Forbidden("no"), "FORBIDDEN", True),
        (InvalidRequest("no"), "INVALID_REQUEST", True),
        (NameTaken("no"), "ALREADY_BOUND", False),
        (PortTaken("no"), "PORT_IN_USE", False),
        (QuotaExceeded("no"), "BIND_CAP_EXCEEDED", False),
        (StoreFull("no"), "INTERNAL", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServerError) else "",
)
def test_a_refused_bind_has_a_code_and_a_hint(
    error: ServerError, code: str, is_final: bool
) -> None:
    assert bind_refusal(error) == (code, is_final)


@pytest.mark.parametrize(
    ("error", "code", "close_code"),
    [
        (Unauthenticated(), Code.AUTH, 1008),
        (Forbidden("no"), Code.AUTH, 1008),
        (RateLimited("no", 3.0), Code.CALM_DOWN, 1013),
        (QuotaExceeded("no"), Code.EXHAUSTED, 1013),
        (StoreFull("no"), Code.INTERNAL, 1011),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServerError) else "",
)
def test_a_refused_session_has_a_code_and_a_close_code(
    error: ServerError, code: Code, close_code: int
) -> None:
    assert session_refusal(error) == (code, close_code)
