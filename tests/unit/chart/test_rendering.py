"""What helm makes of the chart, for seven sets of values."""

from __future__ import annotations

import base64
import json
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

import chart_dashboards
import chart_manifests
import chart_reference
from chart_manifests import CHART, GOLDEN, NO_HELM, ROOT, SETS, find_tool, helm
from moleport_server.config.load import resolve

pytestmark = pytest.mark.skipif(find_tool("helm") is None, reason=NO_HELM)

POD_TEMPLATES = {"StatefulSet", "Deployment", "Job"}


@cache
def rendered(name: str) -> list[dict[str, Any]]:
    return chart_manifests.render_set(name)


def find(name: str, kind: str, suffix: str = "") -> dict[str, Any]:
    [found] = [
        body
        for body in rendered(name)
        if body["kind"] == kind and body["metadata"]["name"].endswith(suffix)
    ]
    return found


def pods(name: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for body in rendered(name):
        title = f"{body['kind']} {body['metadata']['name']}"
        if body["kind"] in POD_TEMPLATES:
            inner = body["spec"]["template"]
            yield title, inner["metadata"]["labels"], inner["spec"]
        elif body["kind"] == "Pod":
            yield title, body["metadata"]["labels"], body["spec"]


@pytest.mark.parametrize("name", SETS)
def test_the_chart_renders_as_the_golden_file_says(name: str) -> None:
    assert chart_manifests.render_golden(name) == (GOLDEN / f"{name}.yaml").read_text("utf-8"), (
        "run `make chart` and look at the difference"
    )


def test_there_are_enough_sets_of_values_and_each_is_linted() -> None:
    said = [
        helm(
            *("lint", "--strict", "--kube-version", chart_manifests.KUBERNETES, str(CHART)),
            *("--values", str(CHART / "ci" / f"{name}-values.yaml")),
        )
        for name in SETS
    ]

    assert len(SETS) >= 6
    assert all("1 chart(s) linted, 0 chart(s) failed" in text for text in said), said


@pytest.mark.parametrize("path", sorted(chart_reference.render()), ids=lambda path: path.name)
def test_what_is_made_from_the_values_is_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == chart_reference.render()[path], "run `make chart`"


def test_the_manifests_are_what_the_chart_renders() -> None:
    made = chart_manifests.render_manifests()

    stale = [path.name for path, text in made.items() if path.read_text("utf-8") != text]
    assert stale == [], "run `make chart`"


@pytest.mark.parametrize("board", chart_dashboards.BOARDS, ids=lambda board: board.name)
def test_the_dashboards_are_what_their_table_says(board: chart_dashboards.Board) -> None:
    path = chart_dashboards.FOLDER / f"{board.name}.json"

    assert path.read_text("utf-8") == chart_dashboards.render(board), "run `make chart`"


@pytest.mark.parametrize(
    "source", sorted((CHART / "files" / "crds").iterdir()), ids=lambda p: p.name
)
def test_definitions_are_those_of_the_operator_and_stay(source: Path) -> None:
    wanted = yaml.safe_load((ROOT / "manifests" / "crds" / source.name).read_text("utf-8"))

    [found] = [
        body
        for body in rendered("default")
        if body["metadata"]["name"] == wanted["metadata"]["name"]
    ]
    assert found["spec"] == wanted["spec"]
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("name", SETS)
def test_every_pod_keeps_to_the_restricted_level(name: str) -> None:
    seen = 0
    for title, _, spec in pods(name):
        seen += 1
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, title
        assert security["runAsUser"] > 0, title
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, title
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), title
        for container in spec["containers"] + spec.get("initContainers", []):
            inner = container["securityContext"]
            assert inner["allowPrivilegeEscalation"] is False, title
            assert inner["capabilities"] == {"drop": ["ALL"]}, title
            assert inner["readOnlyRootFilesystem"] is True, title
            assert inner["privileged"] is False, title
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], title
            assert all(port["containerPort"] > 1024 for port in container.get("ports", [])), title
        assert all(
            {"emptyDir", "secret", "configMap", "persistentVolumeClaim"} & volume.keys()
            for volume in spec["volumes"]
        ), title
    assert seen >= 2


@pytest.mark.parametrize("name", SETS)
def test_only_pods_that_talk_to_the_api_server_have_its_token(name: str) -> None:
    has_token = {
        labels["app.kubernetes.io/component"]: spec["automountServiceAccountToken"]
        for _, labels, spec in pods(name)
    }

    expected = {"server": False, "operator": True, "uninstall": True, "test": False}
    assert has_token == {part: expected[part] for part in has_token}


