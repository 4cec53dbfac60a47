"""Container ports: which may be bound, who gets one that is taken, and what a restart remembers."""

from typing import Any

import pytest

from helpers.edge_rig import DOMAIN, RegistryRig, registry_rig
from helpers.upstream import ScriptedUpstream
from moleport_server.domain.token import ADMIN, Grant, Principal, Token
from moleport_server.domain.tunnel import ContainerMode, TunnelProtocol
from moleport_server.errors import (
    Forbidden,
    InvalidRequest,
    NameTaken,
    PortPrivileged,
    PortReserved,
    PortTaken,
    QuotaExceeded,
    UnavailableError,
)
from moleport_server.registry.claim import Claim
from moleport_server.registry.container_ports import (
    ContainerClaim,
    ContainerPorts,
    ContainerPortSettings,
    Contest,
)
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import SessionEnd
from moleport_server.store.base import StateStore
from moleport_server.store.memory import MemoryStateStore

EXPOSE, PULL = ContainerMode.EXPOSE, ContainerMode.PULL
SETTINGS = ContainerPortSettings(
    expose=True,
    pull=True,
    random_ports=(30_000, 30_003),
    reserved=((20_000, 20_099), (4040, 4040)),
    hostname="port-{port}",
)
ON: Any = {"container_ports": SETTINGS}


def principal(grant: Grant | None = None) -> Principal:
    return Principal(
        token=Token(id="t-1", label="ci", grant=grant or Grant(), created_at=0.0), revision=1
    )


def wish(
    port: int = 30_000,
    *,
    mode: ContainerMode = EXPOSE,
    contest: Contest = Contest.REFUSE,
    name: str | None = None,
) -> Claim:
    return Claim(
        protocol=TunnelProtocol.HTTP if mode is EXPOSE else TunnelProtocol.TCP,
        container=ContainerClaim(mode=mode, port=port, contest=contest, name=name),
    )


async def claim(rig: RegistryRig, session: Session, wanted: Claim, bind_id: int = 1) -> Tunnel:
    return await rig.registry.claim(session, bind_id, wanted)


# Numbers


@pytest.mark.parametrize(
    ("mode", "port", "error"),
    [
        (EXPOSE, 1, PortPrivileged),
        (EXPOSE, 79, PortPrivileged),
        (EXPOSE, 80, None),
        (EXPOSE, 1023, None),
        (PULL, 79, PortPrivileged),
        (PULL, 80, PortPrivileged),
        (PULL, 1024, None),
        (EXPOSE, 4040, PortReserved),
        (PULL, 20_050, PortReserved),
        (EXPOSE, 65_535, None),
        (EXPOSE, 65_536, InvalidRequest),
        (EXPOSE, -1, InvalidRequest),
    ],
)
def test_which_ports_may_be_asked_for(
    mode: ContainerMode, port: int, error: type[Exception] | None
) -> None:
    settings = ContainerPortSettings(
        reserved=((20_000, 20_099), (4040, 4040)), privileged_expose=True
    )
    ports = ContainerPorts(settings, lambda _: 0)

    if error is None:
        ports.check(ADMIN, mode, port)
    else:
        with pytest.raises(error):
            ports.check(ADMIN, mode, port)


@pytest.mark.parametrize(
    ("grant", "mode", "is_allowed"),
    [
        (Grant(), EXPOSE, True),
        (Grant(container_ports=((30_000, 30_001),)), EXPOSE, True),
        (Grant(container_ports=((1, 2),)), EXPOSE, False),
        (Grant(container_ports=()), EXPOSE, False),
        (Grant(protocols=(TunnelProtocol.HTTP,)), EXPOSE, True),
        (Grant(protocols=(TunnelProtocol.HTTP,)), PULL, False),
        (Grant(protocols=(TunnelProtocol.TCP,)), PULL, True),
        (Grant(protocols=(TunnelProtocol.TCP,)), EXPOSE, False),
    ],
)
def test_a_grant_names_ports_and_protocols(
    grant: Grant, mode: ContainerMode, is_allowed: bool
) -> None:
    ports = ContainerPorts(SETTINGS, lambda _: 0)

    if is_allowed:
        ports.check(principal(grant), mode, 30_000)
        assert ports.draw(principal(grant), mode, ()) == 30_000
    else:
        with pytest.raises(Forbidden):
            ports.check(principal(grant), mode, 30_000)
        with pytest.raises(Forbidden):
            ports.draw(principal(grant), mode, ())


