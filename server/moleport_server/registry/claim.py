"""What an agent asks for in one BIND, whatever protocol it speaks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moleport_server.access.visitor_rules import parse_rules
from moleport_server.domain.tunnel import OPEN, TunnelProtocol, VisitorRules
from moleport_server.registry.container_ports import ContainerClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The wish for one tunnel."""

    protocol: TunnelProtocol
    hostname: str | None = None
    """Full name; excludes `subdomain`."""
    subdomain: str | None = None
    port: int | None = None
    container: ContainerClaim | None = None
    """A container port instead of a name or port of its own."""
    is_wish: bool = False
    """Another name or port will do when this one is not to be had."""
    basic_auth: tuple[tuple[str, str], ...] | None = None
    """User and PHC hash."""
    allowed_cidrs: tuple[str, ...] | None = None
    host_header: str | None = None
    keepsake: str | None = None
    """What the agent will be known by when it wants an address back that was drawn for it."""

    @property
    def rules(self) -> VisitorRules:
        """The visitor rules that it asks for.

        Raises:
            InvalidRequest: they make no sense.
        """
        return wished_rules(self.basic_auth, self.allowed_cidrs)


def wished_rules(
    users: Iterable[tuple[str, str]] | None, cidrs: Iterable[str] | None
) -> VisitorRules:
    """Return the visitor rules of an agent's wish, checked.

    Raises:
        InvalidRequest: they make no sense.
    """
    if users is None and cidrs is None:
        return OPEN
    return parse_rules(
        basic_auth=None if users is None else [{"user": u, "hash": h} for u, h in users],
        allowed_cidrs=None if cidrs is None else list(cidrs),
    )
