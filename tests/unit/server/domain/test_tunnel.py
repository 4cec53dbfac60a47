import pytest

from moleport_server.domain.tunnel import OPEN, VisitorRules


@pytest.mark.parametrize(
    ("rules", "is_open"),
    [
        (OPEN, True),
        (VisitorRules(basic_auth=()), False),
        (VisitorRules(allowed_cidrs=()), False),
        (VisitorRules(basic_auth=(), allowed_cidrs=()), False),
    ],
    ids=["no rules", "no users", "no networks", "neither"],
)
def test_only_the_absence_of_rules_lets_everybody_in(rules: VisitorRules, is_open: bool) -> None:
    assert rules.is_open is is_open