@pytest.mark.parametrize("name", SETS)
def test_services_and_selectors_find_pods_by_labels_that_never_change(name: str) -> None:
    selectable = {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/component",
    }
    pod_labels = [labels for _, labels, _ in pods(name)]
    selectors = [
        body["spec"]["selector"].get("matchLabels", body["spec"]["selector"])
        for body in rendered(name)
        if body["kind"]
        in {"Service", "Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"}
    ]

    assert all(selector.keys() == selectable for selector in selectors)
    assert all(any(s.items() <= labels.items() for labels in pod_labels) for s in selectors)
    # An upgrade of the chart alone restarts nothing.
    kept = [labels for title, labels, _ in pods(name) if not title.startswith("Pod ")]
    assert not any("helm.sh/chart" in labels for labels in kept)


@pytest.mark.parametrize("name", [name for name in SETS if name != "operator-only"])
def test_the_server_accepts_the_settings_that_the_chart_writes(name: str) -> None:
    text = find(name, "ConfigMap", "moleport-server")["data"]["moleport-server.toml"]
    mounts = [
        volume["mountPath"]
        for title, _, spec in pods(name)
        if title.startswith("StatefulSet")
        for container in spec["containers"]
        for volume in container["volumeMounts"]
    ]

    def read(path: Path) -> str:
        return text if path.name == "moleport-server.toml" else "a-token"

    settings = resolve({}, {}, read, config_file=Path("moleport-server.toml")).settings

    files = [
        settings.auth.admin_token_file,
        settings.tls.certificate_file,
        settings.tls.control_certificate_file,
        *(pair.certificate_file for pair in settings.tls.certificates),
    ]
    assert all(str(path.parent) in mounts for path in files if path is not None)
    assert str(settings.server.data_dir) in mounts
    grace = find(name, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > settings.server.drain_delay_seconds + settings.server.drain_seconds


@pytest.mark.parametrize(
    ("name", "http", "https", "scheme", "agents"),
    [
        ("default", 80, 443, None, "https://mole-moleport-control.tunnels.svc:4040"),
        ("nodeport", 30080, 30443, None, "https://mole-moleport-control.tunnels.svc:4040"),
        ("production", 80, 443, None, None),
        ("ingress", 80, 443, "https", None),
        ("gateway", 80, 443, "https", None),
        ("namespaced", 80, 443, None, None),
    ],
)
def test_public_addresses_follow_from_how_visitors_come(
    name: str, http: int, https: int, scheme: str | None, agents: str | None
) -> None:
    settings = tomllib.loads(
        find(name, "ConfigMap", "moleport-server")["data"]["moleport-server.toml"]
    )
    arguments = find(name, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]

    public = settings["public"]
    assert (public["http_port"], public["https_port"], public.get("scheme")) == (
        http,
        https,
        scheme,
    )
    urls = [text.removeprefix("--agent-url=") for text in arguments if "--agent-url=" in text]
    assert urls == ([agents] if agents else [])


def test_tcp_node_ports_are_the_ports_of_the_tunnels() -> None:
    ports = find("nodeport", "Service", "-tcp")["spec"]["ports"]

    assert [(p["port"], p["targetPort"], p["nodePort"]) for p in ports] == [
        (port, port, port) for port in (30500, 30501, 30502)
    ]


def test_a_single_server_may_be_evicted_and_keeps_its_database_to_itself() -> None:
    budget = find("default", "PodDisruptionBudget", "-server")["spec"]
    [claim] = find("default", "StatefulSet")["spec"]["volumeClaimTemplates"]

    assert budget["maxUnavailable"] == 1
    assert find("default", "StatefulSet")["spec"]["replicas"] == 1
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_namespaced_mode_has_nothing_of_the_whole_cluster() -> None:
    own = {"team-tunnels", "team-a", "team-b"}

    assert {body["metadata"].get("namespace") for body in rendered("namespaced")} <= own
    assert not [body for body in rendered("namespaced") if body["kind"].startswith("Cluster")]


def test_an_uninstall_lets_go_after_the_operator_or_drains_before_it() -> None:
    keeps, deletes = find("default", "Job"), find("production", "Job")

    def told(job: dict[str, Any]) -> tuple[str, str]:
        arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
        return job["metadata"]["annotations"]["helm.sh/hook"], arguments[0]

    assert told(keeps) == ("post-delete", "let-go")
    assert told(deletes) == ("pre-delete", "drain")


def test_a_second_rendering_differs_in_generated_secrets_only() -> None:
    first, second = (
        [body for body in chart_manifests.render_set("default") if body["kind"] != "Secret"]
        for _ in range(2)
    )

    assert first == second


def test_the_generated_certificate_is_good_for_visitors_agents_and_the_operator(
    tmp_path: Path,
) -> None:
    data = find("default", "Secret", "-tls")["data"]
    for name, encoded in data.items():
        (tmp_path / name).write_bytes(base64.b64decode(encoded))
    names = (
        x509.load_pem_x509_certificate((tmp_path / "tls.crt").read_bytes())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.DNSName)
    )

    verify = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "tls.crt"]
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True).returncode == 0
    assert {"tunnels.localhost", "*.tunnels.localhost", "mole-moleport-api.tunnels.svc"} <= {*names}


