"""The API server over HTTP: reads, server-side apply and the few other writes that the operator makes.

One client for everything that kopf does not do for us. Writes name our field manager; those to the status and
to Secrets are server-side applies, so that what we no longer say goes away and what others say stays. The
token of a service account is read again every minute, because it is replaced while we run.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf
import msgspec

from moleport_operator.clock import Clock
from moleport_operator.errors import (
    ClusterUnavailable,
    ConfigError,
    Conflict,
    Denied,
    InvalidResource,
)
from moleport_operator.resources import API_VERSION, GROUP, VERSION, Kind

FIELD_MANAGER: Final = "moleport-operator"
MOST_CONNECTIONS: Final = 32
REQUEST_SECONDS: Final = 15.0
LOGIN_SECONDS: Final = 60.0
PAGE: Final = 500

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"


ObserveCall = Callable[[str, str, str, float], None]
"""Told status (or `<error>`), method, host and seconds of a call, as client-go's metrics have them."""


def _nobody(_status: str, _method: str, _host: str, _seconds: float) -> None:
    return None


class NotFound(Exception):
    """The API server knows no such object."""


def login() -> kopf.ConnectionInfo:
    """Return where the API server is and who we are there.

    Raises:
        ConfigError: neither a service account nor a kubeconfig was found.
    """
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(
        settings=settings
    )
    if found is None:
        raise ConfigError(
            ["no API server: run in a pod with a service account, or set KUBECONFIG to a file"]
        )
    return found


@asynccontextmanager
async def open_kube(clock: Clock, observe: ObserveCall = _nobody) -> AsyncIterator[Kube]:
    """Open a client; it is closed with the context.

    Args:
        clock: monotonic time.
        observe: told about each call.
    """
    info = login()
    async with make_session(info, observe) as session:
        yield Kube(session, info, clock)


def make_session(
    info: kopf.ConnectionInfo,
    observe: ObserveCall,
    *,
    began: Callable[[str], None] = lambda _: None,
    response_class: type[aiohttp.ClientResponse] = aiohttp.ClientResponse,
) -> aiohttp.ClientSession:
    """Return a session for the API server, of bounded size; the caller closes it.

    Args:
        info: where it is, and how TLS proves it.
        observe: told about each call that ended, or whose stream began.
        began: told the path of each call that begins.
        response_class: what reads the answers.
    """
    trace = aiohttp.TraceConfig()

    async def start(
        _: object, context: SimpleNamespace, begun: aiohttp.TraceRequestStartParams
    ) -> None:
        context.began = time.monotonic()
        began(begun.url.path)

    async def end(
        _: object, context: SimpleNamespace, ended: aiohttp.TraceRequestEndParams
    ) -> None:
        seconds = time.monotonic() - context.began
        host = ended.url.authority
        observe(str(ended.response.status), ended.method, host, seconds)

    async def fail(
        _: object, context: SimpleNamespace, failed: aiohttp.TraceRequestExceptionParams
    ) -> None:
        observe("<error>", failed.method, failed.url.authority, time.monotonic() - context.began)

    trace.on_request_start.append(start)
    trace.on_request_end.append(end)
    trace.on_request_exception.append(fail)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS, ssl=_tls(info)),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=5),
        headers={"User-Agent": FIELD_MANAGER},
        trace_configs=[trace],
        response_class=response_class,
        proxy=info.proxy_url,
        trust_env=info.trust_env,
    )


