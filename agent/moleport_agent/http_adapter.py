"""httpx as this package uses it: one way to make a client, one table from its errors to ours.

The only place that knows httpx' exceptions and HTTP statuses; `rest` and `live_events` call the API
through it. The token is read anew for each request and goes to this server only: redirects are
errors, not followed.
"""

import ssl
from collections.abc import Generator
from typing import Any, Final

import httpx
import msgspec

from moleport_agent.errors import (
    BadAnswer,
    ClientError,
    ConfigError,
    ConnectError,
    NotAuthorised,
    NotFound,
    Rejected,
)
from moleport_agent.settings import ServerSettings
from moleport_agent.trust import client_context

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 30.0
"""Between two reads; a replay that is really sent may take its time."""
LONGEST_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""500 captures with their bodies are the largest answer there is."""


class _Bearer(httpx.Auth):
    """Reads the token anew for each request, so that a rotation is followed."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        try:
            token = self._settings.read_token()
        except OSError as error:
            raise ConfigError([f"cannot read the token: {error}"]) from error
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


def http_client(
    settings: ServerSettings, *, answer_seconds: float = ANSWER_SECONDS
) -> httpx.Client:
    """Make the HTTP client for a server: its trust, its token, the environment's proxies.

    The caller closes it.

    Raises:
        ConfigError: the CA file or a proxy variable is unusable.
    """
    context = client_context(settings.ca_file, insecure=settings.insecure)
    try:
        return httpx.Client(
            base_url=settings.url,
            verify=context,
            auth=_Bearer(settings),
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
            headers={"User-Agent": "moleport", "Accept": "application/json"},
        )
    except (ValueError, ImportError) as error:
        raise ConfigError([f"a proxy variable of the environment is unusable: {error}"]) from error


def check_status(response: httpx.Response, content: bytes) -> None:
    """Turn a refusal into the error that says what the caller can do.

    Raises:
        NotAuthorised: 401 or 403.
        NotFound: 404.
        ConnectError: 502, 503 or 504: something before the server answered, or it is not ready.
        Rejected: any other refusal.
        BadAnswer: a redirect.
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    if status < 400:
        location = response.headers.get("location", "elsewhere")
        raise BadAnswer(f"the server redirects to {location}; use that as the server's URL")
    reason, code = _reason(status, content)
    if status in (401, 403):
        raise NotAuthorised(status, reason, code)
    if status == 404:
        raise NotFound(status, reason, code)
    if status in (502, 503, 504):
        raise ConnectError(f"the server is not available now ({status}: {reason})")
    raise Rejected(status, reason, code)


def translate(error: httpx.HTTPError, url: str) -> ClientError:
    """Make the error of this package for one of httpx."""
    if isinstance(error, httpx.ConnectTimeout):
        return ConnectError(f"{url} did not answer within {CONNECT_SECONDS:.0f} s")
    if isinstance(error, httpx.ProxyError):
        return ConnectError(f"the proxy did not connect to {url}: {error}")
    if isinstance(error, httpx.ConnectError):
        refused = _refused_certificate(error)
        if refused is not None:
            return ConnectError(
                f"the certificate of {url} is not trusted: {refused.verify_message}; "
                "name its CA with --ca-file"
            )
        return ConnectError(f"cannot connect to {url}: {error}; `moleport doctor` tells more")
    if isinstance(error, httpx.TimeoutException):
        return ConnectError(f"{url} stopped answering")
    if isinstance(error, httpx.RemoteProtocolError):
        return ConnectError(f"{url} broke off: {error}")
    return ConnectError(f"the connection to {url} failed: {str(error) or type(error).__name__}")


def _refused_certificate(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """Find what OpenSSL said among the errors that this one was made from."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _reason(status: int, content: bytes) -> tuple[str, str | None]:
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"status {status}", None
    reason, code = fields.get("error"), fields.get("code")
    return (
        reason if isinstance(reason, str) and reason else f"status {status}",
        code if isinstance(code, str) else None,
    )


def read_bounded(response: httpx.Response) -> bytes:
    """Read a streamed answer to its end.

    Raises:
        BadAnswer: it is larger than any answer of the server.
        httpx.HTTPError: the connection failed; see `translate`.
    """
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LONGEST_ANSWER_BYTES:
            raise BadAnswer(f"the answer is larger than {LONGEST_ANSWER_BYTES} bytes")
    return bytes(content)
