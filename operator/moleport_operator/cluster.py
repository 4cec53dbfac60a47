"""Ports to the cluster: what the operator does there, and with which verbs.

| call | verb |
|---|---|
| finalizers | patch on the kind |
| status | patch on the kind's `/status` |
| Secrets | get, create, patch; never list, watch or delete |
| events | create, patch |

`kube.py` implements them over HTTP; tests have a cluster in memory. All calls raise `Conflict` when the
object is not what was seen, `Denied` for missing rights, and `ClusterUnavailable` for everything that may
work later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from moleport_operator.plan.records import SecretContent, SecretView
from moleport_operator.plan.status import Transition
from moleport_operator.resources import Kind, Meta, TunnelToken


class Objects(Protocol):
    """Our resources: the two things of them that we write."""

    async def set_finalizer(self, kind: Kind, meta: Meta, *, is_wanted: bool) -> str:
        """Add or remove our finalizer; returns the new resource version."""
        ...

    async def write_status(self, kind: Kind, meta: Meta, status: Mapping[str, Any]) -> None:
        """Apply the whole status; fields that are missing go. An object that is gone is no error."""
        ...


class Secrets(Protocol):
    """The Secrets of tokens."""

    async def read_secret(self, namespace: str, name: str) -> SecretView | None:
        """Return a Secret, or None."""
        ...

    async def claim_secret(self, token: TunnelToken) -> SecretView:
        """Create the token's Secret with nothing but our labels, and its owner if it is to have one.

        Raises:
            Conflict: there is one already.
        """
        ...

    async def write_secret(
        self, token: TunnelToken, content: SecretContent, seen: SecretView
    ) -> SecretView:
        """Apply what the Secret should hold.

        Raises:
            Conflict: it changed since it was seen, or is another object now.
        """
        ...


class Events(Protocol):
    """Events for people."""

    async def emit(self, kind: Kind, meta: Meta, event: Transition) -> None:
        """Tell a transition; best effort, errors are logged and go no further."""
        ...
