"""A real kube-apiserver with its etcd, without containers and without nodes.

`make kubetest` builds both into one program in the user's cache; tests that need it are skipped without it.
Nobody collects garbage or binds service accounts here: those controllers are other programs.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.processes import Running, free_port

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")  # noqa: TID251  # as the scripts that fill it
PROGRAM = CACHE / "moleport" / "kubernetes" / "kubernetes"
SKIP = f"no kube-apiserver at {PROGRAM}: make kubetest builds it (needs Go, some minutes)"
START_SECONDS = 60.0
ADMIN, OPERATOR = "admin-token", "operator-token"


@dataclass(slots=True)
class ApiServer:
    """A running API server; `kubectl` talks to it as its admin."""

    folder: Path
    port: int
    etcd: Running
    apiserver: Running

    @property
    def kubeconfig(self) -> Path:
        """For the admin."""
        return self.folder / "admin.kubeconfig"

    @property
    def operator_kubeconfig(self) -> Path:
        """For a user `operator` without any right of its own."""
        return self.folder / "operator.kubeconfig"

    def used_rights(self) -> set[tuple[str, str, str]]:
        """Return (group, resource with subresource, verb) of everything that the user `operator` did."""
        log = self.folder / "audit.log"
        found = set()
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
            event = json.loads(line)
            target = event.get("objectRef")
            if target is None or event["responseStatus"]["code"] == 403:
                continue
            parts = (target["resource"], target.get("subresource"))
            resource = "/".join(part for part in parts if part)
            found.add((target.get("apiGroup", ""), resource, event["verb"]))
        return found

    def kubectl(self, *arguments: str, given: str | None = None, code: int | None = 0) -> str:
        """Run kubectl; returns what it prints, and on a refusal what it says."""
        done = subprocess.run(
            [str(PROGRAM), "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
        )
        if code is not None:
            assert done.returncode == code, done.stderr or done.stdout
        return done.stdout + done.stderr

    def apply(self, *bodies: dict[str, Any], code: int | None = 0) -> str:
        """Apply bodies on the server's side."""
        text = yaml.safe_dump_all(bodies)
        return self.kubectl("apply", "--server-side", "-f", "-", given=text, code=code)

    async def aclose(self) -> None:
        """End both."""
        try:
            await self.apiserver.aclose()
        finally:
            await self.etcd.aclose()


async def start_apiserver(folder: Path) -> ApiServer:
    """Start etcd and the API server, and wait until it is ready."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    client, peer, port = free_port(), free_port(), free_port()
    etcd = await Running.start(
        "etcd",
        [
            PROGRAM,
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        ],
        environ,
    )
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{ADMIN},admin,1,"system:masters"\n{OPERATOR},operator,2\n')
    # Who asked for what: tests hold the operator's rights to it.
    policy = folder / "audit-policy.yaml"
    rules = [
        {"level": "Metadata", "users": ["operator"], "omitStages": ["RequestReceived"]},
        {"level": "None"},
    ]
    policy.write_text(
        yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules})
    )
    apiserver = await Running.start(
        "kube-apiserver",
        [
            PROGRAM,
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder / 'certificates'}",
            "--service-account-issuer=https://kubernetes.test",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--watch-cache=true",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={folder / 'audit.log'}",
            "-v=0",
        ],
        environ,
    )
    server = ApiServer(folder, port, etcd, apiserver)
    for path, token in ((server.kubeconfig, ADMIN), (server.operator_kubeconfig, OPERATOR)):
        path.write_text(_kubeconfig(folder, port, token))
    try:
        await _wait_ready(server)
    except BaseException:
        await server.aclose()
        raise
    return server


def _kubeconfig(folder: Path, port: int, token: str) -> str:
    ca = folder / "certificates" / "apiserver.crt"
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(ca)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
    )


async def _wait_ready(server: ApiServer) -> None:
    def answers() -> bool:
        context = ssl._create_unverified_context()
        url = f"https://127.0.0.1:{server.port}/readyz"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN}"})
        try:
            with urllib.request.urlopen(request, context=context, timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        async with asyncio.timeout(START_SECONDS):
            while not await asyncio.to_thread(answers):
                assert server.apiserver.exit_code is None, str(server.apiserver)
                assert server.etcd.exit_code is None, str(server.etcd)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not ready\n{server.apiserver}\n{server.etcd}") from None
