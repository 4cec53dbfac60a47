"""The operator as a process between a Kubernetes API in memory and a real tunnel server.

Both ways out of the operator pass this test: `KubeApi` has hooks around each call, and so has the `Gate`
before the tunnel server. That is where a test lets calls fail, or ends the process between two of them.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from helpers.kube_api import SECRETS, TOKENS, KubeApi
from helpers.processes import PATIENCE_SECONDS, Running, command, free_port
from helpers.site import Site
from moleport_operator.credentials import digest

POLL_SECONDS = 0.02
OWNER = "cluster-of-this-test"


async def _nothing(_: str) -> web.Response | None:
    return None


class Gate:
    """Passes calls on to the tunnel server."""

    def __init__(self, port: int) -> None:
        self._target = f"http://127.0.0.1:{port}"
        self.before: Callable[[str], Awaitable[web.Response | None]] = _nothing
        """Told the method and path; may answer instead of the server."""
        self.after: Callable[[str], Awaitable[web.Response | None]] = _nothing
        """Called when the effect is there and nobody has heard of it."""
        self.calls: list[str] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.Response:
        call = f"{request.method} {request.path}"
        self.calls.append(call)
        if (instead := await self.before(call)) is not None:
            return instead
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        try:
            async with self._session.request(
                request.method,
                self._target + request.path_qs,
                headers=headers,
                data=await request.read(),
            ) as answer:
                content, status, got = await answer.read(), answer.status, answer.headers
        except aiohttp.ClientError as error:
            return web.json_response({"error": type(error).__name__}, status=502)
        if (instead := await self.after(call)) is not None:
            return instead
        kept = {
            name: got[name]
            for name in ("Content-Type", "ETag", "Retry-After", "X-Moleport-Instance")
            if name in got
        }
        return web.Response(status=status, body=content, headers=kept)


class OperatorRig:
    """Use `async with`; starts the server, and the operator when asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kube = KubeApi()
        self.site = Site(folder)
        self.gate: Gate
        self.operator: Running
        self.health_port = 0

    async def __aenter__(self) -> Self:
        await self.kube.__aenter__()
        await self.site.start_server()
        self.gate = Gate(self.site.api_port)
        await self.gate.__aenter__()
        self.kubeconfig = self.kube.write_kubeconfig(self.folder / "kubeconfig")
        return self

    async def __aexit__(self, *exception: object) -> None:
        if hasattr(self, "operator"):
            await self.operator.aclose()
        await self.gate.__aexit__(*exception)
        await self.kube.__aexit__(*exception)
        await self.site.__aexit__(*exception)

    async def start_operator(
        self, *flags: str, resync: float = 600, server_port: int = 0
    ) -> Running:
        """Start the operator; the one before has to be over."""
        self.health_port = free_port()
        self.operator = await Running.start(
            "the operator",
            [
                command("moleport-operator"),
                "run",
                f"--server-url=http://127.0.0.1:{server_port or self.gate.port}",
                f"--server-token-file={self.site.data_dir / 'admin-token'}",
                f"--health-port={self.health_port}",
                "--health-host=127.0.0.1",
                f"--owner-id={OWNER}",
                f"--resync={resync}",
                *flags,
            ],
            {**self.site.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        self.site.running.append(self.operator)
        return self.operator

    def apply(self, name: str, namespace: str = "default", **spec: Any) -> None:
        """Create a TunnelToken, or replace its spec."""
        if self.kube.get(TOKENS, name, namespace) is None:
            metadata = {"name": name, "namespace": namespace}
            self.kube.create(TOKENS, {"metadata": metadata, "spec": with_defaults(spec)})
        else:
            self.kube.edit(TOKENS, name, namespace, spec=with_defaults(spec))

    def condition(self, name: str, kind: str = "Ready") -> tuple[str, str]:
        """Return status and reason of a condition of a TunnelToken."""
        status = (self.kube.get(TOKENS, name) or {}).get("status") or {}
        for condition in status.get("conditions", ()):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def secret(self, name: str) -> dict[str, str]:
        """Return what the Secret of a token holds; empty if there is none."""
        data = (self.kube.get(SECRETS, name) or {}).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    async def until(
        self, is_true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until something is seen in the API."""
        try:
            async with asyncio.timeout(seconds):
                while not is_true():
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            text = json.dumps(list(self.kube.bodies(TOKENS)))[-4000:]
            raise AssertionError(
                f"{what} not within {seconds} s\n{self.operator}\n{text}"
            ) from None

    async def ready(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a token says that it is."""
        await self.until(
            lambda: self.condition(name) == ("True", "Issued"), f"{name} ready", seconds
        )

    async def ours(self) -> dict[str, Any]:
        """Return the server's tokens of this operator, by the name of their resource."""
        rows = await self.site.api("GET", f"/api/tokens?owner_cluster={OWNER}")
        return {row["owner"]["name"]: row for row in rows}

    async def has_one_valid_credential(self, name: str) -> bool:
        """Whether exactly the credential of the Secret opens the server."""
        token = (await self.ours()).get(name)
        if token is None or len(token["credentials"]) != 1 or token["suspended"]:
            return False
        sha256 = digest(self.secret(name).get("token", ""))
        return bool(token["credentials"][0]["fingerprint"] == sha256[:16])

    async def one_valid_credential(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until exactly the credential of the Secret opens the server."""
        try:
            async with asyncio.timeout(seconds):
                while not await self.has_one_valid_credential(name):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            token = (await self.ours()).get(name)
            raise AssertionError(f"{name}: {token}\n{self.operator}") from None

    async def health(self, path: str) -> tuple[int, str]:
        """Ask the operator's health listener."""
        url = f"http://127.0.0.1:{self.health_port}{path}"
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(url) as answer,
        ):
            return answer.status, await answer.text()


def with_defaults(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec with what the schema fills in on a real API server."""
    defaults: dict[str, Any] = {
        "secret": {"deletionPolicy": "Delete", "includeConnectionInfo": True},
        "access": {"protocols": ["http"]},
        "rotation": {"mode": "BeforeExpiry"},
        "suspend": False,
        "deletionPolicy": "Revoke",
    }
    return {
        **{name: value for name, value in defaults.items() if not isinstance(value, dict)},
        **{
            name: value | spec.get(name, {})
            for name, value in defaults.items()
            if isinstance(value, dict)
        },
        **{name: value for name, value in spec.items() if not isinstance(defaults.get(name), dict)},
    }
