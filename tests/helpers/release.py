"""An install of the chart in a real cluster, and what its users do with it from outside.

Node ports of the cluster are on the same ports of 127.0.0.1; tests/e2e/cluster/kind/cluster.yaml says
which.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from helpers.kubernetes_cluster import RESTRICTED, Cluster
from helpers.processes import Agent, Running, command
from helpers.visits import Truncated, Visitor

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "moleport"
GROUP = "moleport.dev/v1alpha1"
DOMAIN = "tunnels.localhost"
HTTP_PORT, HTTPS_PORT, CONTROL_PORT, API_PORT, TCP_PORT = 30080, 30443, 30404, 30405, 30500
IMAGE: dict[str, Any] = {
    "image": {
        "registry": "localhost",
        "repository": "moleport",
        "tag": "e2e",
        "pullPolicy": "Never",
    }
}
NODE_PORTS: dict[str, Any] = {
    "server": {
        "tcpPorts": f"{TCP_PORT}-{TCP_PORT + 2}",
        # The node whose ports are on this machine. Services keep to pods of the node that was asked.
        "nodeSelector": {"moleport.test/published": "true"},
    },
    "service": {
        "edge": {"type": "NodePort", "nodePorts": {"http": HTTP_PORT, "https": HTTPS_PORT}},
        "control": {"type": "NodePort", "nodePort": CONTROL_PORT},
        "api": {"type": "NodePort", "nodePort": API_PORT},
        "tcp": {"type": "NodePort"},
    },
}
MONITORED: dict[str, Any] = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "interval": "2s"},
        "prometheusRule": {"enabled": True},
    },
}


async def status_of(host: str, path: str = "/") -> int:
    """Visit once from outside of the cluster, on a new connection."""
    async with await Visitor.connect(HTTP_PORT) as visitor:
        return (await visitor.get(host, path)).status


async def until_served(host: str, seconds: float = 60.0) -> None:
    """Wait until visitors of a name are answered: an agent has its tunnels."""
    end = asyncio.get_running_loop().time() + seconds
    seen: object = None
    while seen != 200:
        assert asyncio.get_running_loop().time() < end, f"{host} after {seconds:.0f} s: {seen}"
        await asyncio.sleep(0.2)
        try:
            # Not longer: while an agent is away, a visitor is held.
            async with asyncio.timeout(5):
                seen = await status_of(host)
        except (OSError, Truncated, TimeoutError) as error:
            seen = repr(error)


def merged(*values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as helm merges them: later ones win, maps are merged."""
    result: dict[str, Any] = {}
    for each in values:
        for key, value in each.items():
            before = result.get(key)
            is_map = isinstance(before, Mapping) and isinstance(value, Mapping)
            result[key] = merged(before, value) if is_map else value  # type: ignore[arg-type]
    return result


