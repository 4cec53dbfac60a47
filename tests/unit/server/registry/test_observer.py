"""What the registry tells its observer, for each way in which things begin and end."""

from dataclasses import replace

import pytest

from helpers.edge_rig import RegistryRig, registry_rig
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import InvalidRequest, NameTaken, QuotaExceeded
from moleport_server.registry.claim import Claim
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import (
    ClaimResult,
    LeaseEnd,
    RegistryObserver,
    SessionEnd,
    TunnelEnd,
    Unobserved,
)

SHOP = Claim(protocol=TunnelProtocol.HTTP, subdomain="shop")


class Notes:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def session_opened(self, *, is_resumed: bool) -> None:
        self.words.append("session resumed" if is_resumed else "session opened")

    def session_ended(self, cause: SessionEnd) -> None:
        self.words.append(f"session {cause}")

    def tunnel_claimed(self, protocol: TunnelProtocol, result: ClaimResult) -> None:
        self.words.append(f"{protocol.value} claim {result}")

    def tunnel_ended(self, protocol: TunnelProtocol, cause: TunnelEnd, seconds: float) -> None:
        self.words.append(f"{protocol.value} {cause} after {seconds:g} s")

    def lease_ended(self, result: LeaseEnd) -> None:
        self.words.append(f"lease {result}")


async def open_shop(rig: RegistryRig) -> tuple[Notes, Session, Tunnel]:
    notes = Notes()
    observer: RegistryObserver = notes
    rig.registry.notices.observer = observer
    session = rig.session()
    tunnel = await rig.registry.claim(session, 1, SHOP)
    assert notes.words == ["session opened", "http claim opened"]
    notes.words.clear()
    return notes, session, tunnel


async def test_a_released_tunnel_is_told_with_its_age_and_a_goodbye_with_its_cause() -> None:
    async with registry_rig() as rig:
        notes, session, _ = await open_shop(rig)
        rig.clock.advance(7)
        rig.registry.unbind(session, 1, "done")
        rig.registry.lose_session(session, "bye", is_clean=True)

        assert notes.words == ["http unbound after 7 s", "session goodbye"]


async def test_a_lost_agent_that_comes_back_ends_its_lease() -> None:
    async with registry_rig() as rig:
        notes, session, _ = await open_shop(rig)
        rig.registry.lose_session(session, "cut", is_clean=False)
        again = rig.session(session_id=session.id, is_open=False)
        rig.registry.attach(again, rig.registry.resume_session(again))

        assert notes.words == [
            "session lost", "session resumed", "lease resumed", "http claim resumed",
        ]  # fmt: skip


async def test_an_agent_that_never_comes_back_loses_its_tunnel() -> None:
    async with registry_rig(lease_seconds=5.0) as rig:
        notes, session, _ = await open_shop(rig)
        rig.registry.lose_session(session, "broken frame", is_clean=True, cause=SessionEnd.PROTOCOL)
        rig.clock.advance(6)
        rig.registry._leases.end_due()

        assert notes.words == ["session protocol", "lease expired", "http lease_over after 6 s"]


async def test_a_tunnel_that_is_deleted_while_its_agent_is_away_releases_the_lease() -> None:
    async with registry_rig() as rig:
        notes, session, tunnel = await open_shop(rig)
        rig.registry.lose_session(session, "cut", is_clean=False)
        await rig.registry.close_tunnel(tunnel, "deleted")

        assert notes.words == ["session lost", "lease released", "http deleted after 0 s"]


async def test_a_session_that_takes_its_own_place_replaces_the_old_one() -> None:
    async with registry_rig() as rig:
        notes, session, _ = await open_shop(rig)
        rig.registry.resume_session(rig.session(session_id=session.id, is_open=False))

        assert notes.words == ["session replaced", "session resumed"]


@pytest.mark.parametrize(
    ("cause", "tunnel"),
    [(SessionEnd.CLOSED, "deleted"), (SessionEnd.REVOKED, "revoked")],
    ids=["by its owner", "by its token"],
)
async def test_closing_a_session_ends_its_tunnels_for_the_same_cause(
    cause: SessionEnd, tunnel: str
) -> None:
    async with registry_rig() as rig:
        notes, session, _ = await open_shop(rig)
        await rig.registry.close_session(session, "closed", cause=cause)

        assert notes.words == [f"http {tunnel} after 0 s", f"session {cause}"]


async def test_a_server_that_ends_drains_its_sessions_and_keeps_their_tunnels() -> None:
    async with registry_rig() as rig:
        notes, _, _ = await open_shop(rig)
        rig.registry.close("restarting")

        assert notes.words == ["session drained"]


async def test_a_refused_claim_is_told_by_its_kind() -> None:
    async with registry_rig(max_tunnels_per_session=2) as rig:
        notes, session, _ = await open_shop(rig)
        with pytest.raises(NameTaken):
            await rig.registry.claim(session, 2, SHOP)
        with pytest.raises(InvalidRequest):
            await rig.registry.claim(session, 3, replace(SHOP, subdomain="-"))
        await rig.registry.claim(session, 4, Claim(protocol=TunnelProtocol.TCP))
        with pytest.raises(QuotaExceeded):
            await rig.registry.claim(session, 5, Claim(protocol=TunnelProtocol.TCP))

        assert notes.words == [
            "http claim taken", "http claim invalid", "tcp claim opened", "tcp claim limited",
        ]  # fmt: skip


def test_a_registry_without_an_observer_counts_nothing_and_fails_nowhere() -> None:
    observer: RegistryObserver = Unobserved()

    observer.session_opened(is_resumed=False)
    observer.session_ended(SessionEnd.LOST)
    observer.tunnel_claimed(TunnelProtocol.HTTP, ClaimResult.OPENED)
    observer.tunnel_ended(TunnelProtocol.HTTP, TunnelEnd.DELETED, 1.0)
    observer.lease_ended(LeaseEnd.RESUMED)
