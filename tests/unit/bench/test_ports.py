import socket
from collections.abc import Iterator

import pytest

from moleport_bench.ports import Ports, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    # Below the ports of outgoing connections, which would come and go around it.
    port = Ports(26_000, 31_000).block(4)
    with socket.create_server(("127.0.0.1", port)):
        yield port


def test_a_port_with_a_listener_is_not_free(taken: int) -> None:
    assert not is_free(taken)


def test_no_port_is_given_twice() -> None:
    ports = Ports()

    given = [ports.one() for _ in range(20)]

    assert len(set(given)) == 20


def test_a_block_skips_what_is_taken(taken: int) -> None:
    ports = Ports(taken, taken + 200)

    first = ports.block(3)

    assert first > taken


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OSError, match="in a row"):
        Ports(12_000, 12_005).block(10)