class Kube:
    """Calls of the API server."""

    def __init__(
        self, session: aiohttp.ClientSession, info: kopf.ConnectionInfo, clock: Clock
    ) -> None:
        self._session = session
        self._info = info
        self._clock = clock
        self._login_at = clock.monotonic()

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """Read an object.

        Raises:
            NotFound: there is none.
            OperatorError: as `request`.
        """
        return await self.request("GET", path, params=params)

    async def list(self, path: str) -> tuple[list[dict[str, Any]], str]:
        """Return all objects of a list, page by page, and the list's resource version.

        Raises:
            NotFound: there is no such kind.
            OperatorError: as `request`; a page that expired is a `Conflict`.
        """
        items: list[dict[str, Any]] = []
        params = {"limit": str(PAGE)}
        while True:
            page = await self.request("GET", path, params=params)
            items += page.get("items") or []
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return items, meta.get("resourceVersion", "")
            params["continue"] = meta["continue"]

    async def apply(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Apply our fields of an object; conflicts about fields are decided for us.

        Raises:
            OperatorError: as `request`.
        """
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self.request("PATCH", path, params=params, body=body, media_type=APPLY)

    async def merge(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change an object by a merge patch; name the resource version to hold on to it.

        Raises:
            OperatorError: as `request`.
        """
        params = {"fieldManager": FIELD_MANAGER}
        return await self.request("PATCH", path, params=params, body=body, media_type=MERGE)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object.

        Raises:
            Conflict: there is one of this name.
            OperatorError: as `request`.
        """
        params = {"fieldManager": FIELD_MANAGER}
        return await self.request("POST", path, params=params, body=body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object that still has the resource version of the body.

        Raises:
            Conflict: it changed.
            OperatorError: as `request`.
        """
        params = {"fieldManager": FIELD_MANAGER}
        return await self.request("PUT", path, params=params, body=body)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        media_type: str = "application/json",
    ) -> dict[str, Any]:
        """Make one call.

        Raises:
            NotFound: 404.
            Conflict: 409 and 410: what was decided on is old.
            InvalidResource: 400 and 422, with the API server's sentence.
            Denied: 403.
            ClusterUnavailable: no answer in time, 401, 429 and 5xx.
        """
        url = self._info.server.rstrip("/") + path
        headers = {"Content-Type": media_type, "Accept": "application/json"} | self._authorization()
        content = None if body is None else json.dumps(body).encode()
        try:
            async with self._session.request(
                method, url, params=params, data=content, headers=headers
            ) as response:
                answer = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnavailable(f"API server: {type(error).__name__}: {error}") from error
        if status < 300:
            found: dict[str, Any] = msgspec.json.decode(answer)
            return found
        raise _problem(status, f"{method} {path}", answer, retry_after)

    def _authorization(self) -> dict[str, str]:
        if self._clock.monotonic() - self._login_at > LOGIN_SECONDS:
            self._info, self._login_at = login(), self._clock.monotonic()
        return authorization(self._info)


def authorization(info: kopf.ConnectionInfo) -> dict[str, str]:
    """Return the header that says who we are; none if a client certificate does."""
    if info.token:
        return {"Authorization": f"Bearer {info.token}"}
    if info.username and info.password:
        pair = f"{info.username}:{info.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def collection(kind: Kind, namespace: str = "") -> str:
    """Return the path of a kind, in one namespace or everywhere."""
    inner = f"/namespaces/{namespace}" if namespace and kind.is_namespaced else ""
    return f"/apis/{GROUP}/{VERSION}{inner}/{kind.plural}"


def item(kind: Kind, namespace: str, name: str) -> str:
    """Return the path of one of our resources."""
    return f"{collection(kind, namespace)}/{name}"


def identity_body(kind: Kind, namespace: str, name: str) -> dict[str, Any]:
    """Return what an applied body of one of our resources begins with."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": API_VERSION, "kind": kind.name, "metadata": metadata}


def _problem(status: int, call: str, answer: bytes, retry_after: str | None) -> Exception:
    try:
        message = str(json.loads(answer).get("message", ""))
    except (ValueError, AttributeError):
        message = answer[:200].decode("utf-8", "replace")
    if status == 404:
        return NotFound(call)
    if status in {409, 410}:
        return Conflict(message or call)
    if status in {400, 413, 415, 422}:
        return InvalidResource(f"the API server refuses {call}: {message}")
    if status == 403:
        return Denied(message or call)
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    return ClusterUnavailable(f"{call}: {status} {message}", retry_after=seconds)


def _tls(info: kopf.ConnectionInfo) -> ssl.SSLContext:
    data = _pem(info.ca_data)
    context = ssl.create_default_context(
        cafile=str(info.ca_path) if info.ca_path else None, cadata=data
    )
    if info.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _pem(info.certificate_data), _pem(info.private_key_data)
    if certificate and key:
        # The standard library takes client certificates from files only.
        with tempfile.TemporaryDirectory() as folder:
            chain, private = Path(folder, "chain.pem"), Path(folder, "key.pem")
            private.touch(mode=0o600)
            chain.write_text(certificate)
            private.write_text(key)
            context.load_cert_chain(chain, private)
    elif info.certificate_path:
        context.load_cert_chain(str(info.certificate_path), _text(info.private_key_path))
    return context


def _pem(encoded: str | bytes | None) -> str | None:
    return base64.b64decode(encoded).decode() if encoded else None


def _text(path: object) -> str | None:
    return str(path) if path else None
