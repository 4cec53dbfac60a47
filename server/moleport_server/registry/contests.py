"""Contests: who gets an address that somebody has already.

The rules of names and TCP ports: another token never gets it; a wish never takes it from a live agent;
asking by name takes it from an agent of the same token that is gone without a goodbye, or that is the
same machine. Two live agents of one token on different machines take it from each other once in a
while only. Stock clients of container ports have rules of their own (`Contest`).
"""

from collections.abc import Callable
from typing import Final

from moleport_server.clock import Clock
from moleport_server.errors import NameTaken
from moleport_server.registry.container_ports import ContainerClaim, Contest
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.tunnels import Tunnels

PROBE_SECONDS: Final = 2.0
"""How long a session that seems alive may take to answer before its name is given away."""
TAKEOVER_PAUSE_SECONDS: Final = 60.0
"""Two live agents of one token on different machines must not evict each other for ever."""


def is_to_be_had(tunnel: Tunnel | None, token_id: str | None, *, is_wish: bool) -> bool:
    """Whether a token could have the address of `tunnel`, be it by taking over its own.

    Args:
        tunnel: who has it now; None: nobody.
        token_id: of who asks.
        is_wish: whether another address would do; that never evicts a live agent.
    """
    if tunnel is None:
        return True
    if tunnel.token_id != token_id:
        return False
    return not is_wish or (tunnel.session is None and not tunnel.is_opening)


class Contests:
    """Frees addresses for those who may have them."""

    def __init__(self, tunnels: Tunnels, clock: Clock, is_live: Callable[[Session], bool]) -> None:
        self._tunnels = tunnels
        self._is_live = is_live
        self._clock = clock

    async def settle(self, tunnel: Tunnel, session: Session, text: str) -> None:
        """Free a tunnel of the same token from its live session, if the rules of names allow it.

        Waits for an answer of whoever has it, and again if somebody else was quicker. When it returns, the
        tunnel is free, or gone, and somebody else's may have its address.

        Raises:
            NameTaken: another token's, or its agent is alive elsewhere and was evicted lately.
        """
        if tunnel.token_id != session.principal.token_id:
            raise NameTaken(text)
        while (owner := tunnel.owner) is not None:
            if owner is session:
                raise NameTaken(f"{text} by this agent")
            if tunnel.session is not None and owner.peer_host != session.peer_host:
                is_alive = await owner.upstream.is_alive(PROBE_SECONDS)
                if not self._is_live(session):
                    raise NameTaken("the session ended meanwhile")
                if tunnel.session is not owner:
                    continue
                if is_alive:
                    now = self._clock.monotonic()
                    if was_evicted_lately(tunnel, now):
                        raise NameTaken(f"{text} by another agent of this token")
                    tunnel.evicted_at = now
            self._tunnels.evict(tunnel, "another agent of this token took the address over")
        _check_opened(tunnel, text)

    async def settle_container_port(
        self, tunnel: Tunnel, session: Session, wanted: ContainerClaim
    ) -> None:
        """Free a container port for a claim that may have it.

        Raises:
            NameTaken: whoever has it keeps it.
        """
        text = f"port {wanted.port} is already bound"
        container = tunnel.container
        if container is None or container.mode is not wanted.mode:
            raise NameTaken(text)
        if wanted.contest is Contest.RETURN:
            await self.settle(tunnel, session, text)
            return
        if wanted.contest is Contest.REFUSE or tunnel.token_id != session.principal.token_id:
            raise NameTaken(text)
        if tunnel.owner is session:
            raise NameTaken(f"{text} by this client")
        _check_opened(tunnel, text)
        self._tunnels.evict(tunnel, "taken over by another session")


def _check_opened(tunnel: Tunnel, text: str) -> None:
    if tunnel.is_opening:
        raise NameTaken(f"{text}: somebody is just being given it")


def was_evicted_lately(tunnel: Tunnel, now: float) -> bool:
    """Whether the address changed hands between live agents a moment ago."""
    return tunnel.evicted_at is not None and now - tunnel.evicted_at < TAKEOVER_PAUSE_SECONDS
