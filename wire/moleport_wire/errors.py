"""Errors of the wire, classified by who broke what.

    WireError
      ProtocolError(code, reason)     a rule of the protocol was broken
        LocalProtocolError              by our caller: a bug, never sent to the peer
        RemoteProtocolError             by the peer: answer with GOAWAY `code`, then close
      SessionRefused(code, reason)    the peer ended the session before or after it was live
      StreamBusy(reason)              no stream can be opened now; one may be later
      TransportLost(reason)           the connection broke without a word

The parser raises `RemoteProtocolError` and nothing else for whatever bytes the peer sends.
"""


class WireError(Exception):
    """Root of every error that the wire raises on purpose."""


class ProtocolError(WireError):
    """A rule of the protocol was broken; `code` is the code for RESET or GOAWAY."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class LocalProtocolError(ProtocolError):
    """Our own side called something that is not legal in this state."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that is not legal; the session cannot go on."""


class SessionRefused(WireError):
    """The peer ended the session, and said why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StreamBusy(WireError):
    """No stream can be opened now, because too many are or wait to be; try again later."""


class TransportLost(WireError):
    """The connection is gone without an orderly end."""
