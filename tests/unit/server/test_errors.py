import inspect
import re

from moleport_server import errors
from moleport_server.errors import ConfigError, RateLimited, ServerError, Unauthenticated

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ServerError) and kind is not ServerError
]


def test_the_story_of_the_module_draws_every_error_below_its_parent() -> None:
    lines = (errors.__doc__ or "").splitlines()
    drawn: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in lines:
        names = re.match(r"( {4,})((?:[A-Z]\w+(?:\(\w+\))?(?:, )?)+)", line)
        if names is None:
            continue
        depth = len(names[1])
        while parents and parents[-1][0] >= depth:
            parents.pop()
        for name in re.findall(r"[A-Z]\w+", names[2]):
            drawn[name] = parents[-1][1] if parents else "Exception"
        parents.append((depth, re.findall(r"[A-Z]\w+", names[2])[0]))

    assert drawn == {
        "ServerError": "Exception",
        **{kind.__name__: kind.__bases__[0].__name__ for kind in KINDS},
    }


def test_errors_carry_what_their_handler_needs() -> None:
    assert RateLimited("too many", 2.5).retry_after == 2.5
    assert Unauthenticated("missing token", missing=True).missing
    assert not Unauthenticated().missing
    assert str(Unauthenticated()) == "invalid token"


def test_every_problem_of_the_settings_has_its_line() -> None:
    assert str(ConfigError(["a: wrong", "b: unknown"])) == "a: wrong\nb: unknown"
