"""The data directory: where the files are, and that one server uses them.

The lock is an flock on a file that stays: the kernel drops it with the process, however that ends,
so a crash never leaves a directory locked. It guards against a second server, not against readers:
a backup takes no lock.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from moleport_server.errors import StoreLocked
from moleport_server.store.failures import translating


class DataDirectory:
    """A directory with the durable files of one server; locked inside a `with` block.

    Entering, with `with` or `async with`, creates the directory for its owner only if there is
    none, and never waits. The databases are closed before the block ends.

    Raises:
        StoreLocked: (on entering) another server uses the directory.
        StoreError: (on entering) it cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def state_path(self) -> Path:
        """Tokens, leases, sessions, history: what a backup holds."""
        return self.path / "state.db"

    @property
    def captures_path(self) -> Path:
        """Captured requests, which may be lost."""
        return self.path / "captures.db"

    @property
    def lock_path(self) -> Path:
        """The file that carries the lock; it has no content."""
        return self.path / "lock"

    def __enter__(self) -> Self:
        if self._lock is not None:
            raise StoreLocked(f"the data directory {self.path} is in use by this very process")
        with translating(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise StoreLocked(
                    f"another server uses the data directory {self.path}; "
                    "stop it first, or choose another directory"
                ) from error
            except BaseException:
                os.close(lock)
                raise
        self._lock = lock
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            # The file stays: were it deleted, two servers could hold locks on different files.
            os.close(self._lock)
            self._lock = None

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
