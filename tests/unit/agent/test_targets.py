from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_agent.errors import ConfigError
from moleport_agent.settings import Target
from moleport_agent.targets import parse_target

VALID = {
    "3000": Target(text="3000", port=3000),
    ":3000": Target(text=":3000", port=3000),
    " 80 ": Target(text="80", port=80),
    "db:5432": Target(text="db:5432", host="db", port=5432),
    "my_host.internal:1": Target(text="my_host.internal:1", host="my_host.internal", port=1),
    "10.1.2.3:65535": Target(text="10.1.2.3:65535", host="10.1.2.3", port=65535),
    "[::1]:3000": Target(text="[::1]:3000", host="::1", port=3000),
    "http://app": Target(text="http://app", host="app", port=80),
    "http://app:8080/": Target(text="http://app:8080/", host="app", port=8080),
    "http://[::1]:81": Target(text="http://[::1]:81", host="::1", port=81),
    "https://app": Target(text="https://app", host="app", port=443, tls=True, server_name="app"),
    "https://app:8443": Target(
        text="https://app:8443", host="app", port=8443, tls=True, server_name="app"
    ),
    "unix:/run/app.sock": Target(text="unix:/run/app.sock", unix_path=Path("/run/app.sock")),
    "unix:///run/app.sock": Target(text="unix:///run/app.sock", unix_path=Path("/run/app.sock")),
}

INVALID = {
    "": "is empty",
    "0": "from 1 to 65535",
    "65536": "from 1 to 65535",
    "000003000": "from 1 to 65535",
    "²": "is no target",
    "localhost": "write localhost:3000",
    "localhost:": "wrong port",
    "localhost:http": "wrong port",
    "::1": "brackets",
    "[::1]": "behind the address",
    "[zz::]:1": "IPv6",
    "a b:1": "host name",
    "/run/app.sock": "looks like a path",
    "ftp://app": "unknown scheme",
    "http://": "host name",
    "http://app:99999": "wrong port",
    "http://app:0": "wrong port",
    "http://app/path": "end after the port",
    "https://app?x=1": "end after the port",
    "http://me:secret@app": "user or password",
    "http://[::1": "is no URL",
    "unix:app.sock": "absolute path",
    "unix:/" + "x" * 200: "bytes",
}


@pytest.mark.parametrize(("text", "expected"), VALID.items(), ids=VALID)
def test_a_target_is_read_as_people_mean_it(text: str, expected: Target) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(("text", "complaint"), INVALID.items(), ids=list(INVALID))
def test_a_wrong_target_is_refused_with_advice(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=r"^target ") as refusal:
        parse_target(text)

    assert complaint in str(refusal.value)


def test_tls_options_reach_an_https_target() -> None:
    target = parse_target(
        "https://10.0.0.1:8443", insecure=True, ca_file=Path("ca.pem"), server_name="app.internal"
    )

    assert (target.verify, target.ca_file, target.server_name) == (
        False,
        Path("ca.pem"),
        "app.internal",
    )


@pytest.mark.parametrize(
    "options",
    [{"insecure": True}, {"ca_file": Path("ca.pem")}, {"server_name": "app"}],
    ids=["insecure", "ca", "server name"],
)
def test_tls_options_for_a_target_without_tls_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="without TLS"):
        parse_target("3000", **options)


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_an_advice(text: str) -> None:
    try:
        target = parse_target(text)
    except ConfigError:
        return

    assert target.unix_path is not None or 0 < target.port < 65536
