"""Read moleport.yaml: many tunnels, and where their server is.

The whole file is checked before anything is reported, so that one run shows every mistake, each
with the path of its key and, for an unknown key, the one that was probably meant. Values come from
the schema `tunnels.TunnelEntry`; nothing is guessed.
"""

import difflib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import msgspec
import yaml

from moleport_agent.errors import ConfigError
from moleport_agent.settings import TunnelSettings
from moleport_agent.tunnels import Problem, TunnelEntry, make_tunnel

DEFAULT_NAME: Final = "moleport.yaml"
LONGEST_FILE_BYTES: Final = 1024 * 1024
"""A thousand tunnels are 200 KiB; beyond this it is another file."""
MOST_TUNNELS: Final = 1024
"""More in one agent make no sense and would only hide a generator's mistake."""

_WORDS: Final[Mapping[Any, str]] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list of texts",
    dict: "one entry per tunnel",
}


class TunnelFileKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of the file itself."""

    server: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    insecure: bool | None = None
    connections: int | None = None
    tunnels: dict[str, Any] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelFile:
    """What a checked moleport.yaml says."""

    path: Path
    server: str | None
    token_file: Path | None
    ca_file: Path | None
    insecure: bool | None
    connections: int | None
    tunnels: tuple[TunnelSettings, ...]


def read_tunnel_file(path: Path) -> TunnelFile:
    """Read and check the file; relative names in it start at its own directory.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says something wrong; lists every problem.
    """
    written = _load(path)
    problems: list[str] = []
    keys = _leaves(written, TunnelFileKeys, "", problems)
    connections = keys.get("connections")
    if connections is not None and not 1 <= connections <= 16:
        problems.append("connections: must be a number from 1 to 16")
    tunnels = _tunnels(keys.get("tunnels", {}), path.parent, problems)
    if not tunnels and not problems:
        problems.append("tunnels: names no tunnel; write at least one")
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return TunnelFile(
        path=path,
        server=keys.get("server"),
        token_file=_beside(path, keys.get("token_file")),
        ca_file=_beside(path, keys.get("ca_file")),
        insecure=keys.get("insecure"),
        connections=connections,
        tunnels=tuple(tunnels),
    )


def _load(path: Path) -> Mapping[Any, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(LONGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot read it: {error.strerror or error}"]) from error
    if len(content) > LONGEST_FILE_BYTES:
        raise ConfigError([f"{path}: is larger than {LONGEST_FILE_BYTES} bytes"])
    try:
        loaded = yaml.load(content, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, see below
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: is no valid YAML: {_yaml_complaint(error)}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: is nested too deeply"]) from error
    if not isinstance(loaded, dict):
        raise ConfigError([f"{path}: must have the key tunnels, with one entry per tunnel"])
    return loaded


def _tunnels(
    written: Mapping[Any, Any], directory: Path, problems: list[str]
) -> list[TunnelSettings]:
    if len(written) > MOST_TUNNELS:
        problems.append(f"tunnels: has more than {MOST_TUNNELS} entries")
        return []
    made: list[TunnelSettings] = []
    for name, entry in written.items():
        where = f"tunnels.{name}"
        if not isinstance(entry, dict):
            problems.append(f"{where}: must have keys, at least protocol and target")
            continue
        known = len(problems)
        values = _leaves(entry, TunnelEntry, where, problems)
        problems.extend(
            f"{where}.{key}: is missing" for key in ("protocol", "target") if key not in entry
        )
        is_whole = len(problems) == known
        tunnel, found = _check_entry(name, values, directory)
        problems.extend(f"{where}.{field}: {sentence}" for field, sentence in found)
        if tunnel is not None and is_whole:
            made.append(tunnel)
    problems.extend(_doubles(made))
    return made


def _check_entry(
    name: str, values: Mapping[str, Any], directory: Path
) -> tuple[TunnelSettings | None, list[Problem]]:
    """Check the values whose type is right; what is wrong or missing otherwise has been told.

    Without a protocol only that counts which is wrong with each of them.
    """
    protocols = [values["protocol"]] if "protocol" in values else ["http", "tcp"]
    tunnel: TunnelSettings | None = None
    rounds: list[list[Problem]] = []
    for protocol in protocols:
        found: list[Problem] = []
        entry = TunnelEntry(**{"target": 1, **values, "protocol": protocol})
        tunnel = make_tunnel(name, entry, directory, found)
        rounds.append(found)
    return tunnel, [problem for problem in rounds[0] if all(problem in one for one in rounds)]


def _doubles(tunnels: Iterable[TunnelSettings]) -> Iterable[str]:
    """Find two tunnels of this file that ask for one address; the server would let only one win."""
    owners: dict[tuple[str, str | int], str] = {}
    for tunnel in tunnels:
        for field, wanted in (
            ("name", tunnel.subdomain),
            ("hostname", tunnel.hostname),
            ("port", tunnel.port),
        ):
            if wanted is None:
                continue
            owner = owners.setdefault((field, wanted), tunnel.name)
            if owner != tunnel.name:
                yield f"tunnels.{tunnel.name}.{field}: {wanted} is already that of tunnel {owner}"


def _leaves(
    written: Mapping[Any, Any], schema: type[msgspec.Struct], where: str, problems: list[str]
) -> dict[str, Any]:
    """Convert each value by itself, so that one mistake does not hide the others."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
    converted: dict[str, Any] = {}
    for key, value in written.items():
        path = f"{where}.{key}" if where else str(key)
        field = fields.get(key) if isinstance(key, str) else None
        if field is None:
            problems.append(f"{path}: {_unknown(str(key), fields)}")
            continue
        try:
            converted[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            problems.append(f"{path}: must be {' or '.join(_wanted(field.type))}")
    return converted


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    if close:
        return f"is not known; did you mean {close[0]}?"
    return f"is not known; the keys are {', '.join(known)}"


def _wanted(kind: Any) -> list[str]:
    """Say in words what a type of the schema accepts."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    if get_origin(kind) in (Union, UnionType):
        return [word for one in get_args(kind) for word in _wanted(one)]
    return [] if kind is NoneType else [_WORDS[get_origin(kind) or kind]]


def _beside(path: Path, name: str | None) -> Path | None:
    return None if name is None else path.parent / Path(name).expanduser()


def _yaml_complaint(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).splitlines()[0]


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, except that a repeated key is an error: YAML would drop the first tunnel."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the signature of the base class
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
