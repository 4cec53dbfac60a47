import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from moleport_server.api.preconditions import Preconditions, etag
from moleport_server.api.problems import PreconditionFailed
from moleport_server.errors import InvalidRequest


def of(*headers: tuple[str, str]) -> Preconditions:
    return Preconditions.of(make_mocked_request("PUT", "/", headers=CIMultiDict(headers)))


def test_a_request_without_conditions_has_none() -> None:
    assert of() == Preconditions()


@pytest.mark.parametrize(
    ("conditions", "version", "holds"),
    [
        (of(), None, True),
        (of(), 3, True),
        (of(("If-Match", '"3"')), 3, True),
        (of(("If-Match", '"3"')), 4, False),
        (of(("If-Match", '"3"')), None, False),
        (of(("If-Match", '"1" , "3"')), 3, True),
        (of(("If-Match", '"1"'), ("If-Match", '"3"')), 3, True),
        (of(("If-Match", "*")), 3, True),
        (of(("If-Match", "*")), None, False),
        (of(("If-Match", 'W/"3"')), 3, False),
        (of(("If-None-Match", "*")), None, True),
        (of(("If-None-Match", "*")), 3, False),
        (of(("If-None-Match", '"3"')), 3, False),
        (of(("If-None-Match", '"3"')), 4, True),
        (of(("If-Match", '"3"'), ("If-None-Match", "*")), 3, False),
    ],
    ids=str,
)
def test_conditions_are_compared_strongly(
    conditions: Preconditions, version: int | None, holds: bool
) -> None:
    if holds:
        conditions.check(version)
    else:
        with pytest.raises(PreconditionFailed, match="does not hold"):
            conditions.check(version)


@pytest.mark.parametrize("text", ["3", '"3', "", '"1" "2"', "*, *", '"1",'])
def test_what_is_no_list_of_tags_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="If-Match must be"):
        of(("If-Match", text))


def test_the_tag_is_the_version_in_quotes() -> None:
    assert etag(7) == '"7"'
