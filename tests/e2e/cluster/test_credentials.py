"""The life of a token, while visitors use its tunnel."""

import asyncio

from helpers.kubernetes_cluster import Cluster
from helpers.release import DOMAIN, HTTP_PORT, NODE_PORTS, Release, status_of, until_served
from helpers.visits import Load, Visitor
from helpers.workloads import start_agent, start_origin

HOST = f"shop.{DOMAIN}"
SHOP = {"http": {"hostnames": ["shop"]}}
SECRET_SECONDS = 150.0
"""The kubelet shows a pod a changed Secret up to 90 s late."""


async def test_a_rotation_under_load_fails_no_request(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.ensure(NODE_PORTS)
    first = release.ready_token(namespace, "shop", access=SHOP, rotation={"overlap": "120s"})
    start_origin(cluster, namespace)
    start_agent(cluster, namespace, "shop")
    await until_served(HOST)

    async with Load(HTTP_PORT, HOST, connections=8, per_second=50).running() as load:
        await load.wait_successes(50)
        cluster.kubectl(
            *("-n", namespace, "annotate", "ttok", "shop", "moleport.dev/rotate-requested=now")
        )
        await cluster.until_async(
            lambda: cluster.secret(namespace, "shop")["token"] != first["token"], "a new Secret"
        )
        # The agent reads its file again; the old credential ends after the overlap, whether it did or not.
        await until_old_credential_is_gone(release, first["token-id"])
        await load.wait_successes(200)

    assert load.failures() == []
    assert len(load.attempts) > 1000
    [pod] = cluster.pods(namespace, "app=agent")
    assert pod.status.container_statuses[0].restart_count == 0


async def until_old_credential_is_gone(release: Release, token_id: str) -> None:
    async with asyncio.timeout(SECRET_SECONDS + 60):
        while True:
            token = await release.rest("GET", f"/api/tokens/{token_id}")
            if [slot["revision"] for slot in token["credentials"]] == [2]:
                return
            await asyncio.sleep(1)


async def test_suspension_and_deletion_end_live_sessions(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.ensure(NODE_PORTS)
    release.ready_token(namespace, "shop", access=SHOP)
    start_origin(cluster, namespace)
    start_agent(cluster, namespace, "shop")
    await until_served(HOST)

    await ends_a_live_stream(
        cluster,
        "-n",
        namespace,
        "patch",
        "ttok",
        "shop",
        "--type=merge",
        "-p",
        '{"spec":{"suspend":true}}',
    )
    assert await status_of(HOST) in {404, 503}
    row = cluster.kubectl("-n", namespace, "get", "ttok", "shop", "-o", "wide")
    assert "Suspended" in row
    assert await release.rest("GET", "/api/sessions") == []

    cluster.kubectl(
        *(
            "-n",
            namespace,
            "patch",
            "ttok",
            "shop",
            "--type=merge",
            "-p",
            '{"spec":{"suspend":false}}',
        )
    )
    # The agent goes on trying, with growing pauses.
    await until_served(HOST, 90)

    await ends_a_live_stream(cluster, "-n", namespace, "delete", "ttok", "shop", "--timeout=60s")
    assert await status_of(HOST) in {404, 503}
    await cluster.until_async(lambda: not cluster.secret(namespace, "shop"), "the Secret is gone")


async def ends_a_live_stream(cluster: Cluster, *kubectl: str) -> None:
    """Watch endless events, do something, and see them end."""
    async with await Visitor.connect(HTTP_PORT) as visitor:
        visitor.send(f"GET /events?count=1000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        async with asyncio.timeout(60):
            await visitor.reader.readuntil(b"data: 1\n\n")
        await asyncio.to_thread(cluster.kubectl, *kubectl)
        received = await visitor.read_to_end(seconds=15)
    assert not received.endswith(b"0\r\n\r\n"), "it must not look complete"
