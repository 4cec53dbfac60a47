"""What the scenarios share: one cluster, the chart in it, and everything that tells why one failed.

They change the cluster that they are pointed at, so they run only when asked for: `make e2e` makes a
cluster and names it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from helpers.kubernetes_cluster import Cluster
from helpers.release import Release

HERE = Path(__file__).parent
KUBECONFIG = os.environ.get("MOLEPORT_E2E_KUBECONFIG")  # noqa: TID251  # who runs pytest says which cluster
PATH = os.environ["PATH"]  # noqa: TID251  # where kubectl and helm are
ORDER = (
    "test_first_tunnel",
    "test_policies",
    "test_credentials",
    "test_restarts",
    "test_uninstall",
    "test_namespaced",
    "test_monitoring",
    "test_security",
    "test_nodes",
)
"""The scenarios tell one story; what comes later may rely on nothing, but is cheaper after the others."""
_RELEASE = pytest.StashKey[Release]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    if KUBECONFIG is None:
        reason = "needs a cluster that it may change: `make e2e` makes one"
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))
        return
    for item in ours:
        item.add_marker(pytest.mark.timeout(600))
    rank = {name: number for number, name in enumerate(ORDER)}
    items.sort(key=lambda item: rank.get(item.path.stem, -1) if HERE in item.path.parents else -1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    assert KUBECONFIG is not None
    return Cluster(Path(KUBECONFIG), PATH, tmp_path_factory.mktemp("home"))


@pytest.fixture
async def release(
    cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Release]:
    """The install, whatever state the test before left it in; see `Release.ensure`."""
    async with Release(cluster, tmp_path) as release:
        request.node.stash[_RELEASE] = release
        yield release


@pytest.fixture
def namespace(cluster: Cluster) -> Generator[str]:
    """A namespace of the test's own."""
    yield cluster.namespace(f"t-{secrets.token_hex(3)}")
    while cluster.namespaces:
        name = cluster.namespaces.pop()
        cluster.kubectl("-n", name, "delete", "ttok,tpol", "--all", "--timeout=60s")
        cluster.kubectl("delete", "namespace", name, "--timeout=90s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    release = item.stash.get(_RELEASE, None)
    if report.failed and release is not None and report.when == "call":
        report.sections += [(running.name, str(running)) for running in release.running]
        report.sections.append(("cluster", release.cluster.dump(release.namespace)))
    return report
