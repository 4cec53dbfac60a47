"""Merges the sources of settings: flags over environment over TOML file over presets over defaults.

Pure: the sources are arguments. All problems are collected and reported at once, each with the path
of its key and the source that holds it, because a container that has to be started once per mistake
is no fun. Presets are what a command such as `dev` puts under everything that people set.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from moleport_server.config.checks import check
from moleport_server.config.schema import VARIABLE_PREFIX, Key, keys, sections
from moleport_server.config.settings import ServerSettings
from moleport_server.errors import ConfigError

CONFIG_VARIABLE = f"{VARIABLE_PREFIX}CONFIG"
"""Names the TOML file when `--config` does not."""

MAX_FILE_CHARACTERS = 1_000_000
"""Far above any settings file; stops a file of another kind from being parsed."""

ReadFile = Callable[[Path], str]
"""Returns the text of a file; raises OSError or UnicodeDecodeError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The effective settings, and where those come from that are not defaults."""

    settings: ServerSettings
    sources: Mapping[str, str]
    """Source for people by the path of the key."""


@dataclass(slots=True)
class _Merge:
    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    def put(self, path: str, value: object, source: str, *, is_text: bool) -> None:
        """Set one key, over what was put before."""
        key = keys().get(path)
        if key is None:
            self.problems.append(f"{path}: unknown setting, from {source}{_suggestion(path)}")
            return
        try:
            self.values[path] = key.parse(value, is_text=is_text)
        except ValueError as error:
            self.problems.append(f"{path}: {error}, from {source}")
            self.values.pop(path, None)
            self.failed.add(path)
        else:
            self.failed.discard(path)
        self.sources[path] = source


def load(
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    read_file: ReadFile,
    *,
    config_file: Path | None = None,
    presets: Mapping[str, object] | None = None,
) -> ServerSettings:
    """Return the effective settings; `resolve` also tells where they come from.

    Raises:
        ConfigError: anything is wrong; it lists every problem.
    """
    return resolve(flags, environ, read_file, config_file=config_file, presets=presets).settings


def resolve(
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    read_file: ReadFile,
    *,
    config_file: Path | None = None,
    presets: Mapping[str, object] | None = None,
) -> Resolved:
    """Merge and check all sources.

    Args:
        flags: text by path, such as `{"log.level": "debug"}`.
        environ: the whole environment; names without our prefix are none of our business.
        read_file: reads the TOML file and the files that settings name.
        config_file: the TOML file; default: the one that `MOLEPORT__CONFIG` names, if any.
        presets: values by path that replace defaults.

    Raises:
        ConfigError: anything is wrong; it lists every problem.
    """
    merge = _Merge()
    for path, value in (presets or {}).items():
        merge.put(path, value, "this command", is_text=False)
    if config_file is None and environ.get(CONFIG_VARIABLE):
        config_file = Path(environ[CONFIG_VARIABLE])
    if config_file is not None:
        for path, value in _read_toml(config_file, read_file, merge.problems):
            merge.put(path, value, f"file {config_file}", is_text=False)
    _merge_environment(merge, environ)
    for path, text in flags.items():
        key = keys().get(path)
        if key is not None and key.is_secret:
            merge.failed.add(path)
            merge.problems.append(
                f"{path}: not as a flag, which everybody on this machine can read; "
                f"use {path}_file or {key.variable}"
            )
            continue
        merge.put(path, text, f"flag --set {path}", is_text=True)

    settings = _build(merge.values)
    settings, derived = _derive(settings, merge.sources)
    # A key that could not be read has its default now, which nobody chose and nobody shall hear of.
    merge.problems += [
        problem
        for problem in check(settings, merge.sources, read_file)
        if not merge.failed.intersection(re.findall(r"[a-z]+\.[a-z_]+", problem))
    ]
    if merge.problems:
        raise ConfigError(merge.problems)
    return Resolved(settings=settings, sources=merge.sources | derived)


def _build(values: Mapping[str, object]) -> ServerSettings:
    by_section: dict[str, dict[str, object]] = {section: {} for section in sections()}
    for path, value in values.items():
        section, name = path.split(".")
        by_section[section][name] = value
    made = {section: owner(**by_section[section]) for section, owner in sections().items()}
    return ServerSettings(**made)


def _derive(
    settings: ServerSettings, sources: Mapping[str, str]
) -> tuple[ServerSettings, dict[str, str]]:
    # The HTTPS edge is on by default, but without any certificate that default cannot be meant.
    if settings.tls.is_configured or "listen.edge_https" in sources:
        return settings, {}
    if settings.listen.edge_https is None:
        return settings, {}
    listen = replace(settings.listen, edge_https=None)
    derived = {"listen.edge_https": "the absence of a certificate"}
    return replace(settings, listen=listen), derived


def _read_toml(
    path: Path, read_file: ReadFile, problems: list[str]
) -> Iterator[tuple[str, object]]:
    try:
        text = read_file(path)
        if len(text) > MAX_FILE_CHARACTERS:
            problems.append(f"config: file {path} is too large for a settings file")
            return
        document = tomllib.loads(text)
    except OSError as error:
        problems.append(f"config: file {path} cannot be read: {error.strerror or error}")
        return
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"config: file {path} is not TOML: {error}")
        return
    for section, table in document.items():
        if not isinstance(table, dict) or section not in sections():
            hint = _closest(section, list(sections()), "[{}]")
            problems.append(f"{section}: unknown section, from file {path}{hint}")
            continue
        for name, value in table.items():
            yield f"{section}.{name}", value


def _merge_environment(merge: _Merge, environ: Mapping[str, str]) -> None:
    by_variable = {key.variable: key for key in keys().values()}
    misspelt = {_single_underscores(key): key for key in keys().values()}
    for variable, text in sorted(environ.items()):
        if variable == CONFIG_VARIABLE:
            continue
        if variable in by_variable:
            key = by_variable[variable]
            merge.put(key.path, text, f"environment variable {variable}", is_text=True)
        elif variable.startswith(VARIABLE_PREFIX):
            hint = _closest(variable, [*by_variable, CONFIG_VARIABLE], "{}")
            merge.problems.append(f"{variable}: unknown environment variable{hint}")
        elif variable in misspelt and "://" not in text:
            # A Service link of Kubernetes has the same form and always holds a URL in such a case.
            wanted = misspelt[variable].variable
            merge.problems.append(
                f"{variable}: unknown environment variable, did you mean {wanted}?"
            )


def _single_underscores(key: Key) -> str:
    return key.variable.replace("__", "_")


def _suggestion(path: str) -> str:
    same_name = [known for known in keys() if known.split(".")[1] == path.rpartition(".")[2]]
    if len(same_name) == 1:
        return f", did you mean {same_name[0]}?"
    return _closest(path, list(keys()), "{}")


def _closest(word: str, known: list[str], form: str) -> str:
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean {form.format(found[0])}?" if found else ""
