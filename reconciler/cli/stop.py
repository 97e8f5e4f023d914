"""`reconciler stop`: a container stays stopped, whatever its manifest says."""

from __future__ import annotations

import click

from reconciler.cli import byhand
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION


@click.command("stop")
@byhand.CONTAINER
@click.option("--for", "seconds", type=DURATION, default=None, metavar="2h", help="Start it again after this long.")
@byhand.REASON
@byhand.WAIT
@byhand.TIMEOUT
@pass_node
def command(node: Node, container: str, seconds: float | None, reason: str, wait: bool, timeout: float) -> int:
    """Stop a container until `start`, or for a while; its manifest stays as it is. It outlasts a reboot.

    Exit code 0: it is stopped; 1: there is none, or it cannot be; 3: not in time.

    \b
    Example:
      reconciler stop web --for 2h --reason "disk is being changed"
    """
    from reconciler.decide.overrides import ask_stop

    return byhand.ask(node, container, lambda _, now: ask_stop(now, seconds, reason), wait=wait, timeout=timeout)
