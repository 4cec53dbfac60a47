"""Certificate files of an authority that clients in tests trust."""

import ssl
from pathlib import Path

import trustme

from moleport_server.config.values import CertificateFiles


class TestAuthority:
    """Writes certificates and makes clients that trust them."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)

    def write(self, name: str, *names: str) -> CertificateFiles:
        """Write `name.pem` and `name.key` for some host names, over older ones."""
        issued = self._ca.issue_cert(*names, key_type=trustme.KeyType.ECDSA)
        certificate = self._directory / f"{name}.pem"
        key = self._directory / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return CertificateFiles(certificate_file=certificate, key_file=key)

    def client(self) -> ssl.SSLContext:
        """Return a context for a client that trusts this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context
