"""Which certificate serves which name, by real handshakes in memory."""

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from helpers.certificates import TestAuthority
from moleport_server.clock import SystemClock
from moleport_server.config.settings import TlsSettings
from moleport_server.config.values import CertificateFiles
from moleport_server.edge import tls
from moleport_server.edge.certificates import LocalAuthority
from moleport_server.edge.tls import CertificateStore
from moleport_server.errors import ConfigError


@pytest.fixture
def authority(tmp_path: Path) -> Any:
    return TestAuthority(tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Any:
    return LocalAuthority.load_or_create(
        tmp_path / "tls", domains=("localhost",), clock=SystemClock()
    )


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours


def serial(files: CertificateFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.certificate_file.read_text())


def served(store: CertificateStore, authority: TestAuthority, name: str) -> bytes | None:
    client = authority.client()
    client.check_hostname = False
    return handshake(store.context_for(name), client, name).getpeercert(binary_form=True)


def test_a_certificate_is_chosen_by_exact_name_then_wildcard_then_default(
    authority: TestAuthority,
) -> None:
    default = authority.write("default", "default.example")
    wildcard = authority.write("wildcard", "*.t.example", "t.example")
    exact = authority.write("exact", "a.t.example")
    store = CertificateStore([default, wildcard, exact])

    assert served(store, authority, "a.t.example") == serial(exact)
    assert served(store, authority, "b.t.example") == serial(wildcard)
    assert served(store, authority, "t.example") == serial(wildcard)
    assert served(store, authority, "x.b.t.example") == serial(default)
    assert served(store, authority, "other.example") == serial(default)
    assert store.certificate_for(None).label == str(default.certificate_file)
    assert store.server_context() is store.context_for(None)


def test_the_first_certificate_with_a_name_wins(authority: TestAuthority) -> None:
    first, second = authority.write("1", "a.example"), authority.write("2", "a.example")

    store = CertificateStore([first, second])

    assert served(store, authority, "a.example") == serial(first)


def test_a_client_that_checks_names_refuses_the_wrong_certificate(authority: TestAuthority) -> None:
    store = CertificateStore([authority.write("a", "a.example")])

    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(store.context_for("b.example"), authority.client(), "b.example")


def test_http_1_1_is_negotiated_with_tls_1_2_or_later(authority: TestAuthority) -> None:
    store = CertificateStore([authority.write("a", "a.example")])
    client = authority.client()
    client.set_alpn_protocols(["h2", "http/1.1"])

    connection = handshake(store.context_for("a.example"), client, "a.example")

    assert connection.selected_alpn_protocol() == "http/1.1"
    assert store.server_context().minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_oldest_version_can_be_raised(authority: TestAuthority) -> None:
    files = authority.write("a", "a.example")
    settings = TlsSettings(
        certificate_file=files.certificate_file, key_file=files.key_file, min_version="1.3"
    )
    client = authority.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    store = CertificateStore.for_edge(settings)

    with pytest.raises(ssl.SSLError, match=r"(?i)protocol|version"):
        handshake(store.context_for(None), client, "a.example")


async def test_a_changed_file_serves_new_connections(
    authority: TestAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    store = CertificateStore([authority.write("a", "old.example")])
    assert await store.reload() == 0
    fresh = authority.write("a", "new.example")

    with caplog.at_level(logging.INFO):
        assert await store.reload() == 1

    assert served(store, authority, "new.example") == serial(fresh)
    assert store.certificate_for("new.example").names == ("new.example",)
    assert [record.getMessage() for record in caplog.records] == ["certificate replaced"]


async def test_an_exchanged_symbolic_link_is_a_change(
    authority: TestAuthority, tmp_path: Path
) -> None:
    old, new = authority.write("old", "a.example"), authority.write("new", "a.example")
    for files in (old, new):
        os.utime(files.certificate_file, (1, 1))
        os.utime(files.key_file, (1, 1))
    mounted = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    mounted.certificate_file.symlink_to(old.certificate_file)
    mounted.key_file.symlink_to(old.key_file)
    store = CertificateStore([mounted])

    for link, target in (("tls.crt", new.certificate_file), ("tls.key", new.key_file)):
        (tmp_path / "next").symlink_to(target)
        (tmp_path / "next").replace(tmp_path / link)

    assert await store.reload() == 1
    assert served(store, authority, "a.example") == serial(new)


@pytest.mark.parametrize("broken", ["garbage", "missing", "mismatch", "truncated"])
async def test_a_broken_replacement_keeps_the_old_certificate(
    authority: TestAuthority, caplog: pytest.LogCaptureFixture, broken: Any
) -> None:
    files = authority.write("a", "a.example")
    old = serial(files)
    store = CertificateStore([files])
    other = authority.write("other", "a.example")
    match broken:
        case "garbage":
            files.certificate_file.write_text("garbage")
        case "missing":
            files.key_file.unlink()
        case "mismatch":
            files.certificate_file.write_bytes(other.certificate_file.read_bytes())
        case "truncated":
            files.key_file.write_bytes(files.key_file.read_bytes()[:60])

    assert await store.reload() == 0
    assert await store.reload() == 0

    assert served(store, authority, "a.example") == old
    assert [record.getMessage() for record in caplog.records] == ["certificate not replaced"]
    files.certificate_file.write_bytes(other.certificate_file.read_bytes())
    files.key_file.write_bytes(other.key_file.read_bytes())
    assert await store.reload() == 1
    assert served(store, authority, "a.example") == serial(other)


async def test_watching_takes_over_a_change_and_ends_when_cancelled(
    authority: TestAuthority,
) -> None:
    store = CertificateStore([authority.write("a", "old.example")])

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(store.watch(0.001))
        authority.write("a", "new.example")
        while "new.example" not in store.certificate_for(None).names:
            await asyncio.sleep(0)
        watcher.cancel()

    assert watcher.cancelled()


def test_all_broken_files_are_reported_at_once(authority: TestAuthority, tmp_path: Path) -> None:
    good = authority.write("good", "a.example")
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")

    with pytest.raises(ConfigError) as caught:
        CertificateStore(
            [
                good,
                CertificateFiles(tmp_path / "gone.pem", good.key_file),
                CertificateFiles(garbage, good.key_file),
                CertificateFiles(good.certificate_file, garbage),
            ]
        )

    assert len(caught.value.problems) == 3
    assert "gone.pem: No such file or directory" in caught.value.problems[0]
    assert "garbage.pem: holds no certificate" in caught.value.problems[1]
    assert "garbage.pem" in caught.value.problems[2]


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(
    authority: TestAuthority, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    files = authority.write("a", "a.example")
    key = serialization.load_pem_private_key(files.key_file.read_bytes(), None)
    files.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(ConfigError, match="the key has a passphrase"):
        CertificateStore([files])


def test_nothing_configured_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no certificate is configured"):
        CertificateStore.for_edge(TlsSettings())


def test_control_has_its_own_certificate_or_that_of_the_edge(authority: TestAuthority) -> None:
    edge, control = authority.write("edge", "t.example"), authority.write("control", "c.example")
    settings = TlsSettings(certificate_file=edge.certificate_file, key_file=edge.key_file)
    own = TlsSettings(
        control_certificate_file=control.certificate_file, control_key_file=control.key_file
    )

    shared = CertificateStore.for_control(settings)

    assert served(shared, authority, "c.example") == serial(edge)
    assert served(CertificateStore.for_control(own), authority, "c.example") == serial(control)


def test_expirations_are_told_by_file(authority: TestAuthority, local: LocalAuthority) -> None:
    files = authority.write("a", "a.example")

    expirations = CertificateStore([files], authority=local).expirations()

    assert expirations.keys() == {str(files.certificate_file), tls.AUTHORITY_LABEL}
    assert expirations[tls.AUTHORITY_LABEL] == local.not_after


@pytest.mark.parametrize("name", ["quick-otter.localhost", "localhost", "a.b.localhost"])
def test_the_local_authority_serves_every_name_under_its_domains(
    local: LocalAuthority, name: Any
) -> None:
    store = CertificateStore.for_edge(TlsSettings(), local)
    client = ssl.create_default_context(cafile=str(local.ca_file))

    connection = handshake(store.context_for(name), client, name)

    certificate = connection.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", name),)
    assert store.context_for(name) is store.context_for(name)


@pytest.mark.parametrize("name", ["localhost", "control.localhost", "127.0.0.1", "::1"])
def test_the_default_certificate_of_the_local_authority_fits_loopback(
    local: LocalAuthority, name: Any
) -> None:
    store = CertificateStore.for_edge(TlsSettings(), local)
    client = ssl.create_default_context(cafile=str(local.ca_file))

    assert handshake(store.context_for(None), client, name).version() == "TLSv1.3"


def test_strangers_cannot_make_the_server_keep_certificates_for_ever(
    local: LocalAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "ISSUED_LIMIT", 2)
    store = CertificateStore.for_edge(TlsSettings(), local)
    first = store.context_for("a.localhost")

    for name in ("b.localhost", "c.localhost"):
        store.context_for(name)

    assert store.context_for("a.localhost") is not first
    assert store.context_for("foreign.example") is store.context_for(None)


def test_no_context_has_a_callback_that_ends_the_process(
    authority: TestAuthority, local: LocalAuthority
) -> None:
    store = CertificateStore([authority.write("a", "a.example")], authority=local)

    for name in (None, "a.example", "x.localhost"):
        context = store.context_for(name)
        assert context.sni_callback is None
        assert context.keylog_filename is None


def test_paths_are_what_settings_hold(tmp_path: Path) -> None:
    settings = TlsSettings(certificate_file=Path("x"), key_file=tmp_path / "y")

    with pytest.raises(ConfigError, match="x: No such file"):
        CertificateStore.for_edge(settings)
