import pytest

from helpers.command_line import run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_our_command(shell: str) -> None:
    result = run("completion", shell)

    assert result.exit_code == 0
    assert f"_MOLEPORT_COMPLETE={shell}_complete" in result.stdout
