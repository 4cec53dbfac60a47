"""What a BIND of a container port asks for, from stock clients and from our own agent."""

from typing import Final

from moleport_server.agents.hoody.refusals import InvalidHost, InvalidKind
from moleport_server.domain.tunnel import ContainerMode, TunnelProtocol
from moleport_server.registry.claim import Claim
from moleport_server.registry.container_ports import ContainerClaim, Contest
from moleport_wire.hoody import messages

LOOPBACKS: Final = ("127.0.0.1", "::1")


def container_claim(bind: messages.Bind, otherwise: Contest) -> Claim:
    """Return the claim of a BIND.

    Args:
        bind: as received.
        otherwise: what happens to a port that somebody has, without `takeover`.

    Raises:
        InvalidHost: a PULL somewhere else than on loopback.
        InvalidKind: neither HTTP EXPOSE nor TCP PULL, or a takeover of a PULL.
    """
    if (bind.kind, bind.mode) == ("http", "expose"):
        mode, protocol = ContainerMode.EXPOSE, TunnelProtocol.HTTP
    elif (bind.kind, bind.mode) == ("tcp", "pull"):
        mode, protocol = ContainerMode.PULL, TunnelProtocol.TCP
    else:
        raise InvalidKind(f"kind {bind.kind!r} with mode {bind.mode!r} cannot be bound")
    is_pull = mode is ContainerMode.PULL
    if bind.takeover and is_pull:
        raise InvalidKind("a PULL cannot be taken over")
    loopback = bind.host or LOOPBACKS[0]
    if is_pull and loopback not in LOOPBACKS:
        raise InvalidHost(f"a PULL listens on {' or '.join(LOOPBACKS)}, not on {loopback!r}")
    return Claim(
        protocol=protocol,
        container=ContainerClaim(
            mode=mode,
            port=bind.container_port,
            loopback=loopback,
            contest=Contest.TAKE if bind.takeover else otherwise,
            name=None if is_pull else bind.label,
        ),
    )
