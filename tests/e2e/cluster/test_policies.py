"""Policies as an administrator and a user of a namespace meet them."""

import re

from helpers.kubernetes_cluster import Cluster
from helpers.origins import WebOrigin
from helpers.processes import Agent, command
from helpers.release import CONTROL_PORT, DOMAIN, GROUP, HTTP_PORT, NODE_PORTS, Release
from helpers.visits import Visitor

EXIT_REFUSED = 5


async def test_a_policy_narrows_a_second_namespace_and_kubectl_says_why_a_name_is_refused(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.ensure(NODE_PORTS)
    second = cluster.namespace(f"{namespace}-second")
    cluster.apply(
        {
            "apiVersion": GROUP,
            "kind": "TunnelPolicy",
            "metadata": {"name": "tills-only", "namespace": second},
            "spec": {
                "targetRefs": [{"kind": "TunnelToken"}],
                "access": {"hostnames": ["till-1"]},
            },
        }
    )
    access = {"http": {"hostnames": ["shop", "till-1"]}}
    free = release.ready_token(namespace, "free", access={"http": {"hostnames": ["shop"]}})
    bound = release.ready_token(second, "bound", access=access)

    def says_why() -> bool:
        seen = cluster.kubectl("-n", second, "get", "ttok", "bound", "-o", "wide")
        return "tills-only" in seen and "shop" in seen

    async with WebOrigin() as origin:
        await cluster.until_async(says_why, "kubectl get ttok -o wide names the policy")
        await release.agent(bound, "http", str(origin.port), "--name", "till-1")
        await release.agent(free, "http", str(origin.port), "--name", "shop")
        for name in ("till-1", "shop"):
            async with await Visitor.connect(HTTP_PORT) as visitor:
                assert (await visitor.get(f"{name}.{DOMAIN}")).status == 200
        refused = await refused_agent(release, bound, origin.port)

    assert await refused.wait_exit(seconds=60) == EXIT_REFUSED
    assert re.search(r"shop.*(not allowed|policy|may not)", refused.output), str(refused)


async def refused_agent(release: Release, secret: dict[str, str], port: int) -> Agent:
    folder = release.directory / "refused"
    folder.mkdir()
    for key, value in (secret | {"uri": f"https://127.0.0.1:{CONTROL_PORT}"}).items():
        (folder / key).write_text(value)
    agent = await Agent.start(
        "the refused agent",
        (
            command("moleport"),
            "http",
            str(port),
            "--name",
            "shop",
            "--secret-dir",
            folder,
            "--json",
        ),
        {"PATH": "/usr/bin:/bin", "HOME": str(release.directory)},
    )
    release.running.append(agent)
    return agent