REFUSED = {
    "server.replica=2": "additional properties 'replica' not allowed",
    "server.replicas=2": "at '/server/replicas': value must be one of 0, 1",
    "server.settings.limits.sesions=5": "additional properties 'sesions' not allowed",
    "server.settings.limits.sessions=0": "minimum: got 0, want 1",
    "servers.enabled=false": "additional properties 'servers' not allowed",
    "service.edge.type=ExternalName": "at '/service/edge/type'",
    "service.edge.nodePorts.htps=30443": "additional properties 'htps' not allowed",
    "tls.mode=acme": "at '/tls/mode'",
    "domain=Not A Domain": "at '/domain'",
    "image.digest=sha256:abc": "at '/image/digest'",
    "image.tag=a:b": "at '/image/tag'",
    "persistence.size=lots": "at '/persistence/size'",
    "persistence.accessModes={ReadWriteMany}": "at '/persistence/accessModes/0'",
    "operator.extraArgs=--x": "at '/operator/extraArgs'",
    "rbac.scope=everything": "at '/rbac/scope'",
    "uninstall.objects=keep": "at '/uninstall/objects'",
    "metrics.prometheusRule.alerts.MoleportServerDown.of=5m": "additional properties 'of'",
    # What no schema can say, in sentences:
    "service.tcp.type=NodePort": "has to lie inside 30000-32767",
    "server.tcpPorts=20000-21000": "more than 1000 ports",
    "server.tcpPorts=9000-9100": "contains 9090, which the server itself listens on",
    "server.tcpPorts=5-1": "5 is above 1",
    "tls.mode=existingSecret": "tls.existingSecret: missing",
    "tls.existingSecret=x": "is ignored with tls.mode selfSigned",
    "tls.mode=certManager": "tls.certManager.issuerRef.name: missing",
    "tls.mode=none": "needs something in front that ends TLS",
    "ingress.enabled=true,gateway.enabled=true": "choose one",
    "gateway.enabled=true": "gateway.parentRefs: missing",
    "ingress.enabled=true,service.edge.httpPort=null": "service.edge.httpPort: needed",
    "server.enabled=false": "operator.server.url: missing",
    "rbac.watchNamespaces={a}": "is ignored with rbac.scope cluster",
    "crds.keep=false": "deletes every TunnelToken",
    "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true": "scraped twice",
    "metrics.prometheusRule.enabled=true,metrics.prometheusRule.alerts.No.for=5m": "no such alert",
}


@pytest.mark.parametrize(("values", "sentence"), REFUSED.items(), ids=REFUSED)
def test_wrong_values_are_refused_with_a_sentence(values: str, sentence: str) -> None:
    said = helm(
        *("template", "mole", str(CHART), "--kube-version", chart_manifests.KUBERNETES),
        *("--set", values),
        code=1,
    )

    assert sentence in said


def test_all_contradictions_are_named_at_once() -> None:
    said = helm(
        *("template", "mole", str(CHART), "--kube-version", chart_manifests.KUBERNETES),
        *("--set", "tls.mode=none,crds.keep=false,service.tcp.type=NodePort"),
        code=1,
    )

    assert "3 problem(s)" in said


def test_the_chart_works_as_a_part_of_another_one(tmp_path: Path) -> None:
    parent = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "moleport").symlink_to(CHART)
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent))
    values = {"global": {"imageRegistry": "registry.test"}, "moleport": {"enabled": True}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))

    text = helm("template", "one", str(tmp_path), "--kube-version", chart_manifests.KUBERNETES)

    assert "image: registry.test/moleport/moleport:" in text


def test_extra_objects_are_templates_and_dashboards_are_json() -> None:
    extra = find("production", "ConfigMap", "-extra")
    dashboards = [
        json.loads(text)
        for body in rendered("production")
        if body["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
        for text in body["data"].values()
    ]

    assert extra["metadata"]["name"] == "mole-extra"
    assert len(dashboards) == 3
    assert len({board["uid"] for board in dashboards}) == 3


def test_chart_manifests_and_package_have_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    tags = [
        image["newTag"]
        for folder in ("", "samples")
        for image in yaml.safe_load(
            (ROOT / "manifests" / folder / "kustomization.yaml").read_text("utf-8")
        )["images"]
    ]

    assert {chart["version"], chart["appVersion"], *tags} == {version}
    assert f"ghcr.io/moleport/moleport:{version}" in chart["annotations"]["artifacthub.io/images"]
