import inspect

from moleport_agent import errors
from moleport_agent.errors import ClientError, ConfigError, NotFound


def test_every_error_has_the_root_and_a_place_in_the_drawn_tree() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)
             if kind.__module__ == errors.__name__]  # fmt: skip

    assert all(issubclass(kind, ClientError) for kind in kinds)
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)


def test_errors_say_one_sentence_per_problem() -> None:
    assert str(ConfigError(["one", "two"])) == "one\ntwo"
    assert str(NotFound(404, "no such tunnel", "not_found")) == "no such tunnel"
