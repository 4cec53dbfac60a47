from dataclasses import replace

import pytest

from helpers.operator_records import FACTS, NOW, token
from moleport_operator.credentials import digest
from moleport_operator.plan.records import SecretContent, SecretView
from moleport_operator.plan.secret import (
    DIGEST,
    Held,
    differs,
    has_traces,
    only_url,
    read_held,
    wanted_content,
)

HELD = Held(
    revision=3,
    text="clear",
    sha256=digest("clear"),
    issued_at=NOW,
    not_after=NOW + 60,
    previous_sha256="0" * 64,
    previous_until=NOW + 30,
    rotate_handled="monday",
)


def view(content: SecretContent) -> SecretView:
    return SecretView(uid="s", resource_version="1", claimed_by="uid-shop", content=content)


@pytest.mark.parametrize(
    "held",
    [
        HELD,
        replace(HELD, not_after=None, previous_sha256=None, previous_until=None, rotate_handled=""),
    ],
    ids=["with everything", "with nothing optional"],
)
def test_what_is_written_reads_back(held: Held) -> None:
    assert read_held(view(wanted_content(token(), held, None, FACTS))) == held


def test_an_edited_credential_is_not_read_but_leaves_traces() -> None:
    content = wanted_content(token(), HELD, None, FACTS)
    edited = view(replace(content, values={**content.values, "token": "mine"}))

    assert read_held(edited) is None
    assert has_traces(edited)


def test_a_claimed_secret_has_no_traces() -> None:
    claimed = view(SecretContent(labels={}, annotations={}, values={}, is_owned=False))

    assert read_held(claimed) is None
    assert not has_traces(claimed)


def test_a_template_adds_and_never_overrides_what_is_ours() -> None:
    names = {"team": "a", DIGEST: "forged"}
    spec = {"secret": {"template": {"labels": names, "annotations": names}}}

    content = wanted_content(token(spec=spec), HELD, None, FACTS)

    assert content.labels["team"] == content.annotations["team"] == "a"
    assert content.annotations[DIGEST] == HELD.sha256
    assert DIGEST not in content.labels


def test_without_connection_info_only_the_credential_is_written() -> None:
    spec = {"secret": {"includeConnectionInfo": False}}

    content = wanted_content(token(spec=spec), HELD, ("shop",), replace(FACTS, ca_pem="PEM"))

    assert set(content.values) == {"type", "token"}


def test_the_ca_is_written_if_there_is_one() -> None:
    content = wanted_content(token(), HELD, None, replace(FACTS, ca_pem="PEM"))

    assert content.values["ca.crt"] == "PEM"


@pytest.mark.parametrize(
    ("hostnames", "port", "url"),
    [
        (None, 443, None),
        ((), 443, None),
        (("shop",), 443, "https://shop.tunnels.test"),
        (("shop.example.com",), 8443, "https://shop.example.com:8443"),
        (("*.example.com",), 443, None),
        (("a", "b"), 443, None),
    ],
)
def test_the_url_is_there_for_one_exact_name(
    hostnames: tuple[str, ...] | None, port: int, url: str | None
) -> None:
    assert only_url(hostnames, replace(FACTS, public_https_port=port)) == url


WANTED = wanted_content(token(), HELD, None, FACTS)
OTHER = {"other": "x"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (WANTED, False),
        (replace(WANTED, labels={**WANTED.labels, **OTHER}), False),
        (replace(WANTED, annotations={**WANTED.annotations, **OTHER}), False),
        (replace(WANTED, values={**WANTED.values, **OTHER}), False),
        (replace(WANTED, labels={}), True),
        (replace(WANTED, annotations={}), True),
        (replace(WANTED, annotations={**WANTED.annotations, "moleport.dev/old": "x"}), True),
        (replace(WANTED, values={**WANTED.values, "uri": "x"}), True),
        (replace(WANTED, values={**WANTED.values, "url": "x"}), True),
        (replace(WANTED, is_owned=False), True),
    ],
    ids=[
        "same",
        "foreign label",
        "foreign annotation",
        "foreign key",
        "label lost",
        "annotation lost",
        "stale annotation",
        "edited key",
        "stale key",
        "owner lost",
    ],
)
def test_only_what_is_ours_makes_a_difference(found: SecretContent, expected: bool) -> None:
    assert differs(WANTED, found) == expected