class Release:
    """The chart, installed as `moleport` in a namespace of its own."""

    def __init__(self, cluster: Cluster, directory: Path, namespace: str = "moleport") -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.directory = directory
        self.running: list[Running] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    # Install

    def values(self) -> dict[str, Any] | None:
        """Return the values of the install that is there; None if there is none."""
        status = self.cluster.helm(
            *("-n", self.namespace, "status", "moleport", "-o", "json"), code=None
        )
        if '"status":"deployed"' not in status:
            return None
        given = self.cluster.helm("-n", self.namespace, "get", "values", "moleport", "-o", "json")
        return json.loads(given) or {}

    def install(self, *values: Mapping[str, Any], wait: bool = True) -> str:
        """Install or upgrade with these values on top of the image; returns what helm says."""
        path = self.directory / "values.yaml"
        path.write_text(yaml.safe_dump(merged(IMAGE, *values)))
        labels = {"name": self.namespace, "labels": RESTRICTED}
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": labels})
        return self.cluster.helm(
            *("upgrade", "--install", "-n", self.namespace, "moleport", str(CHART)),
            *("-f", str(path), *(("--wait", "--timeout", "180s") if wait else ())),
        )

    def ensure(self, *values: Mapping[str, Any]) -> None:
        """Have it installed with exactly these values; does nothing if it is."""
        before, wanted = self.values(), merged(IMAGE, *values)
        # The claims of a StatefulSet cannot be changed, and what failed is not to be built upon.
        if (before or {}).get("persistence") != wanted.get("persistence") or before is None:
            self.remove()
        if before != wanted:
            self.install(*values)

    def uninstall(self) -> str:
        return self.cluster.helm("-n", self.namespace, "uninstall", "moleport", "--wait")

    def remove(self) -> None:
        """Uninstall if it is there, and delete its volume."""
        if self.cluster.helm("-n", self.namespace, "list", "--all", "--short").split():
            self.uninstall()
        self.cluster.kubectl("-n", self.namespace, "delete", "pvc", "--all", "--timeout=60s")

    def server_pod(self) -> Any:
        [pod] = self.cluster.pods(self.namespace, "app.kubernetes.io/component=server")
        return pod

    def operator_pod(self) -> Any:
        [pod] = self.cluster.pods(self.namespace, "app.kubernetes.io/component=operator")
        return pod

    @property
    def admin_token(self) -> str:
        return self.cluster.secret(self.namespace, "moleport-admin")["token"]

    def ca_file(self) -> Path:
        """Write the authority of the install into a file, for those who trust it."""
        path = self.directory / "ca.crt"
        path.write_text(self.cluster.secret(self.namespace, "moleport-tls")["ca.crt"])
        return path

    # Resources

    def token(self, namespace: str, name: str, **spec: Any) -> None:
        """Apply a TunnelToken with kubectl."""
        self.cluster.apply(
            {
                "apiVersion": GROUP,
                "kind": "TunnelToken",
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec,
            }
        )

    def ready_token(self, namespace: str, name: str, **spec: Any) -> dict[str, str]:
        """Apply a TunnelToken and wait for its Secret; returns what is in it."""
        self.token(namespace, name, **spec)
        self.cluster.kubectl(
            *("-n", namespace, "wait", "--for=condition=Ready", f"ttok/{name}", "--timeout=60s")
        )
        return self.cluster.secret(namespace, name)

    # Outside

    async def agent(
        self, secret: Mapping[str, str], *arguments: str | Path, tunnels: int = 1
    ) -> Agent:
        """Start an agent on this machine, with the credential of a Secret."""
        folder = self.directory / f"secret-{len(self.running)}"
        folder.mkdir()
        for key, value in secret.items():
            (folder / key).write_text(value)
        # The Secret names a Service, which only pods can reach.
        (folder / "uri").write_text(f"https://127.0.0.1:{CONTROL_PORT}")
        agent = await Agent.start(
            f"agent {len(self.running)}",
            (command("moleport"), *arguments, "--secret-dir", folder, "--json"),
            {
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.directory),
                "LC_ALL": "C.UTF-8",
                "MOLEPORT_CONFIG_DIR": str(self.directory / "config"),
            },
        )
        self.running.append(agent)
        self._stack.push_async_callback(agent.aclose)
        await agent.wait_opened(tunnels, seconds=60)
        return agent

    async def rest(self, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
        """Call the REST API; as the admin unless a token is given.

        A node port leads to a pod a moment after the pod is ready, so a refused connection is tried again.
        """
        trust = ssl.create_default_context(cafile=str(self.ca_file()))
        headers = {"Authorization": f"Bearer {token or self.admin_token}"}
        url = f"https://127.0.0.1:{API_PORT}{path}"
        async with asyncio.timeout(30), aiohttp.ClientSession(headers=headers) as caller:
            while True:
                try:
                    async with caller.request(method, url, json=body, ssl=trust) as answer:
                        assert answer.status < 300, await answer.text()
                        return await answer.json() if answer.status != 204 else None
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.2)
