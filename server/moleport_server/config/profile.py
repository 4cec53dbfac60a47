"""The CLI's profile that `moleport-server dev` leaves, so that `moleport http 3000` works next.

A profile that somebody else wrote, or that cannot be understood, is never touched: it may be the
way to a production server.
"""

import json
import os
import tempfile
from enum import Enum, auto
from pathlib import Path

MARKER = "moleport-server dev"
"""Value of `written_by` in profiles that may be replaced."""

FILE_NAME = "profile.json"


class ProfileOutcome(Enum):
    """What happened to the profile."""

    WRITTEN = auto()
    KEPT = auto()
    """Somebody else's profile is there and was left alone."""


def write_profile(
    directory: Path, *, server: str, token_file: Path, ca_file: Path
) -> ProfileOutcome:
    """Write the profile, unless a foreign one is there.

    Args:
        directory: the CLI's configuration directory; made when missing.
        server: base URL of the control listener.
        token_file: where the CLI finds its token; the token itself is not copied.
        ca_file: certificate of the authority to trust.

    Raises:
        OSError: the directory or the file cannot be written.
    """
    path = directory / FILE_NAME
    if not _is_ours(path):
        return ProfileOutcome.KEPT
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "written_by": MARKER,
        "server": server,
        "token_file": str(token_file.resolve()),
        "ca_file": str(ca_file.resolve()),
    }
    write_private(path, json.dumps(document, indent=2) + "\n")
    return ProfileOutcome.WRITTEN


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; readers see the old or the new one, never half.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_ours(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("written_by") == MARKER
