"""From `helm install` to visitors: through an agent in the cluster and one outside of it."""

import asyncio

import aiohttp

from helpers.kubernetes_cluster import Cluster
from helpers.origins import RawOrigin, WebOrigin, echo
from helpers.release import DOMAIN, HTTP_PORT, NODE_PORTS, TCP_PORT, Release, until_served
from helpers.visits import Visitor
from helpers.workloads import start_agent, start_origin


async def test_default_values_give_a_server_and_an_operator_that_are_ready(
    cluster: Cluster, release: Release
) -> None:
    release.remove()

    said = release.install()

    assert "kubectl" in said, "NOTES name the next commands"
    cluster.helm("-n", release.namespace, "test", "moleport", "--timeout", "120s")
    # The volume may be on another node than the one whose ports are published.
    release.remove()


async def test_visitors_reach_services_through_agents_inside_and_outside_of_the_cluster(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.ensure(NODE_PORTS)
    tcp = {"ports": [{"start": TCP_PORT, "end": TCP_PORT + 1}]}
    access = {"protocols": ["http", "tcp"], "http": {"hostnames": ["shop", "till"]}, "tcp": tcp}
    secret = release.ready_token(namespace, "shop", access=access)
    assert {"type", "uri", "token", "token-id", "ca.crt"} <= set(secret)
    start_origin(cluster, namespace)
    tunnels = {
        "shop": {"protocol": "http", "target": "origin:8000", "name": "shop"},
        "echo": {"protocol": "tcp", "target": "origin:9000", "port": TCP_PORT},
    }
    start_agent(cluster, namespace, "shop", tunnels=tunnels)
    await until_served(f"shop.{DOMAIN}")

    await visit_all(f"shop.{DOMAIN}", TCP_PORT)

    async with WebOrigin() as web, RawOrigin(echo) as service:
        await release.agent(secret, "http", str(web.port), "--name", "till")
        await release.agent(secret, "tcp", str(service.port), "--port", str(TCP_PORT + 1))
        async with await Visitor.connect(HTTP_PORT) as visitor:
            answer = await visitor.get(f"till.{DOMAIN}", "/?outside")
        assert (answer.status, answer.body) == (200, b"hello outside")
        await echo_through(TCP_PORT + 1)


async def visit_all(host: str, tcp_port: int) -> None:
    """Use HTTP, HTTPS, SSE, WebSocket and TCP from outside of the cluster."""
    async with await Visitor.connect(HTTP_PORT) as visitor:
        answer = await visitor.get(host)
        assert answer.status == 200, answer
        answer = await visitor.get(host, "/size/3000000")
        assert answer.body == (bytes(range(256)) * 11719)[:3_000_000]
    await read_events(host)
    await talk_by_websocket(host)
    await echo_through(tcp_port)


async def read_events(host: str) -> None:
    async with await Visitor.connect(HTTP_PORT) as visitor:
        visitor.send(f"GET /events?count=5 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        moments: list[float] = []
        async with asyncio.timeout(30):
            for number in range(5):
                await visitor.reader.readuntil(f"data: {number}\n\n".encode())
                moments.append(asyncio.get_running_loop().time())
    # The service sends one each half second; buffered, they would have come together.
    assert moments[-1] - moments[0] > 1.0


async def talk_by_websocket(host: str) -> None:
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"http://127.0.0.1:{HTTP_PORT}/socket", headers={"Host": host}
        ) as socket,
    ):
        for text in ("one", "two"):
            await socket.send_str(text)
            assert await socket.receive_str() == text


async def echo_through(port: int) -> None:
    async with await Visitor.connect(port) as visitor:
        visitor.send(b"over tcp")
        async with asyncio.timeout(30):
            assert await visitor.reader.readexactly(8) == b"over tcp"
