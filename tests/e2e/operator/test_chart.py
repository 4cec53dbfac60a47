"""What a real API server says to the chart, to manifests/ and to the samples; no node is needed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

import chart_manifests
from chart_manifests import CHART, NO_HELM, ROOT, SETS, find_tool
from helpers.kube_apiserver import ApiServer

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(find_tool("helm") is None, reason=NO_HELM),
]

DEFINITIONS = chart_manifests.CACHE / "crds"


class Helm:
    """helm, as the admin of the API server, in one namespace."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    async def run(self, *arguments: str) -> str:
        environ = os.environ | {"KUBECONFIG": str(self.api.kubeconfig)}  # noqa: TID251 - PATH and HOME
        done = await asyncio.to_thread(
            subprocess.run,
            [str(find_tool("helm")), "--namespace", self.namespace, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environ,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def data(self, kind: str, name: str) -> dict[str, Any]:
        found = self.api.kubectl("-n", self.namespace, "get", kind, name, "-o", "json")
        body: dict[str, Any] = json.loads(found)
        return body


async def test_an_upgrade_keeps_the_generated_secrets_and_restarts_nothing(
    apiserver: ApiServer,
) -> None:
    helm = Helm(apiserver, f"h{secrets.token_hex(5)}")
    apiserver.kubectl("create", "namespace", helm.namespace)
    # The definitions are there already, and are not this release's.
    flags = ("--set", "crds.enabled=false", "--set", "rbac.scope=namespaced")
    notes = await helm.run("install", "mole", str(CHART), *flags)

    def look() -> list[Any]:
        kept = [helm.data("secret", f"mole-moleport-{n}")["data"] for n in ("admin", "ca", "tls")]
        pods = [
            helm.data(kind, f"mole-moleport-{part}")["spec"]["template"]
            for kind, part in (("statefulset", "server"), ("deployment", "operator"))
        ]
        return [*kept, *pods]

    before = look()
    changed = ("--set", "commonAnnotations.x=y", "--set", "service.edge.type=NodePort")
    await helm.run("upgrade", "mole", str(CHART), *flags, *changed)
    same = look()
    await helm.run("upgrade", "mole", str(CHART), *flags, "--set", "domain=t.example.com")
    other = look()
    await helm.run("uninstall", "mole", "--no-hooks")

    assert same == before
    # Another domain needs another certificate, of the same authority; the token stays.
    assert other[:2] == before[:2]
    assert other[2]["tls.crt"] != before[2]["tls.crt"]
    assert other[2]["ca.crt"] == before[2]["ca.crt"]
    for needed in (
        f"kubectl -n {helm.namespace} rollout status statefulset/mole-moleport-server",
        f"helm -n {helm.namespace} test mole",
        "kubectl apply -f - <<EOF",
        "get secret mole-moleport-admin",
        "ClusterTunnelPolicies are not watched",
    ):
        assert needed in notes
    left = apiserver.kubectl("-n", helm.namespace, "get", "all,secret,cm,sa,role,pdb", "-o", "name")
    assert set(left.split()) <= {"configmap/kube-root-ca.crt", "serviceaccount/default"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def apiserver_with_foreign_kinds(apiserver: ApiServer) -> ApiServer:
    """An API server that knows the kinds of cert-manager, the Gateway API and the Prometheus operator."""
    if not DEFINITIONS.is_dir():
        pytest.skip("no definitions of foreign kinds: `make chart-tools` gets them (needs Go)")
    found = [yaml.safe_load(path.read_text("utf-8")) for path in DEFINITIONS.iterdir()]
    crds = [
        {
            **crd,
            # Labels of some are templates; the API server wants to see an annotation of others.
            "metadata": {key: crd["metadata"].get(key) for key in ("name", "annotations")},
        }
        for crd in found
    ]
    apiserver.apply(*crds)
    names = [crd["metadata"]["name"] for crd in crds]
    apiserver.kubectl("wait", "--for=condition=Established", "crd", *names, "--timeout=20s")
    for crd in crds:
        async with asyncio.timeout(20):
            while crd["spec"]["names"]["plural"] not in apiserver.kubectl(
                "api-resources", f"--api-group={crd['spec']['group']}"
            ):
                await asyncio.sleep(0.2)
    return apiserver


@pytest.mark.parametrize("name", SETS)
async def test_the_api_server_takes_every_object_of_a_set_of_values(
    name: str, apiserver_with_foreign_kinds: ApiServer
) -> None:
    bodies = chart_manifests.render_set(name)
    for body in bodies:
        if "namespace" in body["metadata"]:
            body["metadata"]["namespace"] = "default"

    said = apiserver_with_foreign_kinds.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"),
        *("--force-conflicts",),
        given=yaml.safe_dump_all(bodies),
    )

    assert said.count("serverside-applied (server dry run)") == len(bodies)


async def test_the_manifests_and_samples_are_taken_as_they_are(apiserver: ApiServer) -> None:
    flags = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")
    everything = apiserver.kubectl("kustomize", str(ROOT / "manifests"))
    samples = apiserver.kubectl("kustomize", str(ROOT / "manifests" / "samples"))

    said = apiserver.kubectl("apply", *flags, "-f", "-", given=f"{everything}\n---\n{samples}")

    kinds = {body["kind"] for body in yaml.safe_load_all(everything)}
    assert {"StatefulSet", "Deployment", "CustomResourceDefinition", "ClusterRole"} <= kinds
    assert "tunneltoken.moleport.dev/shop serverside-applied" in said
    assert "clustertunnelpolicy.moleport.dev/no-tcp-for-previews serverside-applied" in said


async def test_the_sample_token_becomes_the_secret_that_the_sample_agent_mounts(
    cluster: Any,
) -> None:
    await cluster.start_operator()
    sample = (ROOT / "manifests" / "samples" / "token.yaml").read_text("utf-8")
    agent = yaml.safe_load((ROOT / "manifests" / "samples" / "agent.yaml").read_text("utf-8"))
    domain = "localhost"  # that of the server in these tests

    cluster.kubectl("apply", "-f", "-", given=sample.replace("tunnels.localhost", domain))
    await cluster.ready("shop")

    pod = agent["spec"]["template"]["spec"]
    [mounted] = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    assert {"uri", "token"} <= cluster.get("secret", mounted)["data"].keys()
    assert f"--hostname shop.tunnels.{domain}" in " ".join(pod["containers"][0]["args"])


async def test_the_printed_secrets_are_what_the_manifests_ask_for(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    script = str(ROOT / "manifests" / "make-secrets")
    done = subprocess.run(
        [script, "tunnels.example.com"], capture_output=True, text=True, check=True
    )

    said = apiserver.kubectl("apply", "--dry-run=server", "-f", "-", given=done.stdout)
    asked = {
        volume["secret"]["secretName"]
        for name in ("server", "operator")
        for body in yaml.safe_load_all(
            (ROOT / "manifests" / "install" / f"{name}.yaml").read_text("utf-8")
        )
        if body["kind"] in {"StatefulSet", "Deployment"}
        for volume in body["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    printed = {body["metadata"]["name"]: body for body in yaml.safe_load_all(done.stdout)}

    assert said.count("created (server dry run)") == 2
    assert asked == printed.keys()
    for name, encoded in printed["moleport-tls"]["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(encoded))
    for host in ("shop.tunnels.example.com", "moleport-api.moleport.svc"):
        verify = [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.crt",
            "-verify_hostname",
            host,
        ]
        checked = subprocess.run([*verify, "tls.crt"], cwd=tmp_path, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
