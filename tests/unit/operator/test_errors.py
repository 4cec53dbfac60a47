import pytest

from moleport_operator.errors import ConfigError, OperatorError, Rejected, ServerUnavailable


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError(["one", "two"]), "one\ntwo"),
        (Rejected("bad_host", "not our domain"), "not our domain (bad_host)"),
        (ServerUnavailable("refused", retry_after=3), "refused"),
    ],
    ids=["config", "rejected", "unavailable"],
)
def test_errors_say_what_happened(error: OperatorError, text: str) -> None:
    assert str(error) == text
