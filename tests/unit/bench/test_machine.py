import pytest

from moleport_bench.machine import describe_machine, first_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nginx version: nginx/1.22.1\n", "1.22.1"),
        ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012\n", "4.1.0-3+b2"),
        (
            "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n",
            "2.6.12-1+deb12u4",
        ),
        ("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19\n", "9.2p1"),
        (
            "Build Timestamp:     2026-11-28T16:04:31.845228258Z\nBuild Version:       0.5.0\n",
            "0.5.0",
        ),
        ("a program without any", "unknown"),
    ],
)
def test_versions_are_found_in_what_programs_say(text: str, version: str) -> None:
    assert first_version(text) == version


def test_the_machine_is_described() -> None:
    assert set(describe_machine()) == {"processor", "cores", "memory", "system", "kernel", "python"}
