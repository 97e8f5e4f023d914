"""`reconciler diff`: what `apply` would do."""

from __future__ import annotations

import click

from core.errors import AgentError
from reconciler.cli import completing
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import files
from reconciler.cli.terminal import complain, say

ERROR = 2


@click.command("diff")
@files("A file, a folder, or -.", required=True)
@click.option(
    "--set", "set_name", default="", metavar="NAME", shell_complete=completing.sets, help="Compare as this set."
)
@click.option("--prune", is_flag=True, help="Count members of the set that are not given as removed.")
@click.option("--take-over", is_flag=True, help="Count other managers' objects as taken over.")
@pass_node
def command(node: Node, paths: tuple[str, ...], set_name: str, prune: bool, take_over: bool) -> int:
    """What apply would do: per object the changed fields, the cause and the cost. Secrets are shown as ***.

    Exit code 0: nothing; 1: something; 2: error.

    \b
    Examples:
      reconciler diff -f web.yaml
      reconciler diff -f manifests/ --set edge --prune
    """
    from reconciler.cli.plans import closing, diff_lines
    from reconciler.cli.proposal import propose, requested

    try:
        proposal = propose(requested(node.config(), paths, set_name, prune=prune, take_over=take_over), node.store())
    except AgentError as error:
        complain(error)
        return ERROR
    for line in diff_lines(proposal.changes):
        say(line)
    say(closing(proposal))
    return 1 if proposal.changes else 0
