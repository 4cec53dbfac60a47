"""The releases of the stock rustunnel client, and what they decide differently."""

import enum
import random
from dataclasses import dataclass
from typing import Self


class Kind(enum.Enum):
    """What an error is about; its text begins with it."""

    AUTH = "auth failed: {}"
    TUNNEL = "tunnel error: {}"
    CONNECTION = "connection error: {}"
    PROTOCOL = "protocol error: protocol error: {}"


class ClientError(Exception):
    """A session ended, or never began."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(kind.value.format(message))
        self.kind = kind


@dataclass(frozen=True, order=True, slots=True)
class Release:
    """A version of the client."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        major, minor, patch = (int(part) for part in text.split("."))
        return cls(major, minor, patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def reattaches(self) -> bool:
        """Whether it keeps the control session when the data channel is lost."""
        return self >= Release(0, 4, 10)

    @property
    def knows_udp(self) -> bool:
        return self >= Release(0, 5, 0)

    @property
    def fatal_exit_code(self) -> int:
        return 1 if self >= Release(0, 8, 0) else 0

    def is_fatal(self, error: ClientError) -> bool:
        """Whether it gives up for good instead of coming back.

        Up to 0.7 it searches the text of whatever went wrong for the word; 0.8.0 looks at the kind,
        and later ones give up over each refused tunnel as well.
        """
        if self < Release(0, 8, 0):
            return "auth" in str(error) or "Auth" in str(error)
        if self == Release(0, 8, 0):
            return error.kind is Kind.AUTH
        return error.kind in {Kind.AUTH, Kind.TUNNEL}

    def sees_groups(self, server_version: str) -> bool:
        """Whether it would speak of load-balancing groups to such a server."""
        if self < Release(0, 7, 0):
            return False
        plain = server_version.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0]
        parts = plain.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            return False
        return tuple(int(part) for part in parts) >= (0, 7, 0)


class Backoff:
    """How long to wait before each attempt; never starts anew, however long a session lasted."""

    FIRST_SECONDS = 1.0
    LONGEST_SECONDS = 60.0

    def __init__(self) -> None:
        self._next = self.FIRST_SECONDS
        self.attempt = 0

    def take(self) -> float:
        """Return the seconds to wait now."""
        seconds, self.attempt = self._next, self.attempt + 1
        self._next = min(self.LONGEST_SECONDS, 2 * seconds * random.uniform(0.8, 1.2))
        return seconds
