import pytest

from moleport_server.edge.resets import stream_error_reason
from moleport_server.metrics import catalogue
from moleport_wire.hoody.frames import Code


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_every_code_has_a_reason_that_the_catalogue_knows(code: Code) -> None:
    assert stream_error_reason(code) in catalogue.STREAM_ERRORS.labels["reason"]


def test_a_code_that_nobody_knows_is_other() -> None:
    assert stream_error_reason(12_345) == "other"
