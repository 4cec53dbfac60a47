from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.operator_records import body
from moleport_operator.queue import Key
from moleport_operator.tallies import Tallies

NOW = 100
LATE, EARLY = "1970-01-01T00:01:00Z", "1970-01-01T00:02:00Z"


def key(name: str) -> Key:
    return Key("tunneltokens", "default", name)


def token(reason: str | None, *, renewal: str = "", is_going: bool = False) -> dict[str, Any]:
    status: dict[str, Any] = {"renewalTime": renewal} if renewal else {}
    if reason is not None:
        is_ready = "True" if reason == "Issued" else "False"
        status["conditions"] = [{"type": "Ready", "status": is_ready, "reason": reason}]
    fields = {"deletionTimestamp": EARLY} if is_going else {}
    return body("shop", status=status, **fields)


@pytest.mark.parametrize(
    ("content", "needs_attention"),
    [
        (token("Issued"), False),
        (token("Issued", renewal=EARLY), False),
        (token("Suspended"), False),
        (token("Issued", renewal="soon"), False),
        (token(None), True),
        (token("Expired"), True),
        (token("Issued", renewal=LATE), True),
        (token("Issued", is_going=True), True),
    ],
    ids=["well", "early", "suspended", "no time", "new", "expired", "overdue", "going"],
)
def test_a_token_needs_attention(content: dict[str, Any], needs_attention: bool) -> None:
    tallies = Tallies()

    tallies.put(key("shop"), content)

    assert tallies.needing_attention(NOW) == [key("shop")] * needs_attention


def test_what_is_over_leaves_no_reason_behind() -> None:
    tallies = Tallies()
    tallies.put(key("shop"), token("Expired"))

    tallies.put(key("shop"), token("Issued"))
    tallies.remove(key("nobody-knows-it"))

    assert tallies.reasons() == {"Issued": 1}
    tallies.remove(key("shop"))
    assert tallies.reasons() == {}


CONTENTS = st.builds(
    token,
    st.sampled_from(["Issued", "Expired", "Suspended", None]),
    renewal=st.sampled_from(["", LATE, EARLY]),
    is_going=st.booleans(),
)


@given(changes=st.lists(st.tuples(st.sampled_from("abcd"), st.none() | CONTENTS), max_size=30))
def test_tallies_after_any_changes_are_those_of_a_count_from_the_start(
    changes: list[tuple[str, dict[str, Any] | None]],
) -> None:
    tallies, held = Tallies(), dict[str, dict[str, Any]]()
    for name, content in changes:
        if content is None:
            held.pop(name, None)
            tallies.remove(key(name))
        else:
            held[name] = content
            tallies.put(key(name), content)

    anew = Tallies()
    for name, content in held.items():
        anew.put(key(name), content)
    reasons = Counter(
        (content["status"].get("conditions") or [{"reason": "Unknown"}])[0]["reason"]
        for content in held.values()
    )
    assert tallies.reasons() == dict(reasons)
    assert sorted(tallies.needing_attention(NOW)) == sorted(anew.needing_attention(NOW))
