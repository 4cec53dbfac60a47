import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
import trustme

from helpers.control_server import ControlServer
from moleport_agent.doctor.findings import Finding, Outcome
from moleport_agent.doctor.route import find_route
from moleport_agent.doctor.tls import check_tls
from moleport_agent.settings import Secret, ServerSettings

NOW = datetime.now(UTC)
KEY = trustme.KeyType.ECDSA


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA(key_type=KEY)


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


class Certificate(Protocol):
    """What trustme's certificates can do, and the self-signed one of a test as well."""

    def configure_cert(self, context: ssl.SSLContext) -> None: ...


def examine(
    certificate: Certificate,
    *,
    ca_file: Path | None = None,
    insecure: bool = False,
    now: datetime = NOW,
) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with ControlServer(context) as server:
        settings = ServerSettings(
            url=server.url, read_token=lambda: Secret("t"), ca_file=ca_file, insecure=insecure
        )
        return check_tls(find_route(server.url), settings, now)


def test_a_trusted_certificate_passes_with_version_and_end(ca: trustme.CA, ca_file: Path) -> None:
    finding = examine(ca.issue_cert("localhost", key_type=KEY), ca_file=ca_file)

    assert finding.outcome is Outcome.OK
    assert "TLSv1.3" in finding.sentence
    assert "good until" in finding.sentence


def test_a_wrong_name_tells_the_right_ones(ca: trustme.CA, ca_file: Path) -> None:
    finding = examine(ca.issue_cert("tunnels.example.com", key_type=KEY), ca_file=ca_file)

    assert finding.outcome is Outcome.FAILED
    assert finding.sentence == "the certificate is not for localhost, but for tunnels.example.com"


def test_an_expired_certificate_tells_when(ca: trustme.CA, ca_file: Path) -> None:
    yesterday = NOW - timedelta(days=1)
    certificate = ca.issue_cert(
        "localhost", key_type=KEY, not_before=NOW - timedelta(days=9), not_after=yesterday
    )

    finding = examine(certificate, ca_file=ca_file)

    assert finding.outcome is Outcome.FAILED
    assert f"expired on {yesterday:%Y-%m-%d}" in finding.sentence
    assert "renewed" in str(finding.remedy)


def test_a_certificate_of_tomorrow_is_not_valid_yet(ca: trustme.CA, ca_file: Path) -> None:
    tomorrow = NOW + timedelta(days=1)
    certificate = ca.issue_cert(
        "localhost", key_type=KEY, not_before=tomorrow, not_after=NOW + timedelta(days=9)
    )

    finding = examine(certificate, ca_file=ca_file)

    assert finding.outcome is Outcome.FAILED
    assert f"not valid before {tomorrow:%Y-%m-%d}" in finding.sentence


def test_an_unknown_authority_is_told_with_the_way_to_trust_it(ca: trustme.CA) -> None:
    finding = examine(ca.issue_cert("localhost", key_type=KEY))

    assert finding.outcome is Outcome.FAILED
    assert "--ca-file" in str(finding.remedy)


def test_a_self_signed_certificate_is_called_so(ca: trustme.CA) -> None:
    class SelfSigned:
        def configure_cert(self, context: ssl.SSLContext) -> None:
            with ca.cert_pem.tempfile() as certificate, ca.private_key_pem.tempfile() as key:
                context.load_cert_chain(certificate, key)

    finding = examine(SelfSigned())

    assert finding.outcome is Outcome.FAILED
    assert "self-signed" in finding.sentence


def test_a_certificate_that_ends_soon_is_a_warning(ca: trustme.CA, ca_file: Path) -> None:
    certificate = ca.issue_cert("localhost", key_type=KEY, not_after=NOW + timedelta(days=3))

    finding = examine(certificate, ca_file=ca_file)

    assert finding.outcome is Outcome.WARNING
    assert "ends on" in finding.sentence


def test_insecure_is_never_praised(ca: trustme.CA) -> None:
    finding = examine(ca.issue_cert("elsewhere", key_type=KEY), insecure=True)

    assert finding.outcome is Outcome.WARNING
    assert "not verified" in finding.sentence


def test_a_port_without_tls_is_recognised() -> None:
    with ControlServer() as server:
        url = server.url.replace("http://", "https://")
        settings = ServerSettings(url=url, read_token=lambda: Secret("t"))

        finding = check_tls(find_route(url), settings, NOW)

    assert finding.outcome is Outcome.FAILED
    assert "speaks TLS" in str(finding.remedy) or "cuts TLS" in str(finding.remedy)


def test_plain_http_is_a_warning() -> None:
    settings = ServerSettings(url="http://127.0.0.1:1", read_token=lambda: Secret("t"))

    finding = check_tls(find_route(settings.url), settings, NOW)

    assert finding.outcome is Outcome.WARNING


def test_an_unusable_ca_file_is_named(tmp_path: Path) -> None:
    settings = ServerSettings(
        url="https://127.0.0.1:1", read_token=lambda: Secret("t"), ca_file=tmp_path / "none.pem"
    )

    finding = check_tls(find_route(settings.url), settings, NOW)

    assert finding.outcome is Outcome.FAILED
    assert "none.pem" in finding.sentence
