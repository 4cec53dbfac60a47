"""Registrations of rustunnel clients: addresses, texts of refusals, what comes back."""

import asyncio
import json
import logging
from pathlib import Path
from uuid import UUID

import pytest

from helpers.rustunnel_rig import ADMIN_SECRET, Client, make_request, rustunnel_rig
from helpers.waiting import until
from moleport_server.agents.rustunnel.registrations import MAX_PENDING
from moleport_server.domain.token import Grant
from moleport_wire.rustunnel import messages


@pytest.mark.parametrize(
    ("protocol", "url", "port"),
    [
        ("http", "https://shop.tunnels.example.com:8443", None),
        ("https", "https://shop.tunnels.example.com:8443", None),
        ("tcp", "tcp://tunnels.example.com:20000", 20_000),
    ],
)
async def test_an_address_is_told_as_visitors_use_it(
    protocol: str, url: str, port: int | None
) -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()

        registered = await client.register(protocol=protocol)

        [tunnel] = rig.base.registry.tunnels.values()
        assert registered.request_id == "r-1"
        assert registered.tunnel_id == tunnel.id
        assert registered.assigned_port == port
        assert registered.public_url.split("://")[1].startswith(
            tunnel.hostname or rig.base.registry.domains[0]
        )
        assert registered.public_url.startswith("tcp://" if port else "https://")


@pytest.mark.parametrize(
    ("subdomain", "text"),
    [
        ("ab", "tunnel error: subdomain 'ab' must be 3–63 characters long"),
        ("-abc", "tunnel error: subdomain '-abc' must not start or end with a hyphen"),
        ("a.bc", "tunnel error: subdomain 'a.bc' may only contain letters, digits, and hyphens"),
        ("", "tunnel error: subdomain '' must be 3–63 characters long"),
        # Of several faults the first in the family's order: length in bytes, hyphens, characters.
        ("-_", "tunnel error: subdomain '-_' must be 3–63 characters long"),
        ("-a_", "tunnel error: subdomain '-a_' must not start or end with a hyphen"),
        ("é", "tunnel error: subdomain 'é' must be 3–63 characters long"),
        ("éa", "tunnel error: subdomain 'éa' may only contain letters, digits, and hyphens"),
        ("é" * 32, f"tunnel error: subdomain '{'é' * 32}' must be 3–63 characters long"),
        ("a" * 64, f"tunnel error: subdomain '{'a' * 64}' must be 3–63 characters long"),
    ],
)
async def test_a_name_that_is_none(subdomain: str, text: str) -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()

        assert await client.refused(subdomain) == text
        # The session goes on.
        await client.register("shop")


async def test_a_name_of_another_token_is_in_use() -> None:
    async with rustunnel_rig() as rig:
        await Client.serving(rig)
        other = rig.client()
        await other.log_in(ADMIN_SECRET)

        text = await other.refused("Shop")

        assert text == "tunnel error: subdomain 'Shop' is already in use"


@pytest.mark.parametrize("subdomain", ["authors", "oAuth"])
async def test_no_refusal_that_is_retried_looks_like_a_failed_login(subdomain: str) -> None:
    async with rustunnel_rig() as rig:
        await Client.serving(rig, subdomain=subdomain)
        other = rig.client()
        await other.log_in(ADMIN_SECRET)

        text = await other.refused(subdomain)

        assert "auth" not in text
        assert "Auth" not in text
        assert text.endswith(" is already in use")


async def test_a_session_has_so_many_tunnels_and_no_more() -> None:
    async with rustunnel_rig(registry={"max_tunnels_per_session": 1}) as rig:
        other = rig.client()
        await other.log_in(ADMIN_SECRET)
        await other.register("taken")
        client, _ = await Client.serving(rig)

        # The limit is told before a fault of the name, and before a name in use, be it its own.
        (own,) = client.session.record.tunnels.values()
        assert own.hostname is not None
        names = ("other", "-", "taken", own.hostname.partition(".")[0])
        texts = [await client.refused(name) for name in names]

        session_id = client.session.record.id
        expected = f"limit exceeded: session {session_id} already has 1 tunnels (max 1)"
        assert texts == [expected] * 4


