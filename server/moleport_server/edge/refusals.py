"""Everything that the edge answers by itself: one table for all protocols.

Each case has a code for programs (`X-Moleport-Error`), a status, and sentences for people that say
what happened, on whose side, and what to do. `pages` renders them, `docs/reference/errors.md` is
made from them.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Side(Enum):
    """Where on the way from visitor to service it went wrong."""

    VISITOR = "your request"
    SERVER = "the tunnel server"
    AGENT = "the agent"
    SERVICE = "the service behind the tunnel"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is always the same about one case."""

    code: str
    status: int
    side: Side
    title: str
    happened: str
    advice: str
    retry_after: int | None = None
    """Seconds; None sends no Retry-After unless the caller has a number."""


class Refusal(Enum):
    """The cases, by status."""

    BAD_REQUEST = Facts(
        "bad-request",
        400,
        Side.VISITOR,
        "Malformed request",
        "The request breaks a rule of HTTP, so it was not passed on.",
        "Check the program that sent it, and any proxy before it.",
    )
    AUTH_REQUIRED = Facts(
        "auth-required",
        401,
        Side.VISITOR,
        "Sign in to continue",
        "The owner of this tunnel asks for a user name and a password.",
        "Ask the owner for them and try again.",
    )
    ADDRESS_DENIED = Facts(
        "address-denied",
        403,
        Side.VISITOR,
        "Not from this address",
        "The owner of this tunnel does not let visitors in from your network.",
        "Ask the owner to allow your address.",
    )
    TLS_REQUIRED = Facts(
        "tls-required",
        403,
        Side.VISITOR,
        "Only by https",
        "The owner of this tunnel lets visitors in by https only.",
        "Use the same address with https:// in front.",
    )
    HTTP_DENIED = Facts(
        "http-denied",
        403,
        Side.SERVER,
        "Closed by a policy",
        "The policies of this tunnel contradict each other, or ask for passwords that are missing.",
        "If it is yours, look at what `effective` says about its token.",
    )
    TUNNEL_NOT_FOUND = Facts(
        "tunnel-not-found",
        404,
        Side.SERVER,
        "No tunnel here",
        "No tunnel has this name. It may be misspelt, or the tunnel is closed.",
        "Check the address. If it is yours, start the agent.",
    )
    METHOD_NOT_ALLOWED = Facts(
        "method-not-allowed",
        405,
        Side.VISITOR,
        "Method not allowed",
        "Tunnels do not pass CONNECT requests on.",
        "Use a TCP tunnel for anything that is not HTTP.",
    )
    REQUEST_TIMEOUT = Facts(
        "request-timeout",
        408,
        Side.VISITOR,
        "Request too slow",
        "The request did not arrive completely in time.",
        "Check your connection and try again.",
    )
    BODY_TOO_LARGE = Facts(
        "body-too-large",
        413,
        Side.VISITOR,
        "Body too large",
        "The body of the request is larger than this tunnel allows.",
        "Send less, or ask the operator of the tunnel server to raise the limit.",
    )
    RATE_LIMITED = Facts(
        "rate-limited",
        429,
        Side.VISITOR,
        "Too many requests",
        "Requests come faster than allowed.",
        "Wait a moment and try again.",
        1,
    )
    HEAD_TOO_LARGE = Facts(
        "head-too-large",
        431,
        Side.VISITOR,
        "Headers too large",
        "The headers of the request are larger than allowed.",
        "Delete the cookies of this site and try again.",
    )
    UPSTREAM_REFUSED = Facts(
        "upstream-refused",
        502,
        Side.SERVICE,
        "The service is not running",
        "The agent is connected, but the service behind it refused the connection.",
        "If it is yours, start it and check the port that the agent was given.",
    )
    UPSTREAM_LOST = Facts(
        "upstream-lost",
        502,
        Side.SERVICE,
        "The service hung up",
        "The service behind the tunnel closed the connection before it answered.",
        "Try again. If it is yours, its log should tell more.",
    )
    UPSTREAM_MALFORMED = Facts(
        "upstream-malformed",
        502,
        Side.SERVICE,
        "The service answered nonsense",
        "The answer of the service behind the tunnel is not valid HTTP.",
        "If it is yours, check that it speaks HTTP on this port, and not HTTPS.",
    )
    AGENT_AWAY = Facts(
        "agent-away",
        503,
        Side.AGENT,
        "The agent is away",
        "This tunnel exists, but its agent is not connected at the moment.",
        "Try again in a few seconds. If it is yours, check the agent and its network.",
        5,
    )
    BUSY = Facts(
        "busy",
        503,
        Side.SERVER,
        "Busy",
        "The tunnel has as many open requests as it can take.",
        "Try again in a moment.",
        1,
    )
    DRAINING = Facts(
        "draining",
        503,
        Side.SERVER,
        "Restarting",
        "The tunnel server is shutting down.",
        "Try again in a few seconds.",
        5,
    )
    UPSTREAM_TIMEOUT = Facts(
        "upstream-timeout",
        504,
        Side.SERVICE,
        "No answer in time",
        "The service behind the tunnel did not answer in time.",
        "Try again later. If it is yours, look at what it is waiting for.",
    )
    HTTP_VERSION = Facts(
        "http-version",
        505,
        Side.VISITOR,
        "HTTP version not supported",
        "Only HTTP/1.0 and HTTP/1.1 are understood here.",
        "Use another client.",
    )

    @property
    def code(self) -> str:
        """The value of `X-Moleport-Error`, also for metrics and logs."""
        return self.value.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value.status


REASON_PHRASES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
"""RFC 9110 and RFC 6585; Python's own table follows its version."""
