"""What users run in a cluster: a service, and an agent beside it with the Secret of a TunnelToken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from helpers.kubernetes_cluster import Cluster

IMAGE = "localhost/moleport:e2e"
ORIGIN = Path(__file__).parents[1] / "e2e" / "cluster" / "origin.py"
RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def deployment(
    name: str,
    namespace: str,
    command: list[str],
    volumes: dict[str, dict[str, Any]],
    *,
    container: dict[str, Any] | None = None,
    **pod: Any,
) -> dict[str, Any]:
    """Make a Deployment of one container of our image; volumes are mounted at /NAME."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 15,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": name,
                            "image": IMAGE,
                            "imagePullPolicy": "Never",
                            "command": command,
                            "securityContext": RESTRICTED,
                            "volumeMounts": [
                                {"name": volume, "mountPath": f"/{volume}", "readOnly": True}
                                for volume in volumes
                            ],
                        }
                        | (container or {})
                    ],
                    "volumes": [{"name": volume} | source for volume, source in volumes.items()],
                }
                | pod,
            },
        },
    }


def config_map(name: str, namespace: str, **data: str) -> dict[str, Any]:
    """Make a ConfigMap; `_` in a key stands for a dot."""
    files = {key.replace("_", "."): text for key, text in data.items()}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files}


def start_origin(cluster: Cluster, namespace: str, **pod: Any) -> None:
    """Run the service: HTTP on port 8000 and a TCP echo on 9000 of `origin`."""
    cluster.apply(
        config_map("origin", namespace, origin_py=ORIGIN.read_text()),
        deployment(
            "origin",
            namespace,
            ["python", "/origin/origin.py"],
            {"origin": {"configMap": {"name": "origin"}}},
            container={
                "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
            },
            **pod,
        ),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "origin", "namespace": namespace},
            "spec": {
                "selector": {"app": "origin"},
                "ports": [{"name": "http", "port": 8000}, {"name": "tcp", "port": 9000}],
            },
        },
    )
    cluster.rolled_out("deployment/origin", namespace)


def start_agent(
    cluster: Cluster,
    namespace: str,
    secret: str,
    *,
    name: str = "agent",
    tunnels: dict[str, Any] | None = None,
    wait: bool = True,
    **pod: Any,
) -> None:
    """Run an agent that has its address and credential from a mounted Secret."""
    tunnels = tunnels or {"shop": {"protocol": "http", "target": "origin:8000", "name": "shop"}}
    cluster.apply(
        config_map(name, namespace, moleport_yaml=yaml.safe_dump({"tunnels": tunnels})),
        deployment(
            name,
            namespace,
            ["moleport", "start", "--file=/config/moleport.yaml", "--secret-dir=/secret", "--json"],
            {
                "config": {"configMap": {"name": name}},
                "secret": {"secret": {"secretName": secret}},
            },
            **pod,
        ),
    )
    if wait:
        cluster.rolled_out(f"deployment/{name}", namespace)
