"""Certificates of the TLS listeners: which one serves which name, and how new files take over.

A certificate is chosen by the server name of the ClientHello: exact name, wildcard of one level, a
certificate issued by the local authority, default. Each one has its own `ssl.SSLContext`, made anew
when its files change and then used for new connections; a replacement that cannot be used leaves
the old one in place and is logged. `TlsListener` asks for the context of each connection, so nobody
ever waits for a restart.
"""

import asyncio
import logging
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509

from moleport_server.config.settings import TlsSettings
from moleport_server.config.values import CertificateFiles
from moleport_server.edge.certificates import LOOPBACK_ADDRESSES, IssuedCertificate, LocalAuthority
from moleport_server.errors import ConfigError

logger = logging.getLogger(__name__)

ISSUED_LIMIT = 256
"""Certificates of the local authority that are kept: strangers choose the names."""

MAX_FILE_BYTES = 1_000_000
"""Far above any chain; stops a file of another kind from being read."""

AUTHORITY_LABEL = "local-authority"

_MIN_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class CertificateError(Exception):
    """A certificate or key file cannot be used; the text is for people and holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that is ready to serve."""

    label: str
    """Its file, for logs and metrics."""
    names: tuple[str, ...]
    """Host names and IP addresses in it, lower case."""
    not_after: float
    """When it ends, in Unix seconds."""
    context: ssl.SSLContext


_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class _Source:
    files: CertificateFiles
    stamp: _Stamp
    certificate: Certificate