def test_a_drawn_port_is_neither_reserved_nor_taken_nor_avoided() -> None:
    settings = ContainerPortSettings(random_ports=(30_000, 30_003), reserved=((30_000, 30_000),))
    ports = ContainerPorts(settings, lambda _: 0)

    assert ports.draw(ADMIN, EXPOSE, {30_001}) == 30_002
    with pytest.raises(UnavailableError):
        ports.draw(ADMIN, EXPOSE, {30_001, 30_002, 30_003})


@pytest.mark.parametrize(
    ("settings", "mode", "is_on"),
    [
        (ContainerPortSettings(), EXPOSE, False),
        (ContainerPortSettings(hostname="port-{port}"), EXPOSE, True),
        (ContainerPortSettings(expose=True), EXPOSE, True),
        (ContainerPortSettings(expose=True), PULL, False),
        (ContainerPortSettings(pull=True), PULL, True),
    ],
)
def test_what_a_server_does_not_offer_is_refused(
    settings: ContainerPortSettings, mode: ContainerMode, is_on: bool
) -> None:
    ports = ContainerPorts(settings, lambda _: 0)

    if is_on:
        ports.check_mode(mode)
    else:
        with pytest.raises(Forbidden):
            ports.check_mode(mode)


# Claims


async def test_an_expose_has_a_port_a_listener_and_a_name() -> None:
    async with registry_rig(**ON) as rig:
        tunnel = await claim(rig, rig.session(), wish())

        assert tunnel.container is not None
        assert (tunnel.container.port, tunnel.hostname) == (30_000, f"port-30000.{DOMAIN}")
        assert tunnel.public_url == f"https://port-30000.{DOMAIN}:8443"
        assert rig.registry.lookup(f"port-30000.{DOMAIN}") is tunnel
        assert rig.listeners.opened == [30_000]


async def test_a_label_is_a_wish_for_a_name() -> None:
    async with registry_rig(**ON) as rig:
        session = rig.session()
        first = await claim(rig, session, wish(name="Shop"))
        second = await claim(rig, session, wish(30_001, name="shop"), 2)
        third = await claim(rig, session, wish(30_002, name="not a label"), 3)

    assert [t.hostname for t in (first, second, third)] == [
        f"shop.{DOMAIN}",
        f"port-30001.{DOMAIN}",
        f"port-30002.{DOMAIN}",
    ]


async def test_a_pull_has_a_port_and_nothing_public() -> None:
    async with registry_rig(**ON) as rig:
        tunnel = await claim(rig, rig.session(), wish(mode=PULL))

        assert (tunnel.hostname, tunnel.public_url, tunnel.label) == (None, "", "30000")
        assert tunnel.container is not None
        assert tunnel.container.host == "127.0.0.1"


async def test_without_listeners_the_number_is_given_out_all_the_same() -> None:
    settings = ContainerPortSettings(hostname="port-{port}")
    async with registry_rig(container_ports=settings) as rig:
        tunnel = await claim(rig, rig.session(), wish())

        assert not tunnel.has_listener
        assert rig.listeners.opened == []
        with pytest.raises(NameTaken):
            await claim(rig, rig.session(), wish())


async def test_a_port_of_another_program_is_skipped_when_any_will_do() -> None:
    async with registry_rig(**ON) as rig:
        rig.listeners.taken = {port: PortTaken("in use") for port in (30_000, 30_001, 30_002)}

        with pytest.raises(PortTaken):
            await claim(rig, rig.session(), wish())
        tunnel = await claim(rig, rig.session(), wish(0))

        assert tunnel.container is not None
        assert tunnel.container.port == 30_003
        assert rig.registry.container_ports.holder(30_000) is None


async def test_tunnels_of_container_ports_count_like_others() -> None:
    async with registry_rig(**ON, max_tunnels_per_session=1) as rig:
        session = rig.session()
        await claim(rig, session, wish())

        with pytest.raises(QuotaExceeded):
            await claim(rig, session, wish(30_001), 2)


@pytest.mark.parametrize("is_parked", [False, True], ids=["live", "parked"])
@pytest.mark.parametrize(
    ("contest", "is_same_token", "is_given"),
    [
        (Contest.REFUSE, True, False),
        (Contest.REFUSE, False, False),
        (Contest.TAKE, True, True),
        (Contest.TAKE, False, False),
        (Contest.RETURN, True, True),
        (Contest.RETURN, False, False),
    ],
)
async def test_who_gets_a_port_that_somebody_has(
    is_parked: bool, contest: Contest, is_same_token: bool, is_given: bool
) -> None:
    async with registry_rig(**ON) as rig:
        upstream = ScriptedUpstream()
        owner = rig.session(upstream=upstream)
        tunnel = await claim(rig, owner, wish())
        if is_parked:
            rig.registry.lose_session(owner, "gone", is_clean=False)
        other = rig.session(ADMIN if is_same_token else principal())

        if not is_given:
            with pytest.raises(NameTaken):
                await claim(rig, other, wish(contest=contest))
            assert tunnel.session is (None if is_parked else owner)
            return
        assert await claim(rig, other, wish(contest=contest), 7) is tunnel

        assert (tunnel.session, tunnel.bind_id) == (other, 7)
        assert rig.listeners.opened == [30_000]


