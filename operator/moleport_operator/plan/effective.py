"""What policies leave of what a token asks for, read from the merge that the server shows.

The server writes host names in full as soon as a policy bounds them, a token may write a label: `shop` is
`shop.<domain>` under each domain of the server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from moleport_operator.plan.records import Ranges, ServerToken


def left_out(server: ServerToken, domains: Iterable[str]) -> str:
    """Say what the effective rule takes from what the token asks for; nothing when it takes nothing.

    Args:
        server: the token there.
        domains: those of the server.
    """
    wish, access = server.wish, server.effective.get("access") or {}
    parts = [
        _difference("protocols", wish.protocols, access.get("protocols")),
        _hostnames(wish.hostnames, access.get("hostnames"), tuple(domains)),
        _ports(wish.tcp_ports, access.get("tcp_ports")),
        _difference("agent networks", wish.agent_cidrs, access.get("agent_cidrs")),
    ]
    if closed := (server.effective.get("http") or {}).get("denied"):
        parts.append(f"without http, because {closed}")
    return "; ".join(part for part in parts if part)


def leaves_nothing(server: ServerToken) -> bool:
    """Whether policies leave no tunnel at all to a token that asks for some."""
    wish, access = server.wish, server.effective.get("access") or {}
    limits = server.effective.get("limits") or {}
    return not _is_any(
        access.get("protocols"),
        access.get("hostnames"),
        access.get("tcp_ports"),
        access.get("agent_cidrs"),
        limits.get("max_tunnels"),
    ) and _is_any(
        wish.protocols, wish.hostnames, wish.tcp_ports, wish.agent_cidrs, wish.max_tunnels
    )


def _is_any(
    protocols: Collection[str] | None,
    hostnames: Collection[str] | None,
    tcp_ports: Collection[object] | None,
    agent_cidrs: Collection[str] | None,
    max_tunnels: int | None,
) -> bool:
    """Whether some tunnel can be opened; None bounds nothing."""
    if max_tunnels == 0 or _is_empty(agent_cidrs):
        return False
    has_http = (protocols is None or "http" in protocols) and not _is_empty(hostnames)
    has_tcp = (protocols is None or "tcp" in protocols) and not _is_empty(tcp_ports)
    return has_http or has_tcp


def _is_empty(values: Collection[object] | None) -> bool:
    return values is not None and not values


def _difference(word: str, asked: Collection[str] | None, left: Collection[str] | None) -> str:
    if left is None or (asked is not None and set(left) == set(asked)):
        return ""
    missing = sorted(set(asked or ()) - set(left))
    return f"without {word} {', '.join(missing)}" if missing else _only(word, left)


def _hostnames(
    asked: Collection[str] | None, left: Collection[str] | None, domains: tuple[str, ...]
) -> str:
    if left is None:
        return ""
    if asked is None:
        return _only("hostnames", left)
    kept = {full for name in left for full in _in_full(name, domains)}
    missing: list[str] = []
    for name in asked:
        forms = _in_full(name, domains)
        gone = [form for form in forms if form not in kept]
        missing += [name] if len(gone) == len(forms) else gone
    if any("*" in name or "?" in name for name in missing):
        # Of a pattern a part may be left, which only its own words tell.
        return _only("hostnames", left)
    return f"without hostnames {', '.join(sorted(missing))}" if missing else ""


def _ports(asked: Ranges | None, left: Iterable[Mapping[str, int]] | None) -> str:
    if left is None:
        return ""
    ranges = sorted((ports["start"], ports["end"]) for ports in left)
    if asked is not None and ranges == sorted(asked):
        return ""
    return _only("TCP ports", [f"{a}" if a == b else f"{a}-{b}" for a, b in ranges])


def _in_full(name: str, domains: tuple[str, ...]) -> list[str]:
    return [name] if "." in name or not domains else [f"{name}.{domain}" for domain in domains]


def _only(word: str, left: Collection[str]) -> str:
    return f"only {word} {', '.join(sorted(left)) or 'none'}"
