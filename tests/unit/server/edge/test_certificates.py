"""The local authority of a development server."""

import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from moleport_server.config.settings import CA_FILE
from moleport_server.edge.certificates import (
    KEY_FILE,
    RENEWAL_DAYS,
    IssuedCertificate,
    LocalAuthority,
)
from moleport_server.errors import ConfigError

DAY = 86_400.0
NOW = 1_790_000_000.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def authority(
    directory: Path, *, domains: tuple[str, ...] = ("localhost",), now: float = NOW
) -> LocalAuthority:
    return LocalAuthority.load_or_create(directory, domains=domains, clock=Clock(now))


def leaf_of(issued: IssuedCertificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.pem)


def test_the_authority_survives_a_restart(tmp_path: Path) -> None:
    first = authority(tmp_path / "tls")
    before = first.ca_file.read_bytes()

    second = authority(tmp_path / "tls")

    assert second.ca_file.read_bytes() == before
    leaf_of(second.issue(["localhost"])).verify_directly_issued_by(
        x509.load_pem_x509_certificate(before)
    )


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    authority(tmp_path)

    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"now": NOW + (365 - RENEWAL_DAYS + 1) * DAY}, id="ends-soon"),
        pytest.param({"domains": ("other.example",)}, id="other-domains"),
    ],
)
def test_an_authority_that_does_not_fit_is_replaced(tmp_path: Path, changes: Any) -> None:
    before = authority(tmp_path).ca_file.read_bytes()

    after = authority(tmp_path, **changes)

    assert after.ca_file.read_bytes() != before
    assert authority(tmp_path, **changes).ca_file.read_bytes() == after.ca_file.read_bytes()


@pytest.mark.parametrize("name", [CA_FILE, KEY_FILE])
@pytest.mark.parametrize("content", [b"", b"garbage"], ids=["empty", "garbage"])
def test_broken_files_are_refused_and_left_alone(tmp_path: Path, name: Any, content: Any) -> None:
    authority(tmp_path)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match="holds no usable authority, remove it"):
        authority(tmp_path)

    assert (tmp_path / name).read_bytes() == content


def test_the_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    authority(tmp_path / "a")
    authority(tmp_path / "b")
    (tmp_path / "a" / KEY_FILE).write_bytes((tmp_path / "b" / KEY_FILE).read_bytes())

    with pytest.raises(ConfigError, match="belongs to another certificate"):
        authority(tmp_path / "a")


def test_a_directory_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"tls\.authority_dir: .*file/tls"):
        authority(tmp_path / "file" / "tls")


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("localhost", True),
        ("quick-otter.localhost", True),
        ("a.b.localhost", True),
        ("t.example", True),
        ("x.t.example", True),
        ("example", False),
        ("notlocalhost", False),
        ("-a.localhost", False),
        ("a..localhost", False),
        ("*.localhost", False),
        ("a b.localhost", False),
        ("x" * 64 + ".localhost", False),
        (".".join(["x" * 60] * 5) + ".localhost", False),
        ("", False),
    ],
)
def test_only_well_formed_names_under_our_domains_are_covered(
    tmp_path: Path, name: Any, is_ours: Any
) -> None:
    assert authority(tmp_path, domains=("t.example",)).covers(name) is is_ours


def test_a_certificate_names_what_was_asked_for_and_ends_in_time(tmp_path: Path) -> None:
    issued = authority(tmp_path).issue(["a.localhost", "127.0.0.1", "::1"])

    names = leaf_of(issued).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.localhost"]
    assert len(names.get_values_for_type(x509.IPAddress)) == 2
    assert NOW + 89 * DAY < issued.not_after < NOW + 91 * DAY
    assert "PRIVATE" not in repr(issued)


def test_a_leaf_never_outlives_its_authority(tmp_path: Path) -> None:
    authority(tmp_path)
    late = authority(tmp_path, now=NOW + 320 * DAY)

    issued = late.issue(["localhost"])

    assert issued.not_after == late.not_after
    assert not late.should_renew(issued.not_after)


def test_a_leaf_that_ends_soon_should_be_renewed(tmp_path: Path) -> None:
    clock = Clock()
    local = LocalAuthority.load_or_create(tmp_path, domains=(), clock=clock)
    issued = local.issue(["localhost"])

    assert not local.should_renew(issued.not_after)
    clock.time += (91 - RENEWAL_DAYS) * DAY
    assert local.should_renew(issued.not_after)


def test_a_certificate_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        authority(tmp_path).issue([])


def test_openssl_accepts_the_authority(tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority(tmp_path).ca_file))

    assert context.cert_store_stats()["x509_ca"] == 1