class CertificateStore:
    """All certificates of one kind of listener."""

    def __init__(
        self,
        sources: Sequence[CertificateFiles],
        *,
        min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        authority: LocalAuthority | None = None,
        default_names: Sequence[str] = (),
    ) -> None:
        """Load everything.

        Args:
            sources: certificate files; the first one is the default.
            min_version: oldest TLS version that is spoken.
            authority: issues certificates for names that no file covers.
            default_names: names of the authority's certificate for clients that send none.

        Raises:
            ConfigError: a file cannot be used, or nothing at all was given.
        """
        self._min_version = min_version
        self._authority = authority
        self._issued: OrderedDict[str, Certificate] = OrderedDict()
        self._sources: list[_Source] = []
        self._by_name: dict[str, Certificate] = {}
        problems = []
        for files in sources:
            try:
                self._sources.append(_load_source(files, min_version))
            except CertificateError as error:
                problems.append(f"tls: {error}")
        if not problems and not sources and authority is None:
            problems.append("tls: no certificate is configured")
        if problems:
            raise ConfigError(problems)
        self._default_names = (*default_names, *LOOPBACK_ADDRESSES)
        self._index()

    @classmethod
    def for_edge(cls, tls: TlsSettings, authority: LocalAuthority | None = None) -> Self:
        """Make the store of the HTTPS edge.

        Raises:
            ConfigError: a file cannot be used, or nothing is configured.
        """
        default = _pair(tls.certificate_file, tls.key_file)
        return cls(
            [*default, *tls.certificates],
            min_version=_MIN_VERSIONS[tls.min_version],
            authority=authority,
            default_names=_default_names(authority),
        )

    @classmethod
    def for_control(cls, tls: TlsSettings, authority: LocalAuthority | None = None) -> Self:
        """Make the store of the control and API listeners, which may have their own certificate.

        Raises:
            ConfigError: a file cannot be used, or nothing is configured.
        """
        own = _pair(tls.control_certificate_file, tls.control_key_file)
        if not own:
            return cls.for_edge(tls, authority)
        return cls(own, min_version=_MIN_VERSIONS[tls.min_version])

    def certificate_for(self, server_name: str | None) -> Certificate:
        """Return the certificate for a server name (lower case), the default one if none fits."""
        if server_name is not None:
            found = self._by_name.get(server_name)
            if found is None and "." in server_name:
                found = self._by_name.get(f"*.{server_name.partition('.')[2]}")
            if found is not None:
                return found
            if self._authority is not None and self._authority.covers(server_name):
                return self._issue(server_name, (server_name,))
        if self._sources:
            return self._sources[0].certificate
        # The default certificate of the authority covers what clients use without a name.
        return self._issue("", self._default_names)

    def context_for(self, server_name: str | None) -> ssl.SSLContext:
        """Return the context for one new connection; ask again for the next one."""
        return self.certificate_for(server_name).context

    def server_context(self) -> ssl.SSLContext:
        """Return the context of the default certificate as it is now.

        For listeners that take one context for ever: they do not see later changes of the files.
        """
        return self.context_for(None)

    def expirations(self) -> dict[str, float]:
        """Return when each certificate ends, in Unix seconds, by its file."""
        ends = {source.certificate.label: source.certificate.not_after for source in self._sources}
        if self._authority is not None:
            ends[AUTHORITY_LABEL] = self._authority.not_after
        return ends

    async def watch(self, interval_seconds: float) -> None:
        """Reload changed files for ever; run it in a TaskGroup and cancel it at the end."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.reload()

    async def reload(self) -> int:
        """Take over files that changed and return how many certificates were replaced.

        A file that cannot be used is logged once per change, and its old certificate stays.
        """
        replaced = 0
        for source in self._sources:
            # In a thread, because the files may live on a network volume that hangs.
            stamp = await asyncio.to_thread(_stamp, source.files)
            if stamp == source.stamp:
                continue
            try:
                fresh = await asyncio.to_thread(_load_source, source.files, self._min_version)
            except CertificateError as error:
                logger.error(  # noqa: TRY400 - the file is wrong, a traceback says nothing more
                    "certificate not replaced",
                    extra={"file": source.certificate.label, "reason": str(error)},
                )
                source.stamp = stamp
                continue
            source.stamp, source.certificate = fresh.stamp, fresh.certificate
            replaced += 1
            logger.info(
                "certificate replaced",
                extra={
                    "file": source.certificate.label,
                    "names": ",".join(source.certificate.names),
                    "not_after": int(source.certificate.not_after),
                },
            )
        if replaced:
            self._index()
        return replaced

    def _index(self) -> None:
        # The first certificate with a name wins, as its order in the settings suggests.
        self._by_name = {
            name: source.certificate
            for source in reversed(self._sources)
            for name in source.certificate.names
        }

    def _issue(self, cache_key: str, names: Sequence[str]) -> Certificate:
        kept = self._issued.get(cache_key)
        if self._authority is None:
            raise CertificateError("no certificate is configured")
        if kept is not None and not self._authority.should_renew(kept.not_after):
            self._issued.move_to_end(cache_key)
            return kept
        certificate = _from_issued(self._authority.issue(names), self._min_version)
        self._issued[cache_key] = certificate
        if len(self._issued) > ISSUED_LIMIT:
            self._issued.popitem(last=False)
        return certificate


def _default_names(authority: LocalAuthority | None) -> tuple[str, ...]:
    if authority is None:
        return ()
    return tuple(name for domain in authority.domains for name in (domain, f"control.{domain}"))


def _pair(certificate: Path | None, key: Path | None) -> list[CertificateFiles]:
    if certificate is None or key is None:
        return []
    return [CertificateFiles(certificate_file=certificate, key_file=key)]


def _stamp(files: CertificateFiles) -> _Stamp:
    # The inode is part of it: Kubernetes replaces a mounted Secret by exchanging a symbolic link.
    stamps = []
    for path in (files.certificate_file, files.key_file):
        try:
            status = path.stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)


def _load_source(files: CertificateFiles, min_version: ssl.TLSVersion) -> _Source:
    # The stamp is taken first, so that a change while loading is seen at the next look.
    stamp = _stamp(files)
    path = files.certificate_file
    context = _new_context(min_version)
    try:
        with path.open("rb") as file:
            leaf = x509.load_pem_x509_certificate(file.read(MAX_FILE_BYTES))
        context.load_cert_chain(path, files.key_file, password=_refuse_passphrase)
    except ssl.SSLError as error:
        reason = (error.reason or "not a certificate chain with its key").replace("_", " ").lower()
        raise CertificateError(f"{path} and {files.key_file}: {reason}") from error
    except OSError as error:
        name = error.filename or f"{path} or {files.key_file}"
        raise CertificateError(f"{name}: {error.strerror or error}") from error
    except _HasPassphrase as error:
        raise CertificateError(f"{files.key_file}: the key has a passphrase") from error
    except ValueError as error:
        raise CertificateError(f"{path}: holds no certificate in PEM format") from error
    certificate = Certificate(
        label=str(path),
        names=_names(leaf),
        not_after=leaf.not_valid_after_utc.timestamp(),
        context=context,
    )
    return _Source(files, stamp, certificate)


class _HasPassphrase(Exception):
    pass


def _refuse_passphrase() -> str:
    # Without this OpenSSL asks on the terminal and stops the server for as long as nobody answers.
    raise _HasPassphrase


def _from_issued(issued: IssuedCertificate, min_version: ssl.TLSVersion) -> Certificate:
    context = _new_context(min_version)
    # The ssl module reads certificates from files only.
    with tempfile.NamedTemporaryFile() as file:
        file.write(issued.pem)
        file.flush()
        context.load_cert_chain(file.name)
    return Certificate(
        label=AUTHORITY_LABEL, names=issued.names, not_after=issued.not_after, context=context
    )


def _new_context(min_version: ssl.TLSVersion) -> ssl.SSLContext:
    # Never `create_default_context` and never an SNI or key-log callback: `client_hello` says why.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = min_version
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names: Mapping[str, None] = {
        **dict.fromkeys(name.lower() for name in found.get_values_for_type(x509.DNSName)),
        **dict.fromkeys(str(name) for name in found.get_values_for_type(x509.IPAddress)),
    }
    return tuple(names)
