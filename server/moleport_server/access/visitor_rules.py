"""Visitor rules as an agent sends them: untrusted JSON, checked once when a tunnel is bound.

What a rule may cost is bounded here (how many users and networks, how expensive a hash), so that
the edge can apply it without further questions.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Final

from moleport_server.domain.tunnel import BasicCredential, IPNetwork, VisitorRules
from moleport_server.errors import InvalidRequest
from moleport_wire.passwords import PasswordHashError, parse_hash

MAX_USERS: Final = 32
MAX_NETWORKS: Final = 256
MAX_USER_BYTES: Final = 128


def parse_rules(basic_auth: object = None, allowed_cidrs: object = None) -> VisitorRules:
    """Return the rules; None is unrestricted, and an empty list lets nobody pass.

    Args:
        basic_auth: list of objects with `user` and `hash` (PHC string), or None.
        allowed_cidrs: list of networks or addresses as text, or None.

    Raises:
        InvalidRequest: anything else; the text says where and what, and never quotes a hash.
    """
    return VisitorRules(
        basic_auth=None if basic_auth is None else _parse_users(basic_auth),
        allowed_cidrs=None if allowed_cidrs is None else _parse_networks(allowed_cidrs),
    )


def _parse_users(value: object) -> tuple[BasicCredential, ...]:
    credentials: dict[str, BasicCredential] = {}
    for index, entry in enumerate(_list("basic_auth", value, MAX_USERS)):
        where = f"basic_auth[{index}]"
        if not isinstance(entry, Mapping) or set(entry) != {"user", "hash"}:
            raise InvalidRequest(f"{where} must be an object with user and hash")
        user, phc = entry["user"], entry["hash"]
        if not isinstance(user, str) or not is_user_name(user):
            raise InvalidRequest(
                f"{where}.user must be text of 1 to {MAX_USER_BYTES} bytes without colon"
                " or control characters"
            )
        if user in credentials:
            raise InvalidRequest(f"{where}.user: {user!r} is given twice")
        if not isinstance(phc, str):
            raise InvalidRequest(f"{where}.hash must be text")
        try:
            # Written anew: one spelling per hash, whatever the agent sent.
            password_hash = str(parse_hash(phc))
        except PasswordHashError as error:
            raise InvalidRequest(f"{where}.hash: {error}") from error
        credentials[user] = BasicCredential(user=user, password_hash=password_hash)
    return tuple(credentials.values())


def _parse_networks(value: object) -> tuple[IPNetwork, ...]:
    networks: dict[IPNetwork, None] = {}
    for index, entry in enumerate(_list("allowed_cidrs", value, MAX_NETWORKS)):
        if not isinstance(entry, str):
            raise InvalidRequest(f"allowed_cidrs[{index}] must be text")
        try:
            networks[ip_network(entry)] = None
        except ValueError as error:
            # Says also that host bits are set, which is worth a look: 10.0.0.1/8 is a slip.
            raise InvalidRequest(f"allowed_cidrs[{index}]: {error}") from error
    return tuple(networks)


def _list(name: str, value: object, most: int) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise InvalidRequest(f"{name} must be a list")
    if len(value) > most:
        raise InvalidRequest(f"{name} has more than {most} entries")
    return value


def is_user_name(user: str) -> bool:
    """Whether the text can be a user of basic authentication (RFC 7617)."""
    if not user or ":" in user or not user.isprintable():
        return False
    # Printable text has no lone surrogates, so this cannot fail.
    return len(user.encode()) <= MAX_USER_BYTES
