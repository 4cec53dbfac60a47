"""What the tests of the operator share: one real API server, and per test a tunnel server and an operator."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from helpers.kube_apiserver import PROGRAM, SKIP, ApiServer, start_apiserver
from helpers.processes import Running, command, free_port
from helpers.site import Site

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 20.0
_SITE = pytest.StashKey["Cluster"]()


class Cluster:
    """An API server with our resources, a tunnel server, and operators."""

    def __init__(self, api: ApiServer, site: Site, namespace: str) -> None:
        self.api = api
        self.site = site
        self.namespace = namespace
        self.health_port = 0
        self.operator: Running

    async def start_operator(self, *flags: str, resync: float = 600) -> Running:
        """Start the operator as a user with exactly the rights of manifests/rbac."""
        self.health_port = free_port()
        self.operator = await Running.start(
            "the operator",
            [
                command("moleport-operator"),
                "run",
                f"--server-url=http://127.0.0.1:{self.site.api_port}",
                f"--server-token-file={self.site.data_dir / 'admin-token'}",
                f"--health-port={self.health_port}",
                "--health-host=127.0.0.1",
                f"--resync={resync}",
                "--usage-interval=1",
                *flags,
            ],
            {**self.site.environ, "KUBECONFIG": str(self.api.operator_kubeconfig)},
        )
        self.site.running.append(self.operator)
        return self.operator

    def kubectl(self, *arguments: str, given: str | None = None, code: int | None = 0) -> str:
        return self.api.kubectl("-n", self.namespace, *arguments, given=given, code=code)

    def apply(self, kind: str, name: str, code: int | None = 0, **body: Any) -> str:
        """Apply one of our resources."""
        metadata = {"name": name, "namespace": self.namespace} | body.pop("metadata", {})
        if kind == "ClusterTunnelPolicy":
            del metadata["namespace"]
        whole = {"apiVersion": "moleport.dev/v1alpha1", "kind": kind, "metadata": metadata}
        return self.api.apply({"spec": {}} | whole | body, code=code)

    def get(self, what: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None."""
        found = self.kubectl("get", what, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found.strip() else None

    def condition(self, name: str, kind: str = "Ready", what: str = "ttok") -> tuple[str, str]:
        """Return status and reason of a condition."""
        body = self.get(what, name) or {}
        for condition in body.get("status", {}).get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    async def until(
        self, is_true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS
    ) -> Any:
        """Wait until a question to kubectl has the right answer."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := await asyncio.to_thread(is_true)):
                    await asyncio.sleep(0.1)
                return found
        except TimeoutError:
            raise AssertionError(f"{what} not within {seconds} s\n{self.operator}") from None

    async def ready(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        await self.until(
            lambda: self.condition(name) == ("True", "Issued"), f"{name} ready", seconds
        )

    async def rest(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """Call the tunnel server as its admin."""
        headers = {"Authorization": f"Bearer {self.site.admin_token}"}
        url = f"http://127.0.0.1:{self.site.api_port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=headers, json=body or None) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.health_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def apiserver(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApiServer]:
    if not PROGRAM.exists():
        pytest.skip(SKIP)
    api = await start_apiserver(tmp_path_factory.mktemp("kube"))
    try:
        api.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "crds"))
        api.kubectl("create", "namespace", "moleport")
        api.kubectl("apply", "-f", str(ROOT / "manifests" / "rbac"))
        bind = ("--clusterrole=moleport-operator", "--user=operator")
        api.kubectl("create", "clusterrolebinding", "operator", *bind)
        bind = ("--role=moleport-operator-lease", "--user=operator")
        api.kubectl("-n", "moleport", "create", "rolebinding", "operator", *bind)
        api.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
        async with asyncio.timeout(20):
            while "TunnelToken" not in api.kubectl("api-resources", "--api-group=moleport.dev"):
                await asyncio.sleep(0.2)
        yield api
    finally:
        await api.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(
    apiserver: ApiServer, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Cluster]:
    namespace = f"t{secrets.token_hex(5)}"
    apiserver.kubectl("create", "namespace", namespace)
    async with Site(tmp_path) as site:
        cluster = Cluster(apiserver, site, namespace)
        request.node.stash[_SITE] = cluster
        await site.start_server()
        try:
            yield cluster
        finally:
            if hasattr(cluster, "operator"):
                await cluster.operator.aclose()
            _forget_everything(cluster)


def _forget_everything(cluster: Cluster) -> None:
    for what in ("ttok", "tpol", "ctpol"):
        names = cluster.kubectl("get", what, "-o", "name").split()
        for name in names:
            patch = '{"metadata":{"finalizers":null}}'
            cluster.kubectl("patch", name, "--type=merge", "-p", patch, code=None)
            cluster.kubectl("delete", name, "--wait=false", code=None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    cluster = item.stash.get(_SITE, None)
    if report.failed and cluster is not None:
        report.sections += [(running.name, str(running)) for running in cluster.site.running]
        seen = cluster.kubectl("get", "ttok,tpol,events", "-o", "yaml", code=None)
        report.sections.append(("resources", seen[-6000:]))
    return report
