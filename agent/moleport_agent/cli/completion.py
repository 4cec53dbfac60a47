"""`moleport completion`: the script that makes a shell complete our commands."""

import click
from click.shell_completion import get_completion_class


@click.command(
    name="completion",
    epilog="""\b
bash:  echo 'eval "$(moleport completion bash)"' >> ~/.bashrc
zsh:   echo 'eval "$(moleport completion zsh)"' >> ~/.zshrc
fish:  moleport completion fish > ~/.config/fish/completions/moleport.fish""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print the completion script for a shell."""
    root = click.get_current_context().find_root()
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(completer(root.command, {}, "moleport", "_MOLEPORT_COMPLETE").source())
