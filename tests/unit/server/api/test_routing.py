import pytest
from aiohttp.test_utils import make_mocked_request

from moleport_server.api.routing import Call, NoQuery
from moleport_server.domain.token import ADMIN
from moleport_server.errors import Unauthenticated


def test_a_public_call_has_no_principal() -> None:
    request = make_mocked_request("GET", "/")

    assert Call(request, ADMIN, NoQuery(), None).principal is ADMIN
    with pytest.raises(Unauthenticated) as caught:
        _ = Call(request, None, NoQuery(), None).principal
    assert caught.value.missing
