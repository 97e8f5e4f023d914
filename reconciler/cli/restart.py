"""`reconciler restart`: one more attempt, once."""

from __future__ import annotations

import click

from reconciler.cli import byhand
from reconciler.cli.context import Node, pass_node


@click.command("restart")
@byhand.CONTAINER
@byhand.REASON
@byhand.WAIT
@byhand.TIMEOUT
@pass_node
def command(node: Node, container: str, reason: str, wait: bool, timeout: float) -> int:
    """Run a container anew: the next attempt is prepared, the running one stopped, the next one started. Once.

    A stop by hand is taken back by it. Exit code 0: it runs anew; 1: there is none, or it cannot be; 3: not in time.

    \b
    Example:
      reconciler restart web --reason "leaks memory"
    """
    from reconciler.decide.overrides import ask_restart

    return byhand.ask(node, container, lambda obj, now: ask_restart(obj, now, reason), wait=wait, timeout=timeout)
