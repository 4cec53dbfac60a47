from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from moleport_operator.main import CRDS, main

ROOT = Path(__file__).parents[3]


def test_crds_prints_all_definitions() -> None:
    printed = CliRunner().invoke(main, ["crds"])

    kinds = [body["spec"]["names"]["kind"] for body in yaml.safe_load_all(printed.output)]
    assert kinds == ["TunnelToken", "TunnelPolicy", "ClusterTunnelPolicy"]


@pytest.mark.parametrize("name", CRDS)
def test_manifests_and_package_have_the_same_definitions(name: str) -> None:
    packaged = ROOT / "operator" / "moleport_operator" / "crds" / name

    assert (ROOT / "manifests" / "crds" / name).read_bytes() == packaged.read_bytes()


def test_run_says_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["run"])

    assert result.exit_code == 2
    assert "--server-url" in result.output


def test_run_without_a_cluster_says_what_to_do(tmp_path: Path) -> None:
    environ = {"KUBECONFIG": "", "HOME": str(tmp_path)}
    arguments = ["run", "--server-url=http://127.0.0.1:1", "--server-token-file=token"]

    result = CliRunner().invoke(main, [*arguments, "--health-port=0"], env=environ)

    assert result.exit_code == 78
    assert "KUBECONFIG" in result.output
