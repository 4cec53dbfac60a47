"""Options that connections inherit from their listener."""

import socket
import sys

from moleport_wire.aio.socket_options import (
    KEEPALIVE_IDLE_SECONDS,
    NOTSENT_LOWAT_BYTES,
    tune_listener,
)


def test_connections_of_a_tuned_listener_inherit_its_options() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tune_listener(listener)
        visitor = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with visitor, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                assert accepted.getsockopt(socket.IPPROTO_TCP, 25) == NOTSENT_LOWAT_BYTES
                idle = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                assert idle == KEEPALIVE_IDLE_SECONDS
