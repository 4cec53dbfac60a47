"""Run the agent until a signal: the first asks for a clean end, the second ends at once.

`signal.signal` and `call_soon_threadsafe` work on every platform and event loop; Windows has no
`add_signal_handler`. Signals that the parent told us to ignore (nohup, a background job) stay so.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Final

from moleport_agent.cli.exits import Exit
from moleport_wire.aio.heap import keep_freed_memory

STOP_SECONDS: Final = 15.0
"""A clean end takes a round trip; a server that does not answer must not keep us."""
_SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


def run_until_signalled(
    run: Callable[[asyncio.Event], Coroutine[Any, Any, int]], restore: Callable[[], None]
) -> int:
    """Run a coroutine to its end and return its exit code.

    Args:
        run: gets the event that is set by the first signal, and must end soon after.
        restore: gives the terminal back before the second signal ends the process.
    """
    keep_freed_memory()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_supervise(run, restore))


async def _supervise(
    run: Callable[[asyncio.Event], Coroutine[Any, Any, int]], restore: Callable[[], None]
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    try:
        async with asyncio.timeout(None) as deadline:

            def ask() -> None:
                stop.set()
                deadline.reschedule(loop.time() + STOP_SECONDS)

            with _handled(lambda: loop.call_soon_threadsafe(ask), restore):
                return await run(stop)
    except TimeoutError:
        if not deadline.expired():
            raise
        return Exit.FAILED


@contextlib.contextmanager
def _handled(ask: Callable[[], object], restore: Callable[[], None]) -> Iterator[None]:
    received = 0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received == 1:
            ask()
            return
        # Whatever hangs now would hang in an orderly end as well.
        restore()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(Exit.INTERRUPTED)

    previous = {
        number: signal.signal(number, on_signal)
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
