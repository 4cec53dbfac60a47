"""Find out which server to talk to and with which token: flags, environment, file, profile.

The only module that reads the environment. Each source becomes a `Layer`, and the first layer that
says something wins: flags > environment > moleport.yaml > the profile that `moleport login` wrote.
Trust (`ca_file`, `insecure`) is taken as a whole from one layer, so that an explicit CA is never
undone by a forgotten `insecure` further down.

The profile's token and trust belong to the profile's server: they are never used for another one,
or a mistyped `--server` would hand the token to a stranger.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import platformdirs

from moleport_agent.errors import ConfigError
from moleport_agent.settings import Secret, ServerSettings

PROFILE_NAME: Final = "profile.json"
LONGEST_TOKEN_BYTES: Final = 16 * 1024
"""Tokens are short; whatever is longer is a wrong file, and must not go out in a header."""
_LOGIN_FIRST: Final = (
    "no token: run `moleport login`, or set MOLEPORT_TOKEN_FILE, MOLEPORT_TOKEN or --token-file"
)
_NO_SERVER: Final = (
    "no server: run `moleport login https://host:4040`, or set MOLEPORT_SERVER or --server"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one source says about the server; None: nothing."""

    source: str
    """For messages: who said it."""
    server: str | None = None
    token: Secret | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    insecure: bool | None = None
    is_bound_to_server: bool = False
    """Whether token and trust are for this layer's own server only."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored profile; other keys are left to other writers and ignored."""

    server: str
    token: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    insecure: bool = False

    def __repr__(self) -> str:
        return f"Profile(server={self.server!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedServer:
    """The settings that won, and where they came from."""

    settings: ServerSettings
    server_source: str
    token_source: str | None
    """None: there is no token (only when it was not required)."""
    token_path: Path | None
    """The file that the token is read from, if it is one."""
    warnings: tuple[str, ...]
    """What people must be told at each start."""


def environment() -> Mapping[str, str]:
    """Return the environment of this process."""
    return os.environ  # noqa: TID251 - this is the module that reads it


def config_directory(environ: Mapping[str, str]) -> Path:
    """Tell where the profile lives: MOLEPORT_CONFIG_DIR, or the platform's place for settings."""
    if chosen := environ.get("MOLEPORT_CONFIG_DIR"):
        return Path(chosen)
    return platformdirs.user_config_path("moleport", appauthor=False)


def memory_file(environ: Mapping[str, str]) -> Path:
    """Tell where the agent remembers names: beside the profile, or the platform's place for state."""
    if chosen := environ.get("MOLEPORT_CONFIG_DIR"):
        return Path(chosen) / "names.json"
    return platformdirs.user_state_path("moleport", appauthor=False) / "names.json"


def environment_layers(environ: Mapping[str, str]) -> list[Layer]:
    """Make the layers of the environment: its variables, then the Secret directory it names.

    Raises:
        ConfigError: token and token file are both set, or the directory is unusable.
    """
    token, token_file = environ.get("MOLEPORT_TOKEN"), environ.get("MOLEPORT_TOKEN_FILE")
    if token and token_file:
        raise ConfigError(["MOLEPORT_TOKEN and MOLEPORT_TOKEN_FILE are both set; unset one"])
    layers = [
        Layer(
            source="the environment",
            server=environ.get("MOLEPORT_SERVER") or None,
            token=Secret(token.strip()) if token else None,
            token_file=Path(token_file) if token_file else None,
            ca_file=Path(ca_file) if (ca_file := environ.get("MOLEPORT_CA_FILE")) else None,
        )
    ]
    if directory := environ.get("MOLEPORT_SECRET_DIR"):
        layers.append(secret_directory_layer(Path(directory)))
    return layers


def secret_directory_layer(directory: Path) -> Layer:
    """Make a layer of a mounted TunnelToken Secret: files `uri`, `token` and `ca.crt`.

    The token stays a file name, so that a rotation by Kubernetes is seen.

    Raises:
        ConfigError: the directory has no `token`, or its address cannot be read.
    """
    if not (directory / "token").is_file():
        raise ConfigError([f"secret directory {directory}: there is no file named token in it"])
    server = None
    for name in ("uri", "MOLEPORT_SERVER"):
        if (directory / name).is_file():
            try:
                server = (directory / name).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError([f"{directory / name}: cannot read it: {error}"]) from error
            break
    ca_file = directory / "ca.crt"
    return Layer(
        source=f"the secret directory {directory}",
        server=server or None,
        token_file=directory / "token",
        ca_file=ca_file if ca_file.is_file() else None,
    )


