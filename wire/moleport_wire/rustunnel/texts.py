"""What rustunnel's server says to clients, byte for byte: people and scripts know these texts.

Registration texts carry their own prefix, and clients put another before them. Clients before 0.8.0
give up for good when an error that they would retry holds the letters "auth" or "Auth"; `retried` keeps
such letters apart where they come from a name.
"""

from typing import Final
from uuid import UUID

# auth_error: final for every client.
EXPECTED_AUTH: Final = "expected Auth frame"
INVALID_TOKEN: Final = "invalid token"  # noqa: S105 - a text, no secret
TOO_MANY_FAILURES: Final = "too many failed auth attempts"

# tunnel_error.
NO_TCP_PORTS: Final = "no TCP ports available"
UNSUPPORTED_PROTOCOL: Final = "unsupported protocol"
TOKEN_SUSPENDED: Final = "token is suspended or revoked"  # noqa: S105 - a text, no secret
TOKEN_EXPIRED: Final = "token has expired"  # noqa: S105 - a text, no secret
P2P_DISABLED: Final = "P2P tunnels are not enabled on this server"
"""Also in p2p_error."""


def name_taken(subdomain: str) -> str:
    """Return the text for a subdomain that somebody else has."""
    return f"tunnel error: subdomain '{subdomain}' is already in use"


def name_length(subdomain: str) -> str:
    """Return the text for a subdomain that is not 3 to 63 bytes long."""
    # The en dash is the family's.
    return f"tunnel error: subdomain '{subdomain}' must be 3–63 characters long"


def name_hyphen(subdomain: str) -> str:
    """Return the text for a subdomain with a hyphen at an end."""
    return f"tunnel error: subdomain '{subdomain}' must not start or end with a hyphen"


def name_characters(subdomain: str) -> str:
    """Return the text for a subdomain with other characters."""
    return f"tunnel error: subdomain '{subdomain}' may only contain letters, digits, and hyphens"


def session_limit(session_id: UUID, tunnels: int, limit: int) -> str:
    """Return the text for one tunnel too many in a session."""
    return f"limit exceeded: session {session_id} already has {tunnels} tunnels (max {limit})"


def session_gone(session_id: UUID) -> str:
    """Return the text for a session that ended meanwhile."""
    return f"session not found: {session_id}"


def token_limit(limit: int) -> str:
    """Return the text for one tunnel too many of a token."""
    return f"tunnel limit of {limit} reached"


def group_key_differs(subdomain: str) -> str:
    """Return the text for a group member with another key than the group's."""
    return f"tunnel error: group key does not match existing group for subdomain '{subdomain}'"


def retried(text: str) -> str:
    """Return a text that no client takes for a failed authentication.

    Only letters inside names are affected; a zero-width space keeps them readable.
    """
    return text.replace("auth", "a\u200buth").replace("Auth", "A\u200buth")
