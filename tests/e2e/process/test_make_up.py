"""`make up` as a newcomer meets it: its script as a real process, with a signal at the end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from moleport_server.config.environment import environment

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "demo" / "run.py"
END_SECONDS = 30.0


class Demo:
    """The running demo, its output and where it keeps things."""

    def __init__(self, process: subprocess.Popen[str], temporary: Path, profiles: Path) -> None:
        self.process = process
        self.temporary = temporary
        self.profiles = profiles
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read on until a line matches; the timeout of the test bounds the wait."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError("it ended early:\n" + "".join(self.lines))

    def end(self, number: int) -> str:
        """Send a signal and return everything that was said."""
        self.process.send_signal(number)
        return self.rest()

    def rest(self) -> str:
        """Wait for the end and return everything that was said."""
        rest, _ = self.process.communicate(timeout=END_SECONDS)
        return "".join(self.lines) + rest


@contextmanager
def demo(directory: Path) -> Iterator[Demo]:
    temporary, profiles = directory / "temporary", directory / "profiles"
    temporary.mkdir()
    environ = {**environment(), "TMPDIR": str(temporary), "MOLEPORT_CONFIG_DIR": str(profiles)}
    process = subprocess.Popen(
        [sys.executable, str(DEMO)],
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    running = Demo(process, temporary, profiles)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.end(signal.SIGTERM)
        if process.stdout is not None:
            process.stdout.close()


def processes_that_mention(path: Path) -> dict[int, str]:
    needle = str(path).encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if needle in command:
            found[int(entry.parent.name)] = command.replace(b"\0", b" ").decode("utf-8", "replace")
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_visits_both_tunnels_shows_requests_and_leaves_nothing_behind(
    tmp_path: Path, number: int
) -> None:
    with demo(tmp_path) as running:
        url = running.read_until(r"site\s+(http://\S+)")[1]
        running.read_until(r"Requests as they come")
        profile = json.loads((running.profiles / "profile.json").read_text())
        address = urlsplit(url)
        visitor = http.client.HTTPConnection("127.0.0.1", address.port or 80, timeout=10)
        visitor.request("GET", "/headers?seen=1", headers={"Host": address.netloc})
        answer = visitor.getresponse()
        received = json.loads(answer.read())
        visitor.close()
        running.read_until(r"site\s+GET /headers  200")
        said = running.end(number)

    assert running.process.returncode == 0
    assert answer.status == 200
    assert received["Host"] == address.netloc
    assert received["X-Forwarded-For"] == "127.0.0.1"
    assert said.count("ok   ") == 3
    assert "heard 'hello, is anybody there?'" in said
    assert "Traceback" not in said
    assert said.endswith("everything has ended, nothing is left behind\n")
    assert urlsplit(profile["server"]).hostname == "localhost"
    assert list(running.temporary.iterdir()) == []
    assert not (running.profiles / "profile.json").exists()
    if Path("/proc").is_dir():
        assert processes_that_mention(running.temporary) == {}
    with socket.socket() as probe:
        probe.settimeout(1)
        assert probe.connect_ex(("127.0.0.1", address.port or 80)) != 0


def test_it_finds_room_when_a_default_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as occupant:
        occupant.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            occupant.bind(("127.0.0.1", 8080))
            occupant.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        with demo(tmp_path) as running:
            base = int(running.read_until(r"taken, so this demo uses (\d+)")[1])
            url = running.read_until(r"site\s+(http://\S+)")[1]
            running.end(signal.SIGINT)

    assert urlsplit(url).port == base
    assert running.process.returncode == 0


def test_it_leaves_a_profile_alone_that_somebody_wrote(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    own = '{"server": "https://tunnels.example.com:4040"}'
    (profiles / "profile.json").write_text(own)

    with demo(tmp_path) as running:
        hint = running.read_until(r"MOLEPORT_CONFIG_DIR=(\S+) \S*moleport http 3000")[1]
        was_there = (Path(hint) / "profile.json").is_file()
        running.end(signal.SIGINT)

    assert was_there
    assert (profiles / "profile.json").read_text() == own


def test_a_signal_during_the_start_ends_it_as_cleanly(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.read_until(r"Starting a tunnel server")
        began = time.monotonic()
        said = running.end(signal.SIGINT)

    assert running.process.returncode == 0
    assert time.monotonic() - began < END_SECONDS
    assert "Traceback" not in said
    assert list(running.temporary.iterdir()) == []
    assert processes_that_mention(running.temporary) == {}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds its programs in /proc")
@pytest.mark.parametrize("victim", ["moleport-server dev", "moleport start"])
def test_a_program_that_is_killed_ends_it_with_its_name_and_leaves_nothing(
    tmp_path: Path, victim: str
) -> None:
    with demo(tmp_path) as running:
        running.read_until(r"Ctrl-C ends everything")
        (process,) = [
            number
            for number, command in processes_that_mention(running.temporary).items()
            if f"bin/{victim}" in command
        ]
        os.kill(process, signal.SIGKILL)
        said = running.rest()

    assert running.process.returncode == 1
    assert f"make up: {victim.split(maxsplit=1)[0]} has ended by signal 9" in said
    assert "Traceback" not in said
    assert list(running.temporary.iterdir()) == []
    assert processes_that_mention(running.temporary) == {}
