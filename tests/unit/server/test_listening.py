import socket
from pathlib import Path
from types import FunctionType

import pytest

from moleport_server.config.values import Endpoint
from moleport_server.listening import AddressesRefused, BoundListeners, bind_listener
from moleport_wire.aio.socket_options import tune_listener

LOOPBACK = "127.0.0.1"


@pytest.fixture
def free() -> Endpoint:
    with socket.create_server((LOOPBACK, 0)) as sock:
        return Endpoint(LOOPBACK, sock.getsockname()[1])


def test_a_visitor_waits_in_the_backlog_until_somebody_accepts(free: Endpoint) -> None:
    bound = BoundListeners.bind({"edge_http": free})

    with socket.create_connection((LOOPBACK, free.port), timeout=20) as visitor:
        visitor.sendall(b"early")
        with bound.take(free) as listening:
            listening.settimeout(20)
            conn, _ = listening.accept()
            with conn:
                conn.settimeout(20)
                assert conn.recv(5) == b"early"


def test_what_was_not_bound_early_is_bound_when_it_is_taken(free: Endpoint) -> None:
    with BoundListeners().take(free) as listening:
        assert listening.getsockname() == (LOOPBACK, free.port)


def test_an_address_is_taken_once(free: Endpoint) -> None:
    bound = BoundListeners.bind({"api": free})

    with bound.take(free), pytest.raises(OSError, match="in use"):
        bound.take(free)


def test_one_refused_address_frees_the_others_and_all_are_told(free: Endpoint) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        wanted = {
            "edge_http": free,
            "control": Endpoint(LOOPBACK, port),
            "api": Endpoint("192.0.2.1", free.port),
        }
        with pytest.raises(AddressesRefused) as caught:
            BoundListeners.bind(wanted)

    assert list(caught.value.refused) == ["control", "api"]
    assert f"port {port} for control is in use" in caught.value.refused["control"]
    assert "api cannot listen on 192.0.2.1" in caught.value.refused["api"]
    bind_listener(free).close()


def test_what_nobody_took_is_closed(free: Endpoint) -> None:
    bound = BoundListeners.bind({"api": free})

    bound.close()
    bound.close()

    bind_listener(free).close()


def test_of_addresses_that_may_be_taken_the_free_ones_are_bound(free: Endpoint) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        other = Endpoint(LOOPBACK, taken.getsockname()[1])
        bound = BoundListeners.bind_free([other, free])

        with bound.take(free) as listening:
            assert listening.getsockname() == (LOOPBACK, free.port)
        with pytest.raises(OSError, match="in use"):
            bound.take(other)


@pytest.mark.parametrize("function", [bind_listener, tune_listener])
def test_the_module_reads_nothing_slow(function: FunctionType) -> None:
    source = Path(function.__code__.co_filename).read_text(encoding="utf-8")
    imported = {
        line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))
    }

    assert imported <= {
        "__future__",
        "errno",
        "socket",
        "collections.abc",
        "contextlib",
        "typing",
        "moleport_server.config.values",
        "moleport_wire.aio.socket_options",
    }
