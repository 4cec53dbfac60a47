import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from helpers.control_server import ControlServer
from moleport_agent.doctor.findings import Outcome
from moleport_agent.doctor.route import find_route
from moleport_agent.doctor.tls import check_tls
from moleport_agent.settings import Secret, ServerSettings

NOW = datetime.now(UTC)
KEY = trustme.KeyType.ECDSA


@pytest.fixture
def ca():
    return trustme.CA(key_type=KEY)


@pytest.fixture
def ca_file(ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def examine(certificate, *, ca_file=None, insecure=False, now=NOW):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with ControlServer(context) as server:
        settings = ServerSettings(
            url=server.url, read_token=lambda: Secret("t"), ca_file=ca_file, insecure=insecure
        )
        return check_tls(find_route(server.url), settings, now)


def test_a_trusted_certificate_passes_with_version_and_end(ca, ca_file):
    finding = examine(ca.issue_cert("localhost", key_type=KEY), ca_file=ca_file)

    assert finding.outcome is Outcome.OK
    assert "TLSv1.3" in finding.sentence
    assert "good until" in finding.sentence


def test_a_wrong_name_tells_the_right_ones(ca, ca_file):
    finding = examine(ca.issue_cert("tunnels.example.com", key_type=KEY), ca_file=ca_file)

    assert finding.outcome is Outcome.FAILED
    assert finding.sentence == "the certificate is not for localhost, but for tunnels.example.com"


def test_an_expired_certificate_tells_when(ca, ca_file):
    yesterday = NOW - timedelta(days=1)
    certificate = ca.issue_cert(
        "localhost", key_type=KEY, not_before=NOW - timedelta(days=9), not_after=yesterday
    )

    finding = examine(certificate, ca_file=ca_file)

    assert finding.outcome is Outcome.FAILED
    assert f"expired on {yesterday:%Y-%m-%d}" in finding.sentence
    assert "renewed" in finding.remedy


def test_a_certificate_of_tomorrow_is_not_valid_yet(ca, ca_file):
    tomorrow = NOW + timedelta(days=1)
    certificate = ca.issue_cert(
        "localhost", key_type=KEY, not_before=tomorrow, not_after=NOW + timedelta(days=9)
    )

    finding = examine(certificate, ca_file=ca_file)

    assert finding.outcome is Outcome.FAILED
    assert f"not valid before {tomorrow:%Y-%m-%d}" in finding.sentence


def test_an_unknown_authority_is_told_with_the_way_to_trust_it(ca):
    finding = examine(ca.issue_cert("localhost", key_type=KEY))

    assert finding.outcome is Outcome.FAILED
    assert "--ca-file" in finding.remedy


def test_a_self_signed_certificate_is_called_so(ca):
    class SelfSigned:
        def configure_cert(self, context):
            with ca.cert_pem.tempfile() as certificate, ca.private_key_pem.tempfile() as key:
                context.load_cert_chain(certificate, key)

    finding = examine(SelfSigned())

    assert finding.outcome is Outcome.FAILED
    assert "self-signed" in finding.sentence


def test_a_certificate_that_ends_soon_is_a_warning(ca, ca_file):
    certificate = ca.issue_cert("localhost", key_type=KEY, not_after=NOW + timedelta(days=3))

    finding = examine(certificate, ca_file=ca_file)

    assert finding.outcome is Outcome.WARNING
    assert "ends on" in finding.sentence


def test_insecure_is_never_praised(ca):
    finding = examine(ca.issue_cert("elsewhere", key_type=KEY), insecure=True)

    assert finding.outcome is Outcome.WARNING
    assert "not verified" in finding.sentence


def test_a_port_without_tls_is_recognised():
    with ControlServer() as server:
        url = server.url.replace("http://", "https://")
        settings = ServerSettings(url=url, read_token=lambda: Secret("t"))

        finding = check_tls(find_route(url), settings, NOW)

    assert finding.outcome is Outcome.FAILED
    assert "speaks TLS" in finding.remedy or "cuts TLS" in finding.remedy


def test_plain_http_is_a_warning():
    settings = ServerSettings(url="http://127.0.0.1:1", read_token=lambda: Secret("t"))

    finding = check_tls(find_route(settings.url), settings, NOW)

    assert finding.outcome is Outcome.WARNING


def test_an_unusable_ca_file_is_named(tmp_path):
    settings = ServerSettings(
        url="https://127.0.0.1:1", read_token=lambda: Secret("t"), ca_file=tmp_path / "none.pem"
    )

    finding = check_tls(find_route(settings.url), settings, NOW)

    assert finding.outcome is Outcome.FAILED
    assert "none.pem" in finding.sentence
