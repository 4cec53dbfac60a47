"""A real cluster, as kubectl, helm and the official Python client see it.

Scenarios act with kubectl and helm, as people do, and observe with the client. Each call has a
deadline. The client is imported late: it comes with `make e2e`, not with the other tests.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

CALL_SECONDS = 120.0
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.25
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
"""All our namespaces refuse pods that are not restricted: each scenario tests that as well."""


class CommandFailed(AssertionError):
    """A program ended with another code than expected."""


@dataclass
class Cluster:
    """A cluster and the programs that talk to it."""

    kubeconfig: Path
    path: str
    """Where kubectl and helm are found."""
    home: Path
    namespaces: list[str] = field(default_factory=list)
    """Those that the present test made; they go after it."""

    def run(
        self,
        *command: str,
        given: str | None = None,
        code: int | None = 0,
        seconds: float = CALL_SECONDS,
        with_complaints: bool = True,
    ) -> str:
        """Run a program; returns what it prints, and its complaints at the end.

        Raises:
            CommandFailed: it ended with another code; None takes any.
        """
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={"PATH": self.path, "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)},
        )
        if code is not None and done.returncode != code:
            raise CommandFailed(
                f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout + (done.stderr if with_complaints else "")

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.run("kubectl", *arguments, **options)

    def helm(self, *arguments: str, **options: Any) -> str:
        return self.run("helm", *arguments, **{"seconds": 300.0} | options)

    def apply(self, *bodies: dict[str, Any], code: int | None = 0) -> str:
        """Apply objects; what one may not do is in the answer."""
        return self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(bodies), code=code)

    def get(self, what: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """Return an object, or None."""
        found = self.kubectl(
            *("-n", namespace, "get", what, name, "-o", "json", "--ignore-not-found"),
            with_complaints=False,
        )
        return json.loads(found) if found.strip() else None

    def list_of(self, kinds: str, *options: str) -> list[dict[str, Any]]:
        """Return the objects of some kinds, of a namespace or of all."""
        found = self.kubectl("get", kinds, *options, "-o", "json", with_complaints=False)
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items

    def namespace(self, name: str, **labels: str) -> str:
        """Make a namespace that lasts as long as the test."""
        metadata = {"name": name, "labels": RESTRICTED | labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.namespaces.append(name)
        return name

    def rolled_out(self, what: str, namespace: str, seconds: float = 120.0) -> None:
        """Wait until a workload runs as its object says."""
        self.kubectl(
            *("-n", namespace, "rollout", "status", what, f"--timeout={seconds:.0f}s"),
            seconds=seconds + 10,
        )

    def until(
        self, is_true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS
    ) -> Any:
        """Ask again until the answer is true; returns it."""
        end = time.monotonic() + seconds
        while not (found := is_true()):
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        return found

    async def until_async(
        self, is_true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS
    ) -> Any:
        """Do the same beside other tasks of a test."""
        return await asyncio.to_thread(self.until, is_true, what, seconds)

    @cached_property
    def _client(self) -> tuple[Any, Any]:
        client = importlib.import_module("kubernetes.client")
        config = importlib.import_module("kubernetes.config")
        return client, config.new_client_from_config(str(self.kubeconfig))

    @property
    def core(self) -> Any:
        """The official client, for pods, Secrets, nodes, events."""
        client, connection = self._client
        return client.CoreV1Api(connection)

    @property
    def custom(self) -> Any:
        """The official client, for our resources."""
        client, connection = self._client
        return client.CustomObjectsApi(connection)

    def pods(self, namespace: str, selector: str = "") -> list[Any]:
        """Return the pods that are not about to end."""
        listed = self.core.list_namespaced_pod(
            namespace, label_selector=selector, _request_timeout=CALL_SECONDS
        )
        return [pod for pod in listed.items if pod.metadata.deletion_timestamp is None]

    @cached_property
    def engine(self) -> str:
        """What the nodes run in: docker if its daemon answers, otherwise podman."""
        said = self.run("sh", "-c", "docker info >/dev/null 2>&1 && echo docker || echo podman")
        return said.strip()

    def crash(self, pod: Any) -> None:
        """Kill the process of a pod, which gets no signal before; Kubernetes starts it again."""
        _, container = pod.status.container_statuses[0].container_id.split("://")
        ctr = ("ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", container)
        self.run(self.engine, "exec", pod.spec.node_name, *ctr)

    def kill_pod(self, pod: Any) -> None:
        """Lose a pod, and its process without a signal before: another one takes its place."""
        self.crash(pod)
        name = ("-n", pod.metadata.namespace, "delete", "pod", pod.metadata.name)
        self.kubectl(*name, "--force", "--grace-period=0", "--wait=false")

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """Return what is in a Secret, {} if it is not there."""
        found = self.get("secret", name, namespace)
        data = (found or {}).get("data", {})
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def dump(self, *namespaces: str) -> str:
        """Return objects, events and logs, for a test that failed."""
        parts = [self.kubectl("get", "nodes,ttok,tpol,ctpol", "-A", "-o", "wide", code=None)]
        for name in dict.fromkeys([*namespaces, *self.namespaces]):
            of = ("-n", name)
            parts += [
                f"===== {name}",
                self.kubectl(*of, "get", "all,pvc,ttok,tpol", "-o", "wide", code=None),
                self.kubectl(*of, "get", "ttok,tpol", "-o", "yaml", code=None)[-8000:],
                self.kubectl(*of, "get", "events", "--sort-by=.lastTimestamp", code=None)[-6000:],
            ]
            pods = self.kubectl(*of, "get", "pods", "-o", "name", code=None).split()
            for pod in pods:
                logs = (*of, "logs", pod, "--all-containers", "--tail=60")
                parts += [f"--- {pod}", self.kubectl(*logs, code=None)[-6000:]]
                before = self.kubectl(*logs, "--previous", code=None)
                if "previous terminated container" not in before:
                    parts += [f"--- {pod}, before it started again", before[-3000:]]
        return "\n".join(parts)
