"""The REST API of the tunnel server, as the commands need it: one method per call, synchronous.

Every answer is checked against a schema with exactly the fields that the commands print, so what
`--json` shows is stable whatever a newer server adds. What httpx raises never leaves this module:
`http_adapter` turns it into `errors`. Proxies come from the environment, as httpx reads it.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from moleport_agent.answers import (
    Capture,
    CreatedToken,
    ServerFacts,
    Status,
    TokenRow,
    TunnelRow,
)
from moleport_agent.errors import BadAnswer, ConfigError, NotAuthorised, NotFound
from moleport_agent.http_adapter import check_status, http_client, read_bounded, translate
from moleport_agent.live_events import EventStream
from moleport_agent.settings import ServerSettings

_Answer = TypeVar("_Answer")


class ServerClient:
    """Calls the API of one server; a context manager that closes its connections."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._http = http_client(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._http.close()

    def status(self) -> Status:
        """Ask whether the server is healthy; needs no valid token."""
        return self._call("GET", "/api/status", Status, authenticated=False)

    def server(self) -> ServerFacts:
        """Ask for version, domains and the instance."""
        return self._call("GET", "/api/server", ServerFacts)

    def tunnels(self) -> list[TunnelRow]:
        """List the tunnels that this token may see."""
        return self._call("GET", "/api/tunnels", list[TunnelRow])

    def tunnel(self, tunnel_id: str) -> TunnelRow:
        """Ask for one tunnel.

        Raises:
            NotFound: there is none with this id.
        """
        return self._call("GET", f"/api/tunnels/{quote(tunnel_id, safe='')}", TunnelRow)

    def is_token_accepted(self) -> bool:
        """Whether the server accepts the token for its API."""
        try:
            self._request("GET", "/api/tunnels")
        except NotAuthorised:
            return False
        return True

    def find_tunnel(self, text: str) -> TunnelRow:
        """Find a tunnel by id, label, public URL, port or the first label of its host name.

        Raises:
            NotFound: none matches.
            ConfigError: several match.
        """
        rows = self.tunnels()
        for names in (
            lambda row: (row.tunnel_id, row.label, row.public_url),
            lambda row: (row.label.partition(".")[0],),
        ):
            found = [row for row in rows if text in names(row)]
            if len(found) == 1:
                return found[0]
            if found:
                labels = ", ".join(row.label for row in found)
                raise ConfigError([f"{text!r} means several tunnels ({labels}); write its id"])
        raise NotFound(404, f"no tunnel {text!r}; `moleport list` shows those that are there")

    def close_tunnel(self, tunnel_id: str) -> None:
        """Close a tunnel; its agent is told. Idempotent."""
        self._request("DELETE", f"/api/tunnels/{quote(tunnel_id, safe='')}")

    def requests(self, tunnel_id: str, *, limit: int = 50) -> list[Capture]:
        """List the last captured requests of a tunnel, newest first."""
        path = f"/api/tunnels/{quote(tunnel_id, safe='')}/requests"
        return self._call("GET", path, list[Capture], params={"limit": limit})

    def replay(self, tunnel_id: str, request_id: str, *, send: bool = False) -> Capture:
        """Fetch a captured request; with `send`, send it again and return the new capture.

        Raises:
            NotFound: there is no such request in this tunnel.
            Rejected: the original is gone and cannot be sent (409).
        """
        path = f"/api/tunnels/{quote(tunnel_id, safe='')}/replay/{quote(request_id, safe='')}"
        return self._call("POST", path, Capture, params={"send": "true"} if send else None)

    def tokens(self) -> list[TokenRow]:
        """List all tokens; for the admin."""
        return self._call("GET", "/api/tokens", list[TokenRow])

    def create_token(self, label: str, *, scope: str | None = None) -> CreatedToken:
        """Create a token; the answer is the only place where its secret ever shows."""
        body = {"label": label, "scope": scope}
        return self._call("POST", "/api/tokens", CreatedToken, json=body)

    def delete_token(self, token_id: str) -> None:
        """Delete a token and disconnect its agents.

        Raises:
            NotFound: there is none with this id.
        """
        self._request("DELETE", f"/api/tokens/{quote(token_id, safe='')}")

    def sessions(self) -> list[dict[str, Any]]:
        """List the live sessions, as the server describes them."""
        return self._call("GET", "/api/sessions", list[dict[str, Any]])

    def events(
        self,
        *,
        tunnel_id: str | None = None,
        on_drop: Callable[[str, float], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> EventStream:
        """Open the live events; the caller closes the stream.

        Args:
            tunnel_id: only events of this tunnel.
            on_drop: told why the stream was lost and in how many seconds it is taken up again.
            sleep: waits between two attempts.

        Raises:
            ClientError: the first attempt failed.
        """
        params = {} if tunnel_id is None else {"tunnel": tunnel_id}
        return EventStream(self._http, params, on_drop=on_drop, sleep=sleep)

    def _call(
        self,
        method: str,
        path: str,
        answer: type[_Answer],
        *,
        authenticated: bool = True,
        **how: Any,
    ) -> _Answer:
        content = self._request(method, path, authenticated=authenticated, **how)
        try:
            return msgspec.json.decode(content, type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message = f"{self._settings.url}{path} answered something unexpected: {error}"
            raise BadAnswer(message) from error

    def _request(self, method: str, path: str, *, authenticated: bool = True, **how: Any) -> bytes:
        if not authenticated:
            how["auth"] = None
        try:
            with self._http.stream(method, path, **how) as response:
                content = read_bounded(response)
        except httpx.HTTPError as error:
            raise translate(error, self._settings.url) from error
        check_status(response, content)
        return content