async def test_a_token_has_so_many_tunnels_and_no_more() -> None:
    async with rustunnel_rig() as rig:
        await rig.issue("small", token_id="token-2", max_tunnels=1)
        client = rig.client()
        await client.log_in("small")
        await client.register("one")

        assert await client.refused("two") == "tunnel limit of 1 reached"


async def test_what_the_grant_leaves_out_is_said() -> None:
    async with rustunnel_rig() as rig:
        await rig.issue("narrow", token_id="token-2", grant=Grant(hostnames=("ci-*",)))
        client = rig.client()
        await client.log_in("narrow")

        text = await client.refused("shop")

        assert text.startswith("tunnel error: token 'laptop' may not bind host name 'shop.")


async def test_no_port_is_left() -> None:
    async with rustunnel_rig(registry={"tcp_ports": (20_000, 20_000)}) as rig:
        client = rig.client()
        await client.log_in()
        await client.register(None, protocol="tcp")

        assert await client.refused(None, protocol="tcp") == "no TCP ports available"


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("udp", "unsupported protocol 'udp': this server forwards http, https and tcp"),
        ("p2p", "P2P tunnels are not enabled on this server"),
        ("HTTP", "unsupported protocol 'HTTP': this server forwards http, https and tcp"),
    ],
)
async def test_a_protocol_that_is_not_forwarded(protocol: str, text: str) -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()

        assert await client.refused(protocol=protocol) == text


async def test_registrations_at_once_are_bounded() -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()

        for number in range(MAX_PENDING + 1):
            client.say(make_request(f"name-{number}"))

        error = await client.hear(messages.TunnelError)
        assert error.message == "too many registrations at once"
        await client.hear(messages.TunnelRegistered, MAX_PENDING)


async def test_a_client_that_is_lost_while_it_registers_leaves_a_lease_at_most() -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()
        client.say(make_request("shop"))
        await asyncio.sleep(0)
        client.lose()

        await until(lambda: rig.base.tasks.count == 0)

        assert all(t.session is None for t in rig.base.registry.tunnels.values())
        assert not any(isinstance(m, messages.TunnelRegistered) for m in client.heard)


async def test_only_its_own_tunnel_can_be_given_back_by_a_client() -> None:
    async with rustunnel_rig() as rig:
        owner, _ = await Client.serving(rig)
        other, _ = await Client.serving(rig, peer="192.0.2.8:1", subdomain="other")
        [shop, _] = rig.base.registry.tunnels.values()

        other.say(messages.UnregisterTunnel(tunnel_id=shop.id))
        owner.say(messages.UnregisterTunnel(tunnel_id=UUID(int=7)))
        assert len(rig.base.registry.tunnels) == 2
        owner.say(messages.UnregisterTunnel(tunnel_id=shop.id))

        assert shop.id not in rig.base.registry.tunnels
        assert not owner.transport.is_over


async def test_a_random_name_comes_back_to_the_same_service_of_the_same_machine() -> None:
    async with rustunnel_rig() as rig:
        first, _ = await Client.serving(rig, subdomain=None)
        [tunnel] = rig.base.registry.tunnels.values()
        first.lose()

        stranger, _ = await Client.serving(rig, subdomain=None, peer="192.0.2.8:1")
        again, _ = await Client.serving(rig, subdomain=None, peer="192.0.2.7:9")

        assert again.session.record.tunnels[1] is tunnel
        assert stranger.session.record.tunnels[1] is not tunnel


async def test_several_tunnels_of_one_class_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()
        await client.register("one")
        await client.register(None, protocol="tcp")
        assert _warnings(caplog) == []

        await client.register("two")
        await client.register("three")

        assert len(_warnings(caplog)) == 1


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_audit_log_hears_of_tunnels_that_come_and_go(tmp_path: Path) -> None:
    file = tmp_path / "audit"
    async with rustunnel_rig(audit_file=file) as rig:
        client = rig.client()
        await client.log_in()
        registered = await client.register(protocol="https")
        client.say(messages.UnregisterTunnel(tunnel_id=registered.tunnel_id))
        session_id = client.session.record.id

        rig.shared.audit.flush()

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "auth_attempt",
        "tunnel_registered",
        "tunnel_removed",
    ]
    assert lines[1] == lines[1] | {
        "session_id": session_id,
        "tunnel_id": str(registered.tunnel_id),
        "protocol": "https",
    }
