"""Whom to believe: the one place that turns `--ca-file` and `--insecure` into a TLS context.

Shared by the REST client and the doctor (and usable by whoever else dials the server), so that what
the doctor verifies is what the other commands verify.
"""

import ssl
import tempfile
from pathlib import Path

from moleport_agent.errors import ConfigError


def client_context(ca_file: Path | None, *, insecure: bool = False) -> ssl.SSLContext:
    """Make the TLS context for a connection to the server.

    Args:
        ca_file: PEM certificates to trust instead of the system's.
        insecure: verify neither chain nor name; encryption without knowing with whom.

    Raises:
        ConfigError: the file cannot be read or has no certificate in it.
    """
    if insecure:
        return _unverified_context()
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except ssl.SSLError as error:
        message = f"CA file {ca_file}: it has no usable PEM certificate ({error.reason})"
        raise ConfigError([message]) from error
    except OSError as error:
        raise ConfigError([f"CA file {ca_file}: {error.strerror or error}"]) from error
    if ca_file is None and _has_no_system_roots(context):
        # Python from python.org on macOS comes without any root certificate.
        import certifi  # noqa: PLC0415 - needed on few systems, and loads a large file

        context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def data_path_context(ca_file: Path | None, *, insecure: bool = False) -> ssl.SSLContext:
    """Make the TLS context for the tunnel itself and for local services.

    Unlike `ssl.create_default_context` it never writes a key log: the C transports work on OpenSSL
    directly, and Python's key log callback crashes there when SSLKEYLOGFILE is set.

    Raises:
        OSError: the CA file cannot be read.
        ssl.SSLError: it has no certificate in it.
    """
    if insecure:
        return _unverified_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not _can_write_files():
        # aiofastnet 1.2 decodes the peer's certificate by way of a temporary file, and on a read-only root
        # file system its handshake never ends. Its other engine is Python's own TLS and needs no file.
        context._aiofastnet_force_fallback_ssl = True  # type: ignore[attr-defined]  # noqa: SLF001 - no public switch
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
        return context
    context.load_default_certs()
    if _has_no_system_roots(context):
        import certifi  # noqa: PLC0415 - needed on few systems, and loads a large file

        context.load_verify_locations(certifi.where())
    return context


def _unverified_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _can_write_files() -> bool:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


def _has_no_system_roots(context: ssl.SSLContext) -> bool:
    paths = ssl.get_default_verify_paths()
    return (
        context.cert_store_stats()["x509_ca"] == 0 and paths.cafile is None and paths.capath is None
    )
