"""`reconciler completion`: the script that a shell sources to complete our words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from reconciler.cli.terminal import say

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_RECONCILER_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print a script for the shell that completes commands, options, kinds, and the names of what is on the node.

    \b
    Examples:
      source <(reconciler completion bash)
      reconciler completion zsh > ~/.zfunc/_reconciler
      reconciler completion fish > ~/.config/fish/completions/reconciler.fish
    """
    from reconciler.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None, "click knows these shells"
    say(made(cli, {}, "reconciler", VARIABLE).source().strip())
    return 0
