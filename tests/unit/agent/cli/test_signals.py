import asyncio
import signal
import subprocess
import sys
import textwrap

import pytest

from moleport_agent.cli.signals import run_until_signalled

SCRIPT = textwrap.dedent("""
    import asyncio, sys
    {before}
    from moleport_agent.cli import signals
    signals.STOP_SECONDS = {stop_seconds}

    async def run(stop):
        print("up", type(asyncio.get_running_loop()).__module__, flush=True)
        await stop.wait()
        print("stopping", flush=True)
        {after}
        return 0

    sys.exit(signals.run_until_signalled(run, lambda: print("restored", flush=True)))
""")
HANG = "await asyncio.Event().wait()"


def start(*, before: str = "", after: str = "", stop_seconds: float = 30) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            SCRIPT.format(before=before, after=after, stop_seconds=stop_seconds),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("before", "loop"),
    [("", "uvloop"), ("sys.modules['uvloop'] = None", "asyncio.unix_events")],
    ids=["uvloop", "asyncio"],
)
def test_the_first_signal_asks_for_a_clean_end(
    number: signal.Signals, before: str, loop: str
) -> None:
    with start(before=before) as process:
        assert next_line(process) == f"up {loop}"
        process.send_signal(number)

        assert next_line(process) == "stopping"
        assert process.wait(20) == 0


def test_the_second_signal_ends_at_once_and_gives_the_terminal_back() -> None:
    with start(after=HANG) as process:
        next_line(process)
        process.send_signal(signal.SIGINT)
        assert next_line(process) == "stopping"
        process.send_signal(signal.SIGINT)

        assert next_line(process) == "restored"
        assert process.wait(20) == 130


def test_a_clean_end_that_hangs_has_a_deadline() -> None:
    with start(after=HANG, stop_seconds=0.1) as process:
        next_line(process)
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 1


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    with start(before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)") as process:
        next_line(process)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)

        assert next_line(process) == "stopping"
        assert process.wait(20) == 0


def test_handlers_are_restored_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def run(_stop: asyncio.Event) -> int:
        return 5

    assert run_until_signalled(run, lambda: None) == 5
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_timeout_of_the_agent_is_not_taken_for_ours() -> None:
    async def run(_stop: asyncio.Event) -> int:
        raise TimeoutError("the agent's own")

    with pytest.raises(TimeoutError, match="the agent's own"):
        run_until_signalled(run, lambda: None)
