"""A small Kubernetes API in memory: what an operator needs of it, on any machine, in a second.

It keeps the promises that a controller builds on: resource versions and `If` checks on them, watches that
resume, bookmarks, finalizers, generations, the status as a place of its own, server-side apply that takes
away what a manager no longer says, and the collection of what an owner leaves behind. It checks no schemas
and no rights; a real API server does that in the tests beside it.

Whatever may go wrong on the way is the test's to choose: `before` and `after` see each call,
`latency_seconds` delays it, `drop_watches` cuts the streams, `forget_history` makes old resource versions
expire.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web

Body = dict[str, Any]
ObjectKey = tuple[str, str]
"""Namespace (empty outside of one) and name."""

HISTORY = 20_000
"""Events of one kind that a watch can resume from."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that is served."""

    group: str
    version: str
    plural: str
    name: str
    is_namespaced: bool = True
    has_status: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


TOKENS = Kind("moleport.dev", "v1alpha1", "tunneltokens", "TunnelToken", has_status=True)
POLICIES = Kind("moleport.dev", "v1alpha1", "tunnelpolicies", "TunnelPolicy", has_status=True)
CLUSTER_POLICIES = Kind(
    "moleport.dev", "v1alpha1", "clustertunnelpolicies", "ClusterTunnelPolicy", False, True
)
NAMESPACES = Kind("", "v1", "namespaces", "Namespace", is_namespaced=False)
SECRETS = Kind("", "v1", "secrets", "Secret")
EVENTS = Kind("events.k8s.io", "v1", "events", "Event")
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")
KINDS = (TOKENS, POLICIES, CLUSTER_POLICIES, NAMESPACES, SECRETS, EVENTS, LEASES)


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    @property
    def body(self) -> Body:
        return {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as the hooks see it."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    subresource: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.verb, self.kind.plural, self.subresource) if part)


@dataclass(slots=True)
class Shelf:
    """The objects of one kind, and what happened to them."""

    objects: dict[ObjectKey, Body] = field(default_factory=dict)
    history: deque[tuple[int, str, bytes]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    """Version, namespace and the line that watches get."""
    oldest: int = 0
    """A watch may begin here or later."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


async def _nothing(_: Call) -> None:
    return None


class KubeApi:
    """The API; use `async with`, then give `kubeconfig` to whoever needs it."""

    def __init__(self) -> None:
        self.shelves = {kind: Shelf() for kind in KINDS}
        self.before: Callable[[Call], Awaitable[web.Response | None]] = _nothing
        """May answer instead of us."""
        self.after: Callable[[Call], Awaitable[web.Response | None]] = _nothing
        """Called when the effect is there and nobody has heard of it."""
        self.latency_seconds = 0.0
        self.bookmark_seconds = 60.0
        self.calls: defaultdict[str, int] = defaultdict(int)
        """By verb, kind and subresource."""
        self.port = 0
        self._version = count(1)
        self._now = 0
        self._applied: defaultdict[str, dict[tuple[str, str], Body]] = defaultdict(dict)
        """What managers said last of an object: by its uid, then by manager and subresource."""
        self._cut = asyncio.Event()
        self._pages: dict[str, tuple[list[Body], str, int]] = {}
        """The rest of a list that is read in pages: its objects, their moment, and where to go on."""
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
        for name in ("kube-system", "default"):
            self.create(NAMESPACES, {"metadata": {"name": name}})

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop_watches()
        await self._runner.cleanup()

    def write_kubeconfig(self, path: Path) -> Path:
        """Write the way here into a file."""
        cluster = {"server": f"http://127.0.0.1:{self.port}"}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "test", "user": {"token": "anybody"}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                }
            )
        )
        return path

    # What a person with kubectl does.

    def create(self, kind: Kind, body: Mapping[str, Any]) -> Body:
        """Create an object."""
        new = copy.deepcopy(dict(body))
        meta = new.setdefault("metadata", {})
        new |= {"apiVersion": kind.api_version, "kind": kind.name}
        if kind.is_namespaced:
            meta.setdefault("namespace", "default")
        key = (meta.get("namespace", ""), meta["name"])
        if key in self.shelves[kind].objects:
            raise Refusal(409, "AlreadyExists", f'{kind.plural} "{meta["name"]}" already exists')
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now(), "generation": 1}
        if kind.has_status:
            new.pop("status", None)
            new.setdefault("spec", {})
        return self._store(kind, key, new, "ADDED")

    def edit(self, kind: Kind, name: str, namespace: str = "default", **fields: Any) -> Body:
        """Change an object by a merge patch."""
        key = (namespace if kind.is_namespaced else "", name)
        return self._merge(kind, key, fields, "")

    def delete(self, kind: Kind, name: str, namespace: str = "default") -> None:
        """Delete an object, or begin to."""
        self._delete(kind, (namespace if kind.is_namespaced else "", name))

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Body | None:
        """Return an object, or None."""
        found = self.shelves[kind].objects.get((namespace if kind.is_namespaced else "", name))
        return None if found is None else copy.deepcopy(found)

    def bodies(self, kind: Kind) -> Iterator[Body]:
        """Yield all objects of a kind; not to be changed."""
        yield from self.shelves[kind].objects.values()

    # What goes wrong.

    def drop_watches(self) -> None:
        """Cut all streams that are open now."""
        cut, self._cut = self._cut, asyncio.Event()
        cut.set()
        for shelf in self.shelves.values():
            _wake(shelf)

    def forget_history(self) -> None:
        """Let every resource version of the past expire, as a compaction of etcd does."""
        for shelf in self.shelves.values():
            shelf.history.clear()
            shelf.oldest = next(self._version)

    # Storage.

    def _store(self, kind: Kind, key: ObjectKey, body: Body, event: str) -> Body:
        self._now = next(self._version)
        body["metadata"]["resourceVersion"] = str(self._now)
        shelf = self.shelves[kind]
        if event == "DELETED":
            shelf.objects.pop(key, None)
        else:
            shelf.objects[key] = body
        line = json.dumps({"type": event, "object": body}).encode() + b"\n"
        shelf.history.append((self._now, key[0], line))
        if len(shelf.history) == HISTORY:
            shelf.oldest = shelf.history[0][0]
        _wake(shelf)
        if event == "DELETED":
            self._applied.pop(body["metadata"]["uid"], None)
            self._collect(body["metadata"]["uid"])
        return body

    def _collect(self, owner: str) -> None:
        """Delete what belongs to an owner that is gone, as the garbage collector does."""
        for key, body in list(self.shelves[SECRETS].objects.items()):
            owners = body["metadata"].get("ownerReferences") or ()
            if owners and all(each["uid"] == owner for each in owners):
                self._delete(SECRETS, key)

    def _find(self, kind: Kind, key: ObjectKey) -> Body:
        found = self.shelves[kind].objects.get(key)
        if found is None:
            raise Refusal(404, "NotFound", f'{kind.plural} "{key[1]}" not found')
        return found

    def _delete(self, kind: Kind, key: ObjectKey) -> Body:
        old = self._find(kind, key)
        new = copy.deepcopy(old)
        if not old["metadata"].get("finalizers"):
            return self._store(kind, key, new, "DELETED")
        if "deletionTimestamp" in old["metadata"]:
            return old
        new["metadata"] |= {
            "deletionTimestamp": _now(),
            "generation": old["metadata"]["generation"] + 1,
        }
        return self._store(kind, key, new, "MODIFIED")

    def _merge(self, kind: Kind, key: ObjectKey, patch: Mapping[str, Any], sub: str) -> Body:
        old = self._find(kind, key)
        _expect(old, patch.get("metadata") or {})
        return self._change(kind, key, old, _merged(old, patch), sub)

    def _apply(
        self, kind: Kind, key: ObjectKey, wish: Body, sub: str, manager: str
    ) -> tuple[int, Body]:
        old = self.shelves[kind].objects.get(key)
        meta = wish.get("metadata") or {}
        if old is None:
            if sub:
                raise Refusal(404, "NotFound", f'{kind.plural} "{key[1]}" not found')
            if meta.get("uid"):
                raise Refusal(409, "Conflict", "uid mismatch: no existing object was found")
            return 201, self.create(kind, wish)
        _expect(old, meta)
        said = {
            name: copy.deepcopy(wish[name]) for name in wish if name not in {"apiVersion", "kind"}
        }
        if sub:
            said = {"status": said.get("status", {})}
        else:
            said.pop("status", None)
            said["metadata"] = {
                name: value
                for name, value in (said.get("metadata") or {}).items()
                if name in {"labels", "annotations", "ownerReferences", "finalizers"}
            }
        applied = self._applied[old["metadata"]["uid"]]
        new = copy.deepcopy(old)
        _take_away(new, applied.get((manager, sub), {}), said)
        new = _merged(new, said)
        applied[manager, sub] = said
        # Whoever keeps bodies has to deal with these; real ones are as long.
        new["metadata"]["managedFields"] = [
            {"manager": name, "operation": "Apply", "subresource": part, "fieldsV1": _fields(what)}
            for (name, part), what in applied.items()
        ]
        return 200, self._change(kind, key, old, new, sub)

    def _change(self, kind: Kind, key: ObjectKey, old: Body, new: Body, sub: str) -> Body:
        if sub == "status":
            fields = {"managedFields": new["metadata"].get("managedFields") or []}
            new = old | {"status": new.get("status"), "metadata": old["metadata"] | fields}
        elif kind.has_status:
            new["status"] = old.get("status")
        if new.get("status") is None:
            new.pop("status", None)
        fixed = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion")
        kept = {name: old["metadata"][name] for name in fixed if name in old["metadata"]}
        new["metadata"] = new["metadata"] | kept
        if _content(new) == _content(old):
            return old
        if kind.has_status and new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        is_over = "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers")
        return self._store(kind, key, new, "DELETED" if is_over else "MODIFIED")

    # HTTP.

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path.strip("/")
        if (found := self._discover(path)) is not None:
            return web.json_response(found)
        try:
            call = self._read_call(request, path)
            self.calls[str(call)] += 1
            if call.verb == "watch":
                return await self._watch(request, call)
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            if (instead := await self.before(call)) is not None:
                return instead
            status, body = await self._do(request, call)
            content = json.dumps(body).encode()
            if (instead := await self.after(call)) is not None:
                return instead
            return web.Response(status=status, body=content, content_type="application/json")
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.code)

    def _discover(self, path: str) -> Body | None:
        groups = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})
        if path == "version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.4"}
        if path == "api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "apis":
            rows = []
            for group, version in groups:
                this = {"groupVersion": f"{group}/{version}", "version": version}
                rows.append({"name": group, "versions": [this], "preferredVersion": this})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}
        for group, version in (("", "v1"), *groups):
            if path == (f"apis/{group}/{version}" if group else "api/v1"):
                return _resource_list(group, version)
        return None

    def _read_call(self, request: web.Request, path: str) -> Call:
        parts = path.split("/")
        group, version, rest = (
            ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        )
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        kind = self._kinds.get((group, version, rest[0])) if rest else None
        if kind is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        name = rest[1] if len(rest) > 1 else ""
        verb = {"GET": "get" if name else "list", "POST": "create", "PUT": "update"}.get(
            request.method, request.method.lower()
        )
        if verb == "list" and request.query.get("watch") == "true":
            verb = "watch"
        return Call(verb, kind, namespace, name, rest[2] if len(rest) > 2 else "")

    async def _do(self, request: web.Request, call: Call) -> tuple[int, Body]:
        kind, key = call.kind, (call.namespace, call.name)
        match call.verb:
            case "list":
                return 200, self._list(request, call)
            case "get":
                return 200, self._find(kind, key)
            case "delete":
                return 200, self._delete(kind, key)
            case "create":
                body = await request.json()
                if kind.is_namespaced:
                    body.setdefault("metadata", {})["namespace"] = call.namespace
                return 201, self.create(kind, body)
            case "update":
                body = await request.json()
                old = self._find(kind, key)
                _expect(old, body.get("metadata") or {})
                return 200, self._change(kind, key, old, body, call.subresource)
            case "patch" if "apply" in request.content_type:
                wish = await request.json()
                manager = request.query["fieldManager"]
                return self._apply(kind, key, wish, call.subresource, manager)
            case "patch":
                return 200, self._merge(kind, key, await request.json(), call.subresource)
        raise Refusal(405, "MethodNotAllowed", call.verb)

    def _list(self, request: web.Request, call: Call) -> Body:
        shelf = self.shelves[call.kind]
        items = [
            body
            for (namespace, _), body in sorted(shelf.objects.items())
            if call.namespace in {"", namespace}
        ]
        # All pages are of one moment, as etcd has it: a watch goes on from there.
        moment, start = str(self._now), 0
        if (token := request.query.get("continue")) is not None:
            items, moment, start = self._pages.pop(token)
        limit = int(request.query.get("limit") or 0)
        meta = {"resourceVersion": moment}
        if limit and start + limit < len(items):
            meta["continue"] = f"{next(self._version)}"
            self._pages[meta["continue"]] = (items, moment, start + limit)
        page = items[start : start + limit] if limit else items[start:]
        return {
            "apiVersion": call.kind.api_version,
            "kind": f"{call.kind.name}List",
            "metadata": meta,
            "items": page,
        }

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        cut = self._cut
        seen = int(request.query.get("resourceVersion") or 0)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with suppress(ConnectionError):
            await response.prepare(request)
            await self._stream(response, call, seen, cut)
        return response

    async def _stream(
        self, response: web.StreamResponse, call: Call, seen: int, cut: asyncio.Event
    ) -> None:
        shelf = self.shelves[call.kind]
        if seen < shelf.oldest:
            gone = Refusal(410, "Expired", f"too old resource version: {seen}")
            await response.write(
                json.dumps({"type": "ERROR", "object": gone.body}).encode() + b"\n"
            )
            return
        while not cut.is_set():
            lines = [
                line
                for version, namespace, line in _newer(shelf.history, seen)
                if call.namespace in {"", namespace}
            ]
            seen = max(seen, self._now)
            changed = shelf.changed
            if lines:
                await response.write(b"".join(lines))
                continue
            try:
                async with asyncio.timeout(self.bookmark_seconds):
                    await changed.wait()
            except TimeoutError:
                meta = {"resourceVersion": str(self._now)}
                mark = {"kind": call.kind.name, "apiVersion": call.kind.api_version}
                line = json.dumps({"type": "BOOKMARK", "object": mark | {"metadata": meta}})
                await response.write(line.encode() + b"\n")


def _newer(history: deque[tuple[int, str, bytes]], seen: int) -> list[tuple[int, str, bytes]]:
    found = []
    for entry in reversed(history):
        if entry[0] <= seen:
            break
        found.append(entry)
    return found[::-1]


def _wake(shelf: Shelf) -> None:
    changed, shelf.changed = shelf.changed, asyncio.Event()
    changed.set()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _expect(old: Body, meta: Mapping[str, Any]) -> None:
    """Refuse a write for another object, or for one that changed meanwhile."""
    for name in ("uid", "resourceVersion"):
        if meta.get(name) and meta[name] != old["metadata"][name]:
            raise Refusal(409, "Conflict", f"the object has been modified ({name})")


def _merged(old: Any, patch: Any) -> Any:
    """Return the result of a merge patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


def _take_away(target: Body, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Remove what a manager said before and does not say any more."""
    for name, value in before.items():
        if name not in now:
            target.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _take_away(target[name], value, now[name] if isinstance(now[name], Mapping) else {})


def _content(body: Body) -> Body:
    meta = {
        name: value
        for name, value in body["metadata"].items()
        if name not in {"resourceVersion", "managedFields"}
    }
    return body | {"metadata": meta}


def _fields(said: Any) -> Body:
    if not isinstance(said, Mapping):
        return {}
    return {f"f:{name}": _fields(value) for name, value in said.items()}


def _resource_list(group: str, version: str) -> Body:
    rows = []
    for kind in KINDS:
        if (kind.group, kind.version) != (group, version):
            continue
        row = {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "kind": kind.name,
            "namespaced": kind.is_namespaced,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }
        rows.append(row)
        if kind.has_status:
            rows.append(
                row | {"name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]}
            )
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "groupVersion": api_version, "resources": rows}
