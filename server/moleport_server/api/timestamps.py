"""Times on the wire: Unix seconds become RFC 3339 in UTC, in the two forms of the seed API."""

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Return the time with `Z`; a fraction of six digits only if there is one."""
    moment = datetime.fromtimestamp(round(seconds, 6), UTC)
    precision = "microseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def rfc3339_or_none(seconds: float | None) -> str | None:
    """Return the time like `rfc3339`, or None for a time that has not come."""
    return None if seconds is None else rfc3339(seconds)


def rfc3339_whole(seconds: float) -> str:
    """Return the time in whole seconds with the offset `+00:00`, as `connected_since` has it."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()
