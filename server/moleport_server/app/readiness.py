"""Readiness: what `/readyz` says while the server starts, runs and drains."""


class Readiness:
    """Where the server stands between its start and its end."""

    def __init__(self) -> None:
        self.is_ready = False
        """Every listener is open."""
        self.is_draining = False
        """It was told to end."""

    def not_ready_because(self) -> str | None:
        """Why `/readyz` says no, or None."""
        if self.is_draining:
            return "draining"
        return None if self.is_ready else "starting"
