"""The one table from server errors to what a rustunnel client is told about a registration.

Clients up to 0.8.0 ask again after any of these, later ones give up; so nothing is refused here that a
moment later would work.
"""

from moleport_server.domain.token import Principal
from moleport_server.errors import ConflictError, PortTaken, QuotaExceeded, ServerError
from moleport_wire.rustunnel import texts

SESSION_LIMIT = "limit exceeded: session "
"""How the registry begins the text about the limit of a session, which is that of this family."""


def registration_refusal(error: ServerError, subdomain: str | None, principal: Principal) -> str:
    """Return the text of `tunnel_error`."""
    text = str(error)
    match error:
        case PortTaken():
            return texts.NO_TCP_PORTS
        case ConflictError() if subdomain is not None:
            return texts.name_taken(subdomain)
        case QuotaExceeded() if text.startswith(SESSION_LIMIT):
            return text
        case QuotaExceeded() if principal.token and principal.token.limits.max_tunnels is not None:
            return texts.token_limit(principal.token.limits.max_tunnels)
        case _:
            return f"tunnel error: {text}"


def unsupported_protocol(protocol: str) -> str:
    """Return the text of `tunnel_error` for a protocol that this server does not forward."""
    if protocol == "p2p":
        return texts.P2P_DISABLED
    shown = protocol[:32]
    return f"{texts.UNSUPPORTED_PROTOCOL} '{shown}': this server forwards http, https and tcp"
