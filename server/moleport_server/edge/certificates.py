"""A local authority for development: a self-signed CA that issues a certificate for each name.

`moleport-server dev` has nothing configured, and OpenSSL refuses the wildcard `*.localhost`, so
each name gets its own certificate when a client first asks for it. Clients trust `ca.pem`. The key
of the authority stays in the data directory, readable by its owner only; a name constraint keeps it
from vouching for anything but the development domains. Not for production: there certificates come
from files.
"""

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moleport_server.clock import Clock
from moleport_server.config.profile import write_private
from moleport_server.config.settings import CA_FILE
from moleport_server.errors import ConfigError

CA_DAYS = 365
LEAF_DAYS = 90
RENEWAL_DAYS = 30
"""A certificate with less than this left is replaced: a leaf on its next use, an authority at
start."""

KEY_FILE = "ca.key"
LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\Z")


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A fresh certificate with its key."""

    pem: bytes
    """Leaf, authority and key in one file; secret."""
    names: tuple[str, ...]
    not_after: float
    """Unix seconds."""

    def __repr__(self) -> str:
        return f"IssuedCertificate(names={self.names!r}, not_after={self.not_after!r})"


class LocalAuthority:
    """Issues certificates for names under the development domains."""

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        *,
        ca_file: Path,
        domains: Sequence[str],
        clock: Clock,
    ) -> None:
        self.ca_file = ca_file
        self.domains = tuple(domains)
        self._certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def load_or_create(cls, directory: Path, *, domains: Sequence[str], clock: Clock) -> Self:
        """Return the authority kept in `directory`, or make one there.

        A new one is made as well when the old one ends soon or is for other domains; clients have
        to trust the new `ca.pem` then.

        Raises:
            ConfigError: the files cannot be read, do not belong together, or cannot be written.
        """
        ca_file, key_file = directory / CA_FILE, directory / KEY_FILE
        # Clients on the same machine reach the control listener as localhost, whatever is public.
        domains = tuple(dict.fromkeys((*domains, "localhost")))
        now = clock.now()
        try:
            kept = _load(ca_file, key_file)
            if kept is None or not _is_usable(kept[0], domains, now):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                kept = _create(domains, now)
                # The key first: a certificate without its key would be refused at the next start.
                write_private(key_file, _key_pem(kept[1]).decode("ascii"))
                write_private(ca_file, _pem(kept[0]).decode("ascii"))
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError([f"tls.authority_dir: {directory}: {reason}"]) from error
        except (ValueError, InvalidSignature) as error:
            message = f"tls.authority_dir: {directory} holds no usable authority, remove it"
            raise ConfigError([f"{message} ({error})"]) from error
        return cls(*kept, ca_file=ca_file, domains=domains, clock=clock)

    @property
    def not_after(self) -> float:
        """When the authority itself ends, in Unix seconds."""
        return self._certificate.not_valid_after_utc.timestamp()

    def covers(self, name: str) -> bool:
        """Whether `name` (lower case) is a domain of ours or below one, and well formed."""
        is_ours = any(name == domain or name.endswith(f".{domain}") for domain in self.domains)
        return is_ours and len(name) <= 253 and _NAME.match(name) is not None

    def should_renew(self, not_after: float) -> bool:
        """Whether a leaf that ends at `not_after` should be issued anew."""
        # At the end of the authority itself a new leaf would not live any longer.
        ends_soon = not_after - self._clock.now() < RENEWAL_DAYS * 86_400
        return ends_soon and not_after < self.not_after

    def issue(self, names: Sequence[str]) -> IssuedCertificate:
        """Issue a certificate for host names and IP addresses, with a key of its own.

        Raises:
            ValueError: no name was given.
        """
        if not names:
            raise ValueError("a certificate needs a name")
        key = ec.generate_private_key(ec.SECP256R1())
        start = dt.datetime.fromtimestamp(self._clock.now(), dt.UTC) - dt.timedelta(hours=1)
        end = min(start + dt.timedelta(days=LEAF_DAYS), self._certificate.not_valid_after_utc)
        leaf = (
            x509.CertificateBuilder()
            # An empty subject: common names longer than 64 characters are invalid, SANs are read.
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = _pem(leaf) + _pem(self._certificate) + _key_pem(key)
        return IssuedCertificate(pem, tuple(names), end.timestamp())


def _load(
    ca_file: Path, key_file: Path
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    if not ca_file.exists():
        return None
    certificate = x509.load_pem_x509_certificate(ca_file.read_bytes())
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind")  # noqa: TRY004 - the file is wrong
    if key.public_key() != certificate.public_key():
        raise ValueError("its key belongs to another certificate")
    certificate.verify_directly_issued_by(certificate)
    return certificate, key


def _is_usable(certificate: x509.Certificate, domains: Sequence[str], now: float) -> bool:
    left = certificate.not_valid_after_utc.timestamp() - now
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    permitted = {
        name.value
        for name in constraints.permitted_subtrees or ()
        if isinstance(name, x509.DNSName)
    }
    return left > RENEWAL_DAYS * 86_400 and permitted == set(domains)


def _create(
    domains: Sequence[str], now: float
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "moleport development authority")])
    start = dt.datetime.fromtimestamp(now, dt.UTC) - dt.timedelta(hours=1)
    networks = [ipaddress.ip_network(address) for address in LOOPBACK_ADDRESSES]
    permitted = [
        *(x509.DNSName(domain) for domain in domains),
        *(x509.IPAddress(network) for network in networks),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(
            x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
