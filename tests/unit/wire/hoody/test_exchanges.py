import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.exchanges import (
    ExchangeOpen,
    HeadTooLarge,
    ResponseHead,
    encode_tcp_open,
)
from moleport_wire.hoody.frames import MAX_PAYLOAD_BYTES

names = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", fullmatch=True)
values = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=40)
fields = st.lists(st.tuples(names, values), max_size=5).map(tuple)


def test_a_request_is_written_as_drivers_read_it() -> None:
    opened = ExchangeOpen(
        method="GET",
        target="/ü?a",
        fields=(("host", "pod"), ("cookie", "a"), ("cookie", "b")),
        is_upgrade=True,
        bind_id=7,
    )

    assert json.loads(opened.encode()) == {
        "kind": "http",
        "method": "GET",
        "target": "/ü?a",
        "headers": [["host", "pod"], ["cookie", "a"], ["cookie", "b"]],
        "isUpgrade": True,
        "bindId": 7,
    }
    assert ExchangeOpen.decode(opened.encode()) == opened


def test_a_tcp_connection_says_no_more_than_its_kind_and_bind() -> None:
    assert json.loads(encode_tcp_open(3)) == {"kind": "tcp", "bindId": 3}


def test_a_head_has_to_fit_into_one_frame() -> None:
    def opened(size: int) -> ExchangeOpen:
        return ExchangeOpen(method="GET", target="/", fields=(("a", "x" * size),), bind_id=1)

    room = MAX_PAYLOAD_BYTES - len(opened(0).encode())

    assert len(opened(room).encode()) == MAX_PAYLOAD_BYTES
    with pytest.raises(HeadTooLarge):
        opened(room + 1).encode()


@given(status=st.integers(100, 599), fields=fields)
def test_an_answer_reads_as_it_was_written(
    status: int, fields: tuple[tuple[str, str], ...]
) -> None:
    head = ResponseHead(status=status, fields=fields)

    assert ResponseHead.decode(head.encode()) == head


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"status": 99, "headers": []},
        {"status": 600, "headers": []},
        {"status": "200", "headers": []},
        {"status": True, "headers": []},
        {"status": 200},
        {"status": 200, "headers": {}},
        {"status": 200, "headers": ["a: b"]},
        {"status": 200, "headers": [["a"]]},
        {"status": 200, "headers": [["a", "b", "c"]]},
        {"status": 200, "headers": [["a", 1]]},
        {"status": 200, "headers": [["", "b"]]},
        {"status": 200, "headers": [["a b", "c"]]},
        {"status": 200, "headers": [["a:", "c"]]},
        {"status": 200, "headers": [["a", "c\r\nd: e"]]},
        {"status": 200, "headers": [["a", "c\0"]]},
        {"status": 200, "headers": [["a", "b"]] * 1001},
    ],
    ids=str,
)
def test_an_answer_that_http_does_not_know_is_refused(members: object) -> None:
    with pytest.raises(RemoteProtocolError):
        ResponseHead.decode(json.dumps(members).encode())
