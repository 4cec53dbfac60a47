import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from helpers.clock import FakeClock
from helpers.operator_records import policy, seen
from moleport_operator.breaker import Breaker
from moleport_operator.errors import (
    ConfigError,
    Conflict,
    ForeignOwner,
    Rejected,
    ServerUnavailable,
)
from moleport_operator.plan.policy import wanted_policy
from moleport_operator.plan.token import wanted_token
from moleport_operator.server import AdminToken, Server, open_server
from moleport_operator.settings import ServerAccess

WISH = replace(wanted_token(seen()), tcp_ports=((1, 2),), agent_cidrs=("10.0.0.0/8",))


class Double:
    """A server that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.answer: tuple[int, Any] | None = None
        self.headers: dict[str, str] = {}
        self.stored: dict[str, Any] = {}

    async def handle(self, request: web.Request) -> web.Response:
        content = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path, dict(request.headers), content))
        if self.answer is not None:
            status, body = self.answer
        elif request.method == "PUT":
            self.stored = {"etag": '"1"', "credentials": [], **(content or {})}
            status, body = 200, self.stored
        else:
            status, body = 200, self.stored
        return web.json_response(body, status=status, headers=self.headers)


@asynccontextmanager
async def server_of(
    double: Double, folder: Path, *, authority: trustme.CA | None = None
) -> AsyncIterator[tuple[Server, Breaker]]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", double.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    tls, ca_file = None, None
    if authority is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        ca_file = folder / "ca.pem"
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    (folder / "token").write_text("secret\n")
    port = runner.addresses[0][1]
    scheme = "http" if tls is None else "https"
    access = ServerAccess(
        url=f"{scheme}://127.0.0.1:{port}/", token_file=folder / "token", ca_file=ca_file
    )
    breaker = Breaker(FakeClock())
    try:
        async with open_server(access, breaker, lambda *_: None) as server:
            yield server, breaker
    finally:
        await runner.cleanup()


async def test_a_token_reads_back_as_it_was_put(tmp_path: Path) -> None:
    double = Double()
    async with server_of(double, tmp_path) as (server, _):
        created = await server.put_token("id", WISH, None)
        await server.put_token("id", WISH, created.etag)

    assert created.wish == WISH
    headers = [headers for _, _, headers, _ in double.requests]
    assert headers[0]["If-None-Match"] == "*"
    assert headers[1]["If-Match"] == '"1"'
    assert headers[0]["Authorization"] == "Bearer secret"


async def test_a_token_of_a_resource_never_gets_container_ports(tmp_path: Path) -> None:
    double = Double()
    async with server_of(double, tmp_path) as (server, _):
        await server.put_token("id", WISH, None)

    assert double.requests[0][3]["access"]["container_ports"] == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (409, ForeignOwner),
        (412, Conflict),
        (400, Rejected),
        (422, Rejected),
        (401, ServerUnavailable),
        (403, ServerUnavailable),
        (429, ServerUnavailable),
        (500, ServerUnavailable),
        (507, ServerUnavailable),
    ],
)
async def test_statuses_become_what_a_round_can_act_upon(
    status: int, error: type[Exception], tmp_path: Path
) -> None:
    double = Double()
    double.answer = (status, {"error": "no", "code": "x"})
    async with server_of(double, tmp_path) as (server, _):
        with pytest.raises(error, match="no"):
            await server.put_token("id", WISH, None)


async def test_a_policy_that_tokens_have_is_a_conflict(tmp_path: Path) -> None:
    double = Double()
    double.answer = (409, {"error": "attached"})
    async with server_of(double, tmp_path) as (server, _):
        with pytest.raises(Conflict):
            await server.delete_policy("id")


async def test_what_is_gone_is_deleted(tmp_path: Path) -> None:
    double = Double()
    double.answer = (404, {"error": "not found"})
    async with server_of(double, tmp_path) as (server, _):
        await server.delete_token("id")
        await server.delete_credential("id", 1)
        assert await server.get_token("id") is None
        assert await server.get_policy("id") is None
        with pytest.raises(Conflict):
            await server.put_credential("id", 1, "0" * 64, None)


async def test_the_advice_when_to_come_back_is_kept(tmp_path: Path) -> None:
    double = Double()
    double.answer, double.headers = (429, {"error": "slow down"}), {"Retry-After": "7"}
    async with server_of(double, tmp_path) as (server, _):
        with pytest.raises(ServerUnavailable) as caught:
            await server.get_token("id")

    assert caught.value.retry_after == 7


async def test_faults_open_the_breaker_and_the_probe_passes_it(tmp_path: Path) -> None:
    double = Double()
    double.answer = (503, {})
    async with server_of(double, tmp_path) as (server, breaker):
        for _ in range(5):
            with pytest.raises(ServerUnavailable):
                await server.get_token("id")
        assert len(double.requests) == 3
        double.answer = (200, {"instance_id": "i", "domains": ["a"], "public": {"https_port": 1}})

        facts = await server.facts()

        assert not breaker.is_open
    assert (facts.instance_id, facts.domains, facts.https_port) == ("i", ("a",), 1)


async def test_a_new_database_is_noticed(tmp_path: Path) -> None:
    double, told = Double(), []
    double.answer = (404, {})
    async with server_of(double, tmp_path) as (server, _):
        server.when_replaced = lambda: told.append(True)
        for instance in ("a", "a", "b"):
            double.headers = {"X-Moleport-Instance": instance}
            await server.get_token("id")

    assert told == [True]


def row(name: str, **fields: Any) -> dict[str, Any]:
    owner = {"cluster": "c", "namespace": "default", "name": name, "uid": name}
    return {"id": name, "label": name, "etag": '"1"', "owner": owner} | fields


async def test_a_token_that_was_just_listed_is_known_once(tmp_path: Path) -> None:
    double = Double()
    double.answer = (200, [row("a"), row("b"), row("by-hand", owner=None)])
    async with server_of(double, tmp_path) as (server, _):
        rows, after = await server.look_ahead("c", after=None, limit=3)
        known = [server.listed("a"), server.listed("a")]
        double.answer = (200, [row("d")])
        last, end = await server.look_ahead("c", after=after, limit=3)

    assert [found.owner.name for found in rows] == ["a", "b"]
    assert known[0] is not None
    assert known[0].wish.label == "a"
    assert known[1] is None
    assert ([found.id for found in last], after, end) == (["d"], "by-hand", None)


@pytest.mark.parametrize(
    "write",
    [
        lambda server: server.put_token("id", WISH, None),
        lambda server: server.delete_token("id"),
        lambda server: server.put_credential("id", 1, "0" * 64, None),
        lambda server: server.delete_credential("id", 1),
    ],
    ids=["put", "delete", "put credential", "delete credential"],
)
async def test_a_write_forgets_what_was_listed_also_when_it_fails(
    write: Callable[[Server], Awaitable[object]], tmp_path: Path
) -> None:
    double = Double()
    async with server_of(double, tmp_path) as (server, _):
        double.answer = (200, [row("id"), row("other")])
        await server.look_ahead("c", after=None, limit=2)
        double.answer = (412, {"error": "changed"})
        with pytest.raises(Conflict):
            await write(server)
        known = server.listed("id"), server.listed("other")

    assert known[0] is None
    assert known[1] is not None


@pytest.mark.parametrize(
    ("status", "headers"),
    [(503, {}), (401, {}), (404, {"X-Moleport-Instance": "another"})],
    ids=["a fault", "a refusal", "another database"],
)
async def test_what_was_listed_does_not_outlive_the_server(
    status: int, headers: dict[str, str], tmp_path: Path
) -> None:
    double = Double()
    async with server_of(double, tmp_path) as (server, _):
        double.answer, double.headers = (200, [row("id")]), {"X-Moleport-Instance": "one"}
        await server.look_ahead("c", after=None, limit=1)
        await server.look_ahead("c", after=None, limit=1)
        double.answer, double.headers = (status, {}), headers
        with suppress(ServerUnavailable):
            await server.get_token("else")

        assert server.listed("id") is None


async def test_an_answer_that_is_none_of_the_servers_is_told_as_that(tmp_path: Path) -> None:
    double = Double()
    double.answer = (200, {"login": "please"})
    async with server_of(double, tmp_path) as (server, _):
        with pytest.raises(ServerUnavailable, match=r"cannot be read.*etag"):
            await server.get_token("id")


async def test_a_policy_carries_its_passwords_as_htpasswd(tmp_path: Path) -> None:
    http = {"auth": {"basic": {"secretRef": {"name": "s"}}}}
    asking = policy(spec={"targetRefs": [], "http": http})
    double = Double()
    async with server_of(double, tmp_path) as (server, _):
        await server.put_policy("id", wanted_policy(asking, "c", (("ann", "HASH"),)), None)
        await server.put_policy("id", wanted_policy(asking, "c", None), None)

    sent = [body["http"]["auth"]["basic"]["htpasswd"] for *_, body in double.requests]
    assert sent == ["ann:HASH\n", None]


def test_the_admin_token_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = AdminToken(file)
    with pytest.raises(ServerUnavailable, match="No such file"):
        token.read()
    file.write_text("one\n")
    assert token.read() == "one"
    file.write_text("another\n")
    assert token.read() == "another"
    file.write_text("\n")
    with pytest.raises(ServerUnavailable, match="empty"):
        token.read()


async def test_a_ca_file_that_changed_is_trusted_without_a_restart(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    old.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with server_of(Double(), tmp_path, authority=new) as (server, _):
        with pytest.raises(ServerUnavailable, match="Certificate"):
            await server.get_token("id")
        (tmp_path / "ca.pem").write_text("nothing")
        with pytest.raises(ServerUnavailable, match="Certificate"):
            await server.get_token("id")
        (tmp_path / "ca.pem").write_bytes(old.cert_pem.bytes() + new.cert_pem.bytes())

        await server.put_token("id", WISH, None)


async def test_a_ca_file_without_certificates_is_a_mistake_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    access = ServerAccess(
        url="https://x.test", token_file=tmp_path / "token", ca_file=tmp_path / "ca.pem"
    )

    with pytest.raises(ConfigError, match=r"ca\.pem"):
        async with open_server(access, Breaker(FakeClock()), lambda *_: None):
            raise AssertionError
