"""What can go wrong in a measurement, so that one peer's trouble never ends the whole run.

BenchError
  NotInstalled    a program is missing; says what to install
  NotReady        a peer did not answer in time; carries the end of what it said
  LoadError       a load generator failed or printed something unknown
"""


class BenchError(Exception):
    """A cell of a table could not be measured; its text becomes the footnote."""


class NotInstalled(BenchError):
    """A program is not there, and what would install it."""


class NotReady(BenchError):
    """A peer did not start, or did not come back, before the deadline."""


class LoadError(BenchError):
    """A load generator failed, or its output is not understood."""
