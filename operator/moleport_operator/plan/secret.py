"""What a token's Secret holds, and what its annotations remember between two rounds.

Everything that a rotation needs to know after a crash is on the Secret itself, written in the same call
as the credential: which revision it is, until when, what was before it and how long that may still be
used. Keys are those of a provisioned service (servicebinding.io), so that workloads can bind to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from moleport_operator.credentials import digest
from moleport_operator.errors import InvalidResource
from moleport_operator.plan.records import ConnectionFacts, SecretContent, SecretView
from moleport_operator.quantities import format_time, parse_time_or_none
from moleport_operator.resources import GROUP, TunnelToken

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "moleport-operator"
TOKEN_ID: Final = f"{GROUP}/token-id"
"""Label that makes a Secret ours: the uid of its TunnelToken, which is the token's id."""

REVISION: Final = f"{GROUP}/revision"
DIGEST: Final = f"{GROUP}/sha256"
ISSUED: Final = f"{GROUP}/issued-at"
EXPIRES: Final = f"{GROUP}/expires-at"
PREVIOUS_DIGEST: Final = f"{GROUP}/previous-sha256"
PREVIOUS_UNTIL: Final = f"{GROUP}/previous-until"
ROTATE_HANDLED: Final = f"{GROUP}/rotate-handled"
_OURS: Final = f"{GROUP}/"

TYPE: Final = "moleport"
KEYS: Final = frozenset({"type", "uri", "token", "token-id", "ca.crt", "url"})
"""All keys that are ours; others in the same Secret are left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The credential that a Secret holds, with its history."""

    revision: int
    text: str = field(repr=False)
    sha256: str
    issued_at: int
    not_after: int | None
    previous_sha256: str | None
    """Digest of the revision before, when it is known."""
    previous_until: int | None
    """Until when all older revisions may be used; None: there were none."""
    rotate_handled: str
    """The value of the rotate request that this revision answers."""


def read_held(secret: SecretView) -> Held | None:
    """Return the credential of a Secret; None if there is none, or somebody edited it."""
    notes, text = secret.content.annotations, secret.content.values.get("token")
    try:
        issued_at = parse_time_or_none(notes.get(ISSUED))
        if text is None or issued_at is None or digest(text) != notes.get(DIGEST):
            return None
        return Held(
            revision=int(notes[REVISION]),
            text=text,
            sha256=notes[DIGEST],
            issued_at=issued_at,
            not_after=parse_time_or_none(notes.get(EXPIRES)),
            previous_sha256=notes.get(PREVIOUS_DIGEST) or None,
            previous_until=parse_time_or_none(notes.get(PREVIOUS_UNTIL)),
            rotate_handled=notes.get(ROTATE_HANDLED, ""),
        )
    except (InvalidResource, ValueError, KeyError):
        return None


def has_traces(secret: SecretView) -> bool:
    """Whether a credential was once written here, however little of it is left."""
    return bool({REVISION, DIGEST, ISSUED} & set(secret.content.annotations)) or bool(
        secret.content.values.get("token")
    )


def claim_labels(token_uid: str) -> dict[str, str]:
    """Return the labels that make a Secret ours."""
    return {MANAGED_BY: MANAGER, TOKEN_ID: token_uid}


def wanted_content(
    token: TunnelToken, held: Held, hostnames: tuple[str, ...] | None, facts: ConnectionFacts
) -> SecretContent:
    """Return what the Secret should hold for a credential."""
    template = token.spec.secret.template
    values = {"type": TYPE, "token": held.text}
    if token.spec.secret.include_connection_info:
        values |= {"uri": facts.agent_url, "token-id": token.meta.uid}
        if facts.ca_pem is not None:
            values["ca.crt"] = facts.ca_pem
        if (url := only_url(hostnames, facts)) is not None:
            values["url"] = url
    notes = {
        REVISION: str(held.revision),
        DIGEST: held.sha256,
        ISSUED: format_time(held.issued_at),
        ROTATE_HANDLED: held.rotate_handled,
    }
    if held.not_after is not None:
        notes[EXPIRES] = format_time(held.not_after)
    if held.previous_sha256 is not None:
        notes[PREVIOUS_DIGEST] = held.previous_sha256
    if held.previous_until is not None:
        notes[PREVIOUS_UNTIL] = format_time(held.previous_until)
    return SecretContent(
        labels=_foreign(template.labels) | claim_labels(token.meta.uid),
        annotations=_foreign(template.annotations) | notes,
        values=values,
        is_owned=token.spec.secret.deletion_policy == "Delete",
    )


def only_url(hostnames: tuple[str, ...] | None, facts: ConnectionFacts) -> str | None:
    """Return the public URL if exactly one exact host name is granted."""
    if hostnames is None or len(hostnames) != 1 or "*" in hostnames[0]:
        return None
    host = hostnames[0]
    if "." not in host:
        if not facts.domains:
            return None
        host = f"{host}.{facts.domains[0]}"
    port = "" if facts.public_https_port == 443 else f":{facts.public_https_port}"
    return f"https://{host}{port}"


def differs(wanted: SecretContent, found: SecretContent) -> bool:
    """Whether the Secret lacks something of ours, or has something under our names that is stale."""
    return (
        any(found.labels.get(name) != value for name, value in wanted.labels.items())
        or any(found.annotations.get(name) != value for name, value in wanted.annotations.items())
        or any(
            name.startswith(_OURS) and name not in wanted.annotations for name in found.annotations
        )
        or any(found.values.get(name) != value for name, value in wanted.values.items())
        or bool((KEYS & set(found.values)) - set(wanted.values))
        or found.is_owned != wanted.is_owned
    )


def _foreign(names: Mapping[str, str]) -> dict[str, str]:
    # A template adds; what is ours it cannot change.
    return {name: value for name, value in names.items() if not name.startswith(_OURS)}
