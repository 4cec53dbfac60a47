"""What the cluster lets our pods do, and what they would not be able to do."""

import json

from helpers.kubernetes_cluster import Cluster
from helpers.release import CHART, IMAGE, NODE_PORTS, Release
from helpers.workloads import IMAGE as AGENT_IMAGE

LIMIT_BYTES = 80_000_000


async def test_the_restricted_pod_security_level_takes_every_pod(
    cluster: Cluster, release: Release
) -> None:
    release.ensure(NODE_PORTS)

    # With the label in place each pod was refused or is restricted; a change of the label says which are not.
    said = cluster.kubectl(
        *("label", "--overwrite", "namespace", release.namespace),
        *("pod-security.kubernetes.io/enforce=restricted", "--dry-run=server"),
    )
    pods = cluster.pods(release.namespace)

    assert "violates" not in said
    assert len(pods) >= 2
    for pod in pods:
        assert pod.status.phase == "Running"
        [*containers] = pod.spec.containers
        assert all(c.security_context.read_only_root_filesystem for c in containers)


async def test_pods_run_as_nobody_without_capabilities_and_keep_their_secrets_to_themselves(
    cluster: Cluster, release: Release
) -> None:
    release.ensure(NODE_PORTS)

    for pod in (release.server_pod(), release.operator_pod()):
        inside = ("-n", release.namespace, "exec", pod.metadata.name, "--")
        assert cluster.kubectl(*inside, "id", "-u").strip() == "65532"
        status = cluster.kubectl(*inside, "cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        arguments = cluster.kubectl(*inside, "cat", "/proc/1/cmdline")
        environment = cluster.kubectl(*inside, "cat", "/proc/1/environ")
        logs = cluster.kubectl("-n", release.namespace, "logs", pod.metadata.name)
        assert release.admin_token not in arguments + environment + logs
        assert "Read-only file system" in cluster.kubectl(
            *inside, "python", "-c", "open('/opt/moleport/x', 'w')", code=None
        )


async def test_network_policies_are_rendered_and_accepted_but_nothing_enforces_them_here(
    cluster: Cluster, release: Release
) -> None:
    release.ensure(NODE_PORTS)
    values = release.directory / "network.json"
    values.write_text(json.dumps(IMAGE | {"networkPolicy": {"enabled": True}}))
    rendered = cluster.helm(
        *("template", "-n", release.namespace, "moleport", str(CHART), "-f", str(values))
    )
    policies = [part for part in rendered.split("\n---") if "\nkind: NetworkPolicy" in part]

    said = cluster.kubectl(
        *("-n", release.namespace, "apply", "--dry-run=server", "-f", "-"),
        given="\n---\n".join(policies),
    )

    assert len(policies) >= 2
    assert said.count("created (server dry run)") == len(policies)


def test_the_image_is_small_compiled_and_says_what_it_is(cluster: Cluster) -> None:
    engine = cluster.engine
    image = json.loads(cluster.run(engine, "image", "inspect", AGENT_IMAGE))[0]
    history = cluster.run(engine, "history", "--no-trunc", "--format", "json", AGENT_IMAGE)
    listed = json.loads(history) if history.startswith("[") else history.splitlines()
    layers = [json.loads(layer) if isinstance(layer, str) else layer for layer in listed]
    ours = [layer for layer in layers if "/opt/moleport" in layer.get("CreatedBy", "")]

    assert ours
    assert sum(int(layer["size"]) for layer in ours) < LIMIT_BYTES
    assert image["Config"]["User"] == "65532:65532"
    assert image["Config"]["Labels"]["org.opencontainers.image.version"]
