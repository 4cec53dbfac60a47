"""The command line `moleport`: one module per family of commands, `app` puts them together.

Commands import what they need inside their functions, so that `--help` is quick and an idle agent
does not carry the HTTP client, YAML and the terminal view around.
"""

from moleport_agent.cli.app import main

__all__ = ["main"]
