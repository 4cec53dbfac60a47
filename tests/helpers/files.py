"""What a directory holds, so that a test can say «nothing was touched»."""

from hashlib import sha256
from pathlib import Path


def digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by relative name."""
    return {
        str(path.relative_to(directory)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
