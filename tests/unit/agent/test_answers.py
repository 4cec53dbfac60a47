import msgspec

from moleport_agent.answers import CreatedToken, ServerFacts


def test_a_server_that_says_little_about_itself_is_understood() -> None:
    assert msgspec.json.decode(b'{"instance": "i"}', type=ServerFacts) == ServerFacts()


def test_the_secret_of_a_new_token_is_in_its_json_and_not_in_its_repr() -> None:
    created = CreatedToken(id="1", label="ci", token="hunter2")

    assert b"hunter2" in msgspec.json.encode(created)
    assert "hunter2" not in repr(created)
