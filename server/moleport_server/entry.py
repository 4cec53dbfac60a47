"""The entry of the command `moleport-server`: says what is missing when only the agent is installed.

`pip install moleport` installs this command as well, but not the libraries of the server; those come
with the extra `server`. Without them there is nothing to run, and a traceback would not say so.
"""

import sys
from typing import NoReturn

from moleport_wire.aio.collection import postponed

EXIT_NOT_INSTALLED = 1


def main() -> NoReturn:
    """Run the command line."""
    try:
        with postponed():
            from moleport_server.main import main as run

            run()  # which imports what a command needs when its turn comes
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("moleport_"):
            raise
        sys.stderr.write(
            f"moleport-server: {error.name} is not installed; the server needs its extra: "
            "pip install 'moleport[server]'\n"
        )
        sys.exit(EXIT_NOT_INSTALLED)