def profile_layers(directory: Path) -> list[Layer]:
    """Make the layer of the profile, if there is one.

    Raises:
        ConfigError: the profile cannot be read or is damaged.
    """
    path = directory / PROFILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError([f"{path}: cannot read it: {error.strerror or error}"]) from error
    try:
        profile = msgspec.json.decode(content, type=Profile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # The exception may quote the content, and with it the token: name the file only.
        problem = f"{path}: the profile is damaged; run `moleport login` to write it anew"
        raise ConfigError([problem]) from error
    return [
        Layer(
            source=f"the profile {path}",
            server=profile.server,
            token=Secret(profile.token) if profile.token else None,
            token_file=Path(profile.token_file) if profile.token_file else None,
            ca_file=Path(profile.ca_file) if profile.ca_file else None,
            insecure=profile.insecure or None,
            is_bound_to_server=True,
        )
    ]


def resolve(layers: Sequence[Layer], *, needs_token: bool = True) -> ResolvedServer:
    """Merge the layers, the strongest first.

    Raises:
        ConfigError: no server, no token (when needed), or unusable values; lists every problem.
    """
    problems: list[str] = []
    warnings: list[str] = []
    named = next((layer for layer in layers if layer.server), None)
    url = ""
    if named is None:
        problems.append(_NO_SERVER)
    else:
        try:
            url = parse_server(named.server or "")
        except ConfigError as error:
            problems.extend(f"{problem} (from {named.source})" for problem in error.problems)
    usable = [layer for layer in layers if not layer.is_bound_to_server or _is_for(layer, url)]
    holder = next((layer for layer in usable if layer.token or layer.token_file), None)
    if holder is None and needs_token:
        problems.append(_without_token(layers, url))
    trust = next((layer for layer in usable if layer.ca_file or layer.insecure), None)
    ca_file, insecure = (trust.ca_file, bool(trust.insecure)) if trust else (None, False)
    if ca_file is not None and not ca_file.is_file() and not insecure:
        problems.append(f"CA file {ca_file}: there is no such file")
    if problems or named is None:
        raise ConfigError(problems)
    if url.startswith("http://") and not _is_loopback(url):
        warnings.append(f"{url} is not encrypted: everybody on the way can read the token")
    elif insecure:
        warnings.append(
            f"the certificate of {url} is NOT verified (insecure): "
            "anybody on the way can read the token and all traffic"
        )
    return ResolvedServer(
        settings=ServerSettings(
            url=url,
            read_token=_token_reader(holder),
            ca_file=None if insecure else ca_file,
            insecure=insecure,
        ),
        server_source=named.source,
        token_source=None if holder is None else holder.source,
        token_path=None if holder is None else holder.token_file,
        warnings=tuple(warnings),
    )


def parse_server(text: str) -> str:
    """Make the base URL of the control listener: scheme, host and port, no trailing slash.

    Raises:
        ConfigError: the text is no such URL.
    """
    written = text.strip()
    try:
        parts = urlsplit(written if "://" in written else f"https://{written}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or not written.isprintable():
        raise ConfigError(["the server must be a URL such as https://tunnels.example.com:4040"])
    if parts.username is not None or parts.password is not None:
        raise ConfigError(["the server's URL must not contain a user or password"])
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(["the server's URL must end after the port, as in https://host:4040"])
    bracketed = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{bracketed}" + ("" if port is None else f":{port}")


def read_token_file(path: Path) -> Secret:
    """Read a token from its file; surrounding white space does not belong to it.

    Raises:
        OSError: it cannot be read, is empty, or is no token.
    """
    with path.open("rb") as stream:
        content = stream.read(LONGEST_TOKEN_BYTES + 1)
    try:
        return check_token(content.decode("ascii", errors="replace"))
    except ConfigError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def check_token(text: str) -> Secret:
    """Strip a token and check that it may go into a header.

    Raises:
        ConfigError: it is empty, too long, or has characters that no token has.
    """
    token = text.strip()
    if not token:
        raise ConfigError(["the token is empty"])
    if len(token) > LONGEST_TOKEN_BYTES:
        raise ConfigError([f"the token is longer than {LONGEST_TOKEN_BYTES} characters"])
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError(["the token has spaces or characters outside of ASCII"])
    return Secret(token)


def write_profile(directory: Path, profile: Profile) -> Path:
    """Write the profile, readable by its owner only and all or nothing.

    Raises:
        ConfigError: the directory cannot be written.
    """
    path = directory / PROFILE_NAME
    content = msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `mkstemp` makes files of mode 0600, so the token is never readable, not for a moment.
        descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{PROFILE_NAME}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError([f"{path}: cannot write it: {error.strerror or error}"]) from error
    return path


def is_readable_by_others(path: Path) -> bool:
    """Whether other users of this machine may read a file of ours; never on Windows, which has ACLs.

    Somebody else's file, such as a Secret that a kubelet mounts, is as its owner wants it.

    Raises:
        OSError: the file cannot be looked at.
    """
    if os.name != "posix":
        return False
    status = path.stat()
    is_ours = status.st_uid == os.geteuid()
    return is_ours and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _token_reader(holder: Layer | None) -> Callable[[], Secret]:
    if holder is None:
        return _missing_token
    if holder.token_file is not None:
        path = holder.token_file
        return lambda: read_token_file(path)
    token = check_token(holder.token or "")
    return lambda: token


def _missing_token() -> Secret:
    raise OSError(errno.ENOENT, "there is no token")


def _is_for(layer: Layer, url: str) -> bool:
    try:
        return parse_server(layer.server or "") == url
    except ConfigError:
        return False


def _without_token(layers: Sequence[Layer], url: str) -> str:
    for layer in layers:
        if url and layer.is_bound_to_server and (layer.token or layer.token_file):
            return (
                f"no token for {url}: {layer.source} has one for {layer.server} only; "
                f"run `moleport login {url}` or set MOLEPORT_TOKEN_FILE"
            )
    return _LOGIN_FIRST


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("::1", "localhost") or host.startswith("127.") or host.endswith(".localhost")
