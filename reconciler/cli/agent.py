"""`reconciler agent`: the node's agent in the foreground."""

from __future__ import annotations

import click

from reconciler.cli.context import Node, pass_node


@click.command("agent")
@click.option("--once", is_flag=True, help="Make everything what it should be once, and end.")
@click.option("--private-mounts", is_flag=True, help="Accept a mount namespace other than that of pid 1.")
@pass_node
def command(node: Node, once: bool, private_mounts: bool) -> int:
    """Run the node's agent in the foreground: it keeps the node what the manifests say.

    Stopping it (TERM or Ctrl-C) stops no container; the next agent takes them up again.

    \b
    Examples:
      reconciler agent
      reconciler agent --once
    """
    from reconciler.wiring import run_agent

    return run_agent(node.paths, node.config, once=once, private_mounts=private_mounts)
