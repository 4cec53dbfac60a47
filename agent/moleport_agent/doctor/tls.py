"""The doctor's look at TLS: version, name, chain and expiry, each told apart.

OpenSSL reports the first thing it dislikes as a number. For the two mistakes where the certificate
itself helps (wrong name, wrong time) it is fetched once more with only that check off, so that the
sentence can say which names it has and when it ended.
"""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from python_socks import ProxyError

from moleport_agent.doctor.findings import Finding, failed, ok, warning
from moleport_agent.doctor.route import Route
from moleport_agent.errors import ConfigError
from moleport_agent.settings import ServerSettings
from moleport_agent.trust import client_context

EXPIRY_WARNING: Final = timedelta(days=14)
"""Renewal happens earlier than this wherever it works."""
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = (18, 19)
_UNKNOWN_ISSUER: Final = (2, 20, 21)
_WRONG_NAME: Final = (62, 64)
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""
_TRUST_REMEDY: Final = (
    "pass its CA with --ca-file (`moleport login --ca-file FILE` remembers it); "
    "if nobody gave you one, somebody may be listening in"
)


def check_tls(route: Route, settings: ServerSettings, now: datetime) -> Finding:
    """Make a handshake and say what is wrong with it.

    Args:
        route: the way to the server.
        settings: whom to trust.
        now: for the expiry.
    """
    if not route.tls:
        return warning(
            "tls",
            "the connection is not encrypted: the server's URL starts with http://",
            "use https:// unless the whole way is trusted",
        )
    try:
        context = client_context(settings.ca_file, insecure=settings.insecure)
        version, certificate = _handshake(route, context)
    except ConfigError as error:
        return failed("tls", str(error), "name a readable PEM file with --ca-file")
    except ssl.SSLCertVerificationError as error:
        return _judge(error, route, settings, now)
    except ssl.SSLError as error:
        return failed(
            "tls",
            f"the handshake failed: {error.reason or error}",
            "check that the port speaks TLS (a control listener without it needs http://)",
        )
    except (OSError, ProxyError) as error:
        return failed(
            "tls",
            f"the connection broke during the handshake: {error}",
            "something between cuts TLS: try from another network, or the server's port 443",
        )
    if settings.insecure:
        return warning(
            "tls",
            f"{version}, but the certificate was not verified (insecure)",
            "pass the server's CA with --ca-file instead of --insecure",
        )
    ends = _time(certificate, "notAfter")
    if ends - now < EXPIRY_WARNING:
        return warning(
            "tls",
            f"{version}; the certificate ends on {_day(ends)}",
            "tell who runs the server that its renewal does not work",
        )
    return ok("tls", f"{version}; the certificate is trusted and good until {_day(ends)}")


def _handshake(route: Route, context: ssl.SSLContext) -> tuple[str, Mapping[str, Any]]:
    with (
        route.connect() as connection,
        context.wrap_socket(connection, server_hostname=route.host) as secured,
    ):
        return secured.version() or "TLS", secured.getpeercert() or {}


def _judge(
    error: ssl.SSLCertVerificationError, route: Route, settings: ServerSettings, now: datetime
) -> Finding:
    code = error.verify_code
    if code in _WRONG_NAME:
        context = client_context(settings.ca_file)
        context.check_hostname = False
        names = _names(_fetch(route, context))
        return failed(
            "tls",
            f"the certificate is not for {route.host}" + (f", but for {names}" if names else ""),
            "use the server's URL with a name of the certificate, or have the name added to it",
        )
    if code in (_EXPIRED, _NOT_YET_VALID):
        context = client_context(settings.ca_file)
        context.verify_flags |= _NO_CHECK_TIME
        certificate = _fetch(route, context)
        if code == _EXPIRED:
            when = f" on {_day(_time(certificate, 'notAfter'))}" if certificate else ""
            sentence = f"the certificate expired{when}; it is {_day(now)} here"
        else:
            when = f" before {_day(_time(certificate, 'notBefore'))}" if certificate else " yet"
            sentence = f"the certificate is not valid{when}; it is {_day(now)} here"
        remedy = "have the server's certificate renewed; if the date here is wrong, set the clock"
        return failed("tls", sentence, remedy)
    if code in _SELF_SIGNED:
        return failed("tls", "the certificate is self-signed, or its CA is", _TRUST_REMEDY)
    if code in _UNKNOWN_ISSUER:
        return failed("tls", "the certificate was issued by a CA unknown here", _TRUST_REMEDY)
    return failed("tls", f"the certificate is refused: {error.verify_message}", _TRUST_REMEDY)


def _fetch(route: Route, context: ssl.SSLContext) -> Mapping[str, Any]:
    try:
        return _handshake(route, context)[1]
    except (OSError, ProxyError):
        # Two things are wrong at once; the sentence then does without the details.
        return {}


def _names(certificate: Mapping[str, Any]) -> str:
    return ", ".join(name for _, name in certificate.get("subjectAltName", ())[:5])


def _time(certificate: Mapping[str, Any], field: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate[field]), UTC)


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")
