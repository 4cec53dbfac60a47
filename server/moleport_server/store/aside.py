"""Names for files that are kept aside: beside the original, telling why and when."""

from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path


def free_name(path: Path, reason: str) -> Path:
    """Return a name that nothing has, like `state.db.before-restore-20250131T235959Z`.

    The caller holds the lock of the directory, so the name stays free. The machine's time only
    labels the file and decides nothing, which is why no `Clock` is asked for it.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    endings = chain([""], (f"-{number}" for number in count(2)))
    names = (path.with_name(f"{path.name}.{reason}-{stamp}{ending}") for ending in endings)
    return next(name for name in names if not name.exists())
