"""`reconciler start`: a stop by hand is taken back."""

from __future__ import annotations

import click

from reconciler.cli import byhand
from reconciler.cli.context import Node, pass_node


@click.command("start")
@byhand.CONTAINER
@byhand.REASON
@byhand.WAIT
@byhand.TIMEOUT
@pass_node
def command(node: Node, container: str, reason: str, wait: bool, timeout: float) -> int:
    """Start a container that was stopped by hand, or run one that has ended for good once more.

    Exit code 0: it runs (or has run); 1: there is none, or it cannot be; 3: not in time.

    \b
    Example:
      reconciler start web
    """
    from reconciler.decide.overrides import ask_start

    return byhand.ask(node, container, lambda obj, now: ask_start(obj, now, reason), wait=wait, timeout=timeout)
