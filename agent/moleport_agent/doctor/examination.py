"""The doctor's round: one check after the other, each only if what it builds on worked.

A generator, so that the command shows each finding when it is there. What was not looked at is said
too: silence would read as health.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, Protocol

from moleport_agent.config import ResolvedServer, is_readable_by_others
from moleport_agent.doctor.findings import CHECKS, Finding, Outcome, failed, ok, skipped, warning
from moleport_agent.doctor.route import check_names, check_proxy, check_tcp, find_route
from moleport_agent.doctor.service import (
    check_http,
    check_latency,
    check_streaming,
    check_token,
    check_websocket,
)
from moleport_agent.doctor.tls import check_tls
from moleport_agent.errors import ConfigError

_LOGIN: Final = "run `moleport login` with a token from whoever runs the server"


class Resolve(Protocol):
    """Finds the settings of the server."""

    def __call__(self, *, needs_token: bool) -> ResolvedServer:
        """Merge all sources; raises `ConfigError` for what is missing or unusable."""
        ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


def examine(resolve: Resolve, now: Callable[[], datetime] = _utc_now) -> Iterator[Finding]:
    """Look at everything between the settings and the server, and yield a finding for each check.

    Args:
        resolve: finds the settings, with a token or, if there is none, without. A `ConfigError` of
            both is the first finding; a token that is missing spares no other check.
        now: the time of day in UTC.
    """
    tokenless = ""
    try:
        resolved = resolve(needs_token=True)
    except ConfigError as error:
        problems = "; ".join(error.problems)
        try:
            resolved, tokenless = resolve(needs_token=False), problems
        except ConfigError:
            yield failed("settings", problems, "correct what is named, then try again")
            yield from _skip_after("settings")
            return
    settings = resolved.settings
    finding = (
        ok("settings", f"server {settings.url} from {resolved.server_source}")
        if tokenless
        else _check_settings(resolved)
    )
    yield finding
    if finding.outcome is Outcome.FAILED:
        yield from _skip_after("settings")
        return
    route = find_route(settings.url)
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: check_proxy(route),
        lambda: check_names(route),
        lambda: check_tcp(route),
        lambda: check_tls(route, settings, now()),
    )
    for check in checks:
        finding = check()
        yield finding
        if finding.outcome is Outcome.FAILED:
            yield from _skip_after(finding.check)
            return
    reach, clock = check_http(settings, now)
    yield reach
    if reach.outcome is Outcome.FAILED:
        yield from _skip_after("http")
        return
    yield clock
    token = failed("token", tokenless, _LOGIN) if tokenless else check_token(settings)
    yield token
    is_known = token.outcome is not Outcome.FAILED
    yield check_websocket(route, settings) if is_known else skipped("websocket", "token")
    yield check_latency(settings)
    yield check_streaming(settings) if is_known else skipped("streaming", "token")


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether everything was looked at and works."""
    return all(finding.outcome in (Outcome.OK, Outcome.WARNING) for finding in findings)


def _check_settings(resolved: ResolvedServer) -> Finding:
    try:
        resolved.settings.read_token()
    except OSError as error:
        return failed(
            "settings",
            f"the token cannot be read: {error.strerror or error} ({error.filename or 'no file'})",
            "name a readable file with a token in it (--token-file), or run `moleport login`",
        )
    sentence = (
        f"server {resolved.settings.url} from {resolved.server_source}, "
        f"token from {resolved.token_source}"
    )
    path = resolved.token_path
    if path is not None and is_readable_by_others(path):
        return warning(
            "settings",
            f"{sentence}; other users of this machine can read the token's file",
            "take the right to read it from them (chmod 600)",
        )
    return ok("settings", sentence)


def _skip_after(check: str) -> Iterator[Finding]:
    for later in CHECKS[CHECKS.index(check) + 1 :]:
        yield skipped(later, check)
