"""The process around the settings: the only place that reads the environment.

`platformdirs` is imported where it is used: a server that knows its directories listens sooner without.
"""

import os
from collections.abc import Mapping
from pathlib import Path

CONFIG_DIR_VARIABLE = "MOLEPORT_CONFIG_DIR"
"""Where the CLI keeps its profile, if not in the platform's configuration directory."""

MAX_READ_BYTES = 1_000_000


def environment() -> Mapping[str, str]:
    """Return a copy of the environment."""
    return dict(os.environ)  # noqa: TID251 - the one place that the rule leaves


def read_text(path: Path) -> str:
    """Read a settings or token file, bounded so that a device or a dump cannot fill memory.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open("rb") as file:
        return file.read(MAX_READ_BYTES + 1).decode("utf-8-sig")


def profile_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory of the CLI's profile."""
    chosen = environ.get(CONFIG_DIR_VARIABLE)
    if chosen:
        return Path(chosen)
    import platformdirs  # noqa: PLC0415 - see above

    return platformdirs.user_config_path("moleport", appauthor=False)


def state_directory() -> Path:
    """Return where a development server keeps its data when nobody says where."""
    import platformdirs  # noqa: PLC0415 - see above

    return platformdirs.user_state_path("moleport", appauthor=False) / "server"