async def test_a_session_whose_last_port_was_taken_cannot_be_resumed() -> None:
    async with registry_rig(**ON) as rig:
        owner = rig.session()
        await claim(rig, owner, wish())
        rig.registry.lose_session(owner, "gone", is_clean=False)

        await claim(rig, rig.session(), wish(contest=Contest.TAKE))

        assert not rig.registry.find_resumable(owner.id, ADMIN)
        assert owner.id in rig.registry.tombstones


async def test_a_port_of_the_other_mode_is_never_taken_over() -> None:
    async with registry_rig(**ON) as rig:
        await claim(rig, rig.session(), wish(mode=PULL))

        with pytest.raises(NameTaken):
            await claim(rig, rig.session(), wish(contest=Contest.TAKE))


async def test_a_session_takes_nothing_from_itself() -> None:
    async with registry_rig(**ON) as rig:
        session = rig.session()
        await claim(rig, session, wish())

        with pytest.raises(NameTaken):
            await claim(rig, session, wish(contest=Contest.TAKE), 2)


# Ends


async def test_a_released_session_frees_its_ports_and_leaves_a_tombstone() -> None:
    async with registry_rig(**ON) as rig:
        session = rig.session()
        await claim(rig, session, wish())

        released = rig.registry.release_session(session, "goodbye", SessionEnd.GOODBYE)
        again = rig.registry.release_session(session, "goodbye", SessionEnd.GOODBYE)

        assert (released, again) == (True, False)
        assert rig.registry.container_ports.holder(30_000) is None
        assert rig.listeners.closed == [(30_000, "goodbye")]
        assert session.id in rig.registry.tombstones


async def test_a_parked_session_can_be_released() -> None:
    async with registry_rig(**ON) as rig:
        session = rig.session()
        await claim(rig, session, wish())
        rig.registry.lose_session(session, "gone", is_clean=False)
        assert set(rig.registry.parked) == {session.id}

        released = rig.registry.release_parked(session.id, "closed by admin")

        assert released
        assert not rig.registry.release_parked(session.id, "again")
        assert rig.registry.tunnels == {}
        assert session.id in rig.registry.tombstones


async def test_a_lease_that_ends_leaves_a_tombstone() -> None:
    async with registry_rig(**ON) as rig:
        session = rig.session()
        await claim(rig, session, wish())
        rig.registry.lose_session(session, "gone", is_clean=False)

        rig.clock.advance(61)
        rig.registry._leases.end_due()

        assert session.id in rig.registry.tombstones
        assert rig.registry.container_ports.holder(30_000) is None


@pytest.mark.parametrize("mode", [EXPOSE, PULL])
async def test_a_restart_gives_ports_back_to_their_session(mode: ContainerMode) -> None:
    store: StateStore = MemoryStateStore()
    async with registry_rig(store, **ON) as rig:
        session = rig.session()
        before = await claim(rig, session, wish(mode=mode))
        await rig.written()

    async with registry_rig(store, **ON) as rig:
        await rig.registry.restore()
        (after,) = rig.registry.tunnels.values()

        assert (after.id, after.container, after.hostname, after.public_url) == (
            before.id,
            before.container,
            before.hostname,
            before.public_url,
        )
        assert rig.listeners.opened == [30_000]
        assert rig.registry.container_ports.holder(30_000) is after
        assert rig.registry.find_resumable(session.id, ADMIN)


async def test_after_a_restart_the_settings_of_then_decide_about_the_listener() -> None:
    store: StateStore = MemoryStateStore()
    async with registry_rig(store, **ON) as rig:
        await claim(rig, rig.session(), wish())
        await rig.written()

    async with registry_rig(
        store, container_ports=ContainerPortSettings(hostname="port-{port}")
    ) as rig:
        await rig.registry.restore()
        (tunnel,) = rig.registry.tunnels.values()

        assert not tunnel.has_listener
        assert rig.listeners.opened == []
