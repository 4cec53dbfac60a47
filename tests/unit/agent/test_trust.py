import ssl
from pathlib import Path

import pytest
import trustme

from moleport_agent.errors import ConfigError
from moleport_agent.trust import client_context


def test_by_default_the_system_decides_whom_to_trust() -> None:
    context = client_context(None)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_ca_file_replaces_the_systems_authorities(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")

    context = client_context(tmp_path / "ca.pem")

    assert context.cert_store_stats()["x509_ca"] == 1


def test_insecure_verifies_nothing_but_still_encrypts_well() -> None:
    context = client_context(None, insecure=True)

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, b"", b"no pem"], ids=["missing", "empty", "no pem"])
def test_a_ca_file_without_a_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"ca\.pem"):
        client_context(path)
