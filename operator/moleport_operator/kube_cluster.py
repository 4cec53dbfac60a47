"""The cluster's ports on top of `kube.py`: finalizers, status and Secrets; `events.py` has the events.

What is written to a resource is also remembered at once, so that the next round does not decide on what the
watch has not told us yet.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from moleport_operator.errors import Conflict
from moleport_operator.kube import Kube, NotFound, identity_body, item
from moleport_operator.plan.records import SecretContent, SecretView
from moleport_operator.plan.secret import TOKEN_ID, claim_labels
from moleport_operator.resources import API_VERSION, FINALIZER, TOKENS, Kind, Meta, TunnelToken


class KubeCluster:
    """Implements `Objects` and `Secrets`."""

    def __init__(self, kube: Kube, *, remember: Callable[[Kind, Mapping[str, Any]], None]) -> None:
        """Make the ports.

        Args:
            kube: the API server.
            remember: told what our own writes answered.
        """
        self._kube = kube
        self._remember = remember

    async def set_finalizer(self, kind: Kind, meta: Meta, *, is_wanted: bool) -> str:
        """Implement `Objects`."""
        others = [name for name in meta.finalizers if name != FINALIZER]
        finalizers = [*others, FINALIZER] if is_wanted else others
        body = {
            "metadata": {
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
                "finalizers": finalizers,
            }
        }
        try:
            changed = await self._kube.merge(item(kind, meta.namespace, meta.name), body)
        except NotFound:
            if is_wanted:
                raise Conflict("the object is gone") from None
            return meta.resource_version
        if is_wanted or others:
            self._remember(kind, changed)
        version: str = changed["metadata"]["resourceVersion"]
        return version

    async def write_status(self, kind: Kind, meta: Meta, status: Mapping[str, Any]) -> None:
        """Implement `Objects`."""
        body = identity_body(kind, meta.namespace, meta.name)
        body["metadata"]["uid"] = meta.uid
        body["status"] = status
        try:
            changed = await self._kube.apply(
                f"{item(kind, meta.namespace, meta.name)}/status", body
            )
        except (NotFound, Conflict):
            return
        self._remember(kind, changed)

    async def read_secret(self, namespace: str, name: str) -> SecretView | None:
        """Implement `Secrets`."""
        try:
            return _view(await self._kube.get(_secret(namespace, name)))
        except NotFound:
            return None

    async def claim_secret(self, token: TunnelToken) -> SecretView:
        """Implement `Secrets`."""
        namespace, name = token.meta.namespace, token.secret_name
        metadata: dict[str, Any] = {"name": name, "labels": claim_labels(token.meta.uid)}
        if token.spec.secret.deletion_policy == "Delete":
            # Already now: a token that goes before its first credential leaves nothing behind.
            metadata["ownerReferences"] = [_owner_reference(token)]
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
        try:
            return _view(await self._kube.create(f"/api/v1/namespaces/{namespace}/secrets", body))
        except NotFound:
            raise Conflict("the namespace is gone") from None

    async def write_secret(
        self, token: TunnelToken, content: SecretContent, seen: SecretView
    ) -> SecretView:
        """Implement `Secrets`."""
        if seen.content.is_owned and not content.is_owned:
            seen = await self._disown(token, seen)
        metadata: dict[str, Any] = {
            "name": token.secret_name,
            "namespace": token.meta.namespace,
            "uid": seen.uid,
            "resourceVersion": seen.resource_version,
            "labels": dict(content.labels),
            "annotations": dict(content.annotations),
        }
        if content.is_owned:
            metadata["ownerReferences"] = [_owner_reference(token)]
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "data": {key: _encode(value) for key, value in content.values.items()},
        }
        path = _secret(token.meta.namespace, token.secret_name)
        try:
            return _view(await self._kube.apply(path, body))
        except NotFound:
            raise Conflict("the Secret is gone") from None

    async def _disown(self, token: TunnelToken, seen: SecretView) -> SecretView:
        """Remove our owner reference, which the creation made and no apply takes away."""
        path = _secret(token.meta.namespace, token.secret_name)
        try:
            body = await self._kube.get(path)
            owners = body["metadata"].get("ownerReferences") or ()
            others = [owner for owner in owners if owner.get("uid") != token.meta.uid]
            metadata = {"resourceVersion": seen.resource_version, "ownerReferences": others}
            return _view(await self._kube.merge(path, {"metadata": metadata}))
        except NotFound:
            raise Conflict("the Secret is gone") from None


def _secret(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def _view(body: Mapping[str, Any]) -> SecretView:
    meta = body["metadata"]
    labels = meta.get("labels") or {}
    claimed_by = labels.get(TOKEN_ID)
    owners = meta.get("ownerReferences") or ()
    return SecretView(
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        claimed_by=claimed_by,
        content=SecretContent(
            labels=labels,
            annotations=meta.get("annotations") or {},
            values={key: _decode(value) for key, value in (body.get("data") or {}).items()},
            is_owned=any(owner.get("uid") == claimed_by for owner in owners),
        ),
    )


def _owner_reference(token: TunnelToken) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": TOKENS.name,
        "name": token.meta.name,
        "uid": token.meta.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _encode(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _decode(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
