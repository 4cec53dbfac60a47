"""Waiting for what other processes do, each time with a deadline."""

import http.client
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from moleport_bench.address import Address
from moleport_bench.errors import NotReady

START_SECONDS = 30.0
REQUEST_SECONDS = 3.0
STEP_SECONDS = 0.02


class Answer(NamedTuple):
    """Status and body; status 0 when there was no answer."""

    status: int
    body: bytes


def fetch(address: Address, path: str = "/", *, seconds: float = REQUEST_SECONDS) -> Answer:
    """Send one GET on a connection of its own; nobody's certificate is checked."""
    if address.tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", address.port, timeout=seconds, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=seconds)
    try:
        connection.request("GET", path, headers={"Host": address.host})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read())
    except (OSError, http.client.HTTPException):
        return Answer(0, b"")
    finally:
        connection.close()


def get(address: Address, path: str = "/") -> int:
    """Return the status of a GET, 0 without an answer."""
    return fetch(address, path).status


def wait_until(
    condition: Callable[[], bool],
    what: str,
    *,
    seconds: float = START_SECONDS,
    words: Callable[[], str] = str,
) -> None:
    """Wait until something is so.

    Args:
        condition: asked every 20 ms.
        what: for the message.
        seconds: the deadline.
        words: what to tell besides when it never is so.

    Raises:
        NotReady: the deadline has passed.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotReady(f"{what} not ready within {seconds:g} s {words()}".rstrip())
        time.sleep(STEP_SECONDS)
