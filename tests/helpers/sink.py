"""A transport that keeps what is written: for pieces that a kernel would join."""

import asyncio


class Sink(asyncio.Transport):
    """The visitor's side of a connection without a socket."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.9", 4000)})
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass
