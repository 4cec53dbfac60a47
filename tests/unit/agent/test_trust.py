import asyncio
import ssl
import tempfile
from pathlib import Path

import aiofastnet
import pytest
import trustme

from moleport_agent.errors import ConfigError
from moleport_agent.trust import client_context, data_path_context


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


async def test_the_data_path_connects_where_no_file_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_side
    )
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])

    context = data_path_context(tmp_path / "ca.pem")
    async with server, asyncio.timeout(10):
        transport, _ = await aiofastnet.create_connection(
            asyncio.get_running_loop(),
            asyncio.Protocol,
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            ssl=context,
            server_hostname="localhost",
        )
        transport.close()
