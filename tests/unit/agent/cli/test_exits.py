import pytest

from moleport_agent.cli.exits import MEANINGS, Exit, exit_code
from moleport_agent.errors import (
    BadAnswer,
    ClientError,
    ConfigError,
    ConnectError,
    NotAuthorised,
    NotFound,
    Rejected,
)

CASES = [
    (ConfigError(["x"]), 2),
    (ConnectError("x"), 3),
    (NotAuthorised(401, "x"), 4),
    (NotFound(404, "x"), 5),
    (Rejected(409, "x"), 5),
    (BadAnswer("x"), 1),
    (ClientError("x"), 1),
]


@pytest.mark.parametrize(("error", "code"), CASES, ids=[type(error).__name__ for error, _ in CASES])
def test_each_error_has_its_exit_code(error: ClientError, code: int) -> None:
    assert exit_code(error) == code


def test_every_exit_code_is_explained() -> None:
    assert set(MEANINGS) == set(Exit)
