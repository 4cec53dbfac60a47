"""A visitor that downloads as fast as it can until the block ends, and counts what comes."""

import contextlib
import re
import socket
import threading
import time
from types import TracebackType
from typing import Self

from moleport_bench.address import Address
from moleport_bench.bulk_transfer import MEGABYTE
from moleport_bench.errors import LoadError

BUFFER_BYTES = 1 << 18
PATIENCE_SECONDS = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class FullSpeedReader:
    """Asks for the same file again and again on one connection.

    A thread is enough: reading from a socket does not hold the interpreter.
    """

    def __init__(self, address: Address, path: str) -> None:
        self._address = address
        self._path = path
        self._socket = socket.create_connection(("127.0.0.1", address.port), PATIENCE_SECONDS)
        self._thread = threading.Thread(target=self._run, name="full speed reader", daemon=True)
        self._is_over = False
        self._bytes = 0
        self._began = 0.0
        self._failure: str | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_SECONDS)
        self._socket.close()

    def begin(self) -> None:
        """Count from now on."""
        self._bytes, self._began = 0, time.perf_counter()

    def speed(self) -> float:
        """Return the megabytes per second since `begin`.

        Raises:
            LoadError: the download has ended, so that nothing was beside the small requests.
        """
        if self._failure is not None:
            raise LoadError(f"the download ended: {self._failure}")
        return self._bytes / (time.perf_counter() - self._began) / MEGABYTE

    def _run(self) -> None:
        try:
            while not self._is_over:
                self._read_one()
        except (OSError, LoadError) as error:
            if not self._is_over:
                self._failure = str(error) or type(error).__name__

    def _read_one(self) -> None:
        self._socket.sendall(self._address.head(self._path))
        head = b""
        while b"\r\n\r\n" not in head:
            came = self._socket.recv(4096)
            if not came:
                raise LoadError("closed before an answer")
            head += came
        head, _, body = head.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if b" 200 " not in head[:20] or length is None:
            raise LoadError(f"unexpected answer {head[:60]!r}")
        left = int(length[1]) - len(body)
        buffer = memoryview(bytearray(BUFFER_BYTES))
        while left > 0:
            count = self._socket.recv_into(buffer, min(left, BUFFER_BYTES))
            if not count:
                raise LoadError("closed within an answer")
            self._bytes += count
            left -= count
