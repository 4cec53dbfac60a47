"""Who asks the registry for what in tests, and what is in the store then."""

from helpers.edge_rig import DOMAIN, RegistryRig
from moleport_server.domain.token import Credential, Grant, Limits, Principal, Token
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.claim import Claim
from moleport_server.store.base import HistoryQuery, Lease, TunnelLogEntry

SHOP = Claim(protocol=TunnelProtocol.HTTP, subdomain="shop")
ANY_NAME = Claim(protocol=TunnelProtocol.HTTP)
ANY_PORT = Claim(protocol=TunnelProtocol.TCP)
HOST = f"shop.{DOMAIN}"


def principal(name: str = "1", *, grant: Grant | None = None, **limits: int) -> Principal:
    token = Token(
        id=f"token-{name}",
        label=f"laptop {name}",
        grant=grant or Grant(),
        limits=Limits(**limits),
        created_at=0.0,
    )
    return Principal(token=token, revision=1)


async def issue(rig: RegistryRig, who: Principal) -> Principal:
    """Store the token, as the API does, so that leases of it may be kept."""
    assert who.token is not None
    await rig.store.create_token(
        who.token, Credential(token_id=who.token.id, revision=1, sha256=who.token.id)
    )
    return who


async def leases(rig: RegistryRig) -> list[Lease]:
    await rig.written()
    return await rig.store.load_leases()


async def history(rig: RegistryRig) -> list[TunnelLogEntry]:
    await rig.written()
    rows, _ = await rig.store.query_history(HistoryQuery(now=rig.clock.now()))
    return rows


class Waiting:
    def __init__(self) -> None:
        self.ends: list[bool] = []

    def hold_ended(self, *, returned: bool) -> None:
        self.ends.append(returned)
