"""The settings as a table: which keys exist, what type each has and how it is read.

Made from the dataclasses, so that loader, printer and reference page cannot disagree with them.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from moleport_server.config import values
from moleport_server.config.settings import Domains, HostText, ServerSettings, UrlText
from moleport_server.domain.tunnel import IPNetwork

VARIABLE_PREFIX = "MOLEPORT__"
"""Two underscores, so that neither variables of the agent (`MOLEPORT_TOKEN`) nor those that
Kubernetes makes for a Service named moleport (`MOLEPORT_PORT`) can be taken for settings."""

_PARSERS: dict[Any, Callable[[object], object]] = {
    values.Endpoint | None: values.parse_endpoint,
    values.PortRange: values.parse_port_range,
    values.Secret | None: values.parse_secret,
    Path: values.parse_path,
    Path | None: values.parse_path,
    Domains: values.parse_domains,
    HostText: values.parse_host,
    UrlText: values.parse_url,
    tuple[str, ...]: values.parse_texts,
    tuple[IPNetwork, ...]: values.parse_networks,
    tuple[values.CertificateFiles, ...]: values.parse_certificates,
}

_EXPECTATIONS: dict[Any, str] = {
    values.Endpoint | None: "`host:port` | `off`",
    values.PortRange: "`first-last`",
    values.Secret | None: "secret text",
    Path: "path",
    Path | None: "path",
    Domains: "list of domain names",
    HostText: "host name or IP address",
    UrlText: "http or https URL",
    tuple[IPNetwork, ...]: "list of IP addresses and CIDRs",
    tuple[values.CertificateFiles, ...]: "list of tables with `certificate_file`, `key_file`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One setting."""

    section: str
    name: str
    type: Any
    default: object

    @property
    def path(self) -> str:
        """The dotted path, as in `--set` and in messages."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"{VARIABLE_PREFIX}{self.section}__{self.name}".upper()

    @property
    def is_secret(self) -> bool:
        """Whether the value must never be shown."""
        return bool(self.type == values.Secret | None)

    @property
    def _refuses_empty_text(self) -> bool:
        # An empty secret is a mistake that opens doors, and a listener is turned off by `off`.
        return self.is_secret or bool(self.type == values.Endpoint | None)

    @property
    def expectation(self) -> str:
        """What the value may be, in words."""
        return _EXPECTATIONS.get(self.type) or _describe(self.type)

    def parse(self, value: object, *, is_text: bool) -> object:
        """Return the value of the setting.

        Args:
            value: as the source holds it.
            is_text: whether the source can only hold text, so that `"8"` is a number as well.

        Raises:
            ValueError: it is not usable; the text says what is expected and never repeats a secret.
        """
        if value == "" and _is_optional(self.type) and not self._refuses_empty_text:
            return None
        parser = _PARSERS.get(self.type)
        if parser is not None:
            return parser(value)
        if is_text and isinstance(value, str) and typing.get_origin(self.type) is tuple:
            value = values.parse_texts(value)
        try:
            return msgspec.convert(value, self.type, strict=not is_text)
        except msgspec.ValidationError as error:
            raise ValueError(f"expected {self.expectation}") from error


@cache
def sections() -> Mapping[str, type]:
    """The sections and their dataclasses, in order."""
    return typing.get_type_hints(ServerSettings)


@cache
def keys() -> Mapping[str, Key]:
    """All settings by their path, in order."""
    return {key.path: key for section in sections() for key in _keys_of(section)}


def value_of(settings: ServerSettings, key: Key) -> object:
    """Return what a setting is set to."""
    value: object = getattr(getattr(settings, key.section), key.name)
    return value


def _keys_of(section: str) -> Iterator[Key]:
    owner = sections()[section]
    hints = typing.get_type_hints(owner, include_extras=True)
    for field in dataclasses.fields(owner):
        yield Key(section=section, name=field.name, type=hints[field.name], default=field.default)


def _is_optional(annotation: Any) -> bool:
    is_union = typing.get_origin(annotation) in {types.UnionType, typing.Union}
    return is_union and types.NoneType in typing.get_args(annotation)


def _describe(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds = " and ".join(_bounds(arguments[1]))
        return f"{_describe(arguments[0])} {bounds}".strip()
    if origin is typing.Literal:
        return " | ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"list of {_describe(arguments[0])}"
    if origin in {types.UnionType, typing.Union}:
        return " | ".join(_describe(part) for part in arguments if part is not types.NoneType)
    return {bool: "`true` | `false`", int: "whole number", float: "number", str: "text"}[annotation]


def _bounds(meta: object) -> Iterator[str]:
    for name, sign in (("ge", "at least"), ("gt", "above"), ("le", "at most")):
        bound = getattr(meta, name, None)
        if bound is not None:
            yield f"{sign} {bound}"
