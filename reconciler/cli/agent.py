"""`reconciler agent`: the node's agent in the foreground, and as a service of the node."""

from __future__ import annotations

import click

from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION


@click.group("agent", invoke_without_command=True)
@click.option("--once", is_flag=True, help="Make everything what it should be once, and end.")
@click.option("--private-mounts", is_flag=True, help="Accept a mount namespace other than that of pid 1.")
@click.pass_context
def command(context: click.Context, once: bool, private_mounts: bool) -> int:
    """Run the node's agent in the foreground: it keeps the node what the manifests say.

    Stopping it (TERM or Ctrl-C) stops no container; the next agent takes them up again.

    \b
    Examples:
      reconciler agent install
      reconciler agent
      reconciler agent --once
    """
    if context.invoked_subcommand is not None:
        return 0
    from reconciler.config import ConfigFiles
    from reconciler.resident import run_agent

    node = context.ensure_object(Node)
    return run_agent(
        node.paths, ConfigFiles(node.config_file, node.paths.state), once=once, private_mounts=private_mounts
    )


@command.command("install")
@click.option("--print", "only_print", is_flag=True, help="Print the systemd unit, and do nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--timeout", type=DURATION, default=60.0, metavar="1m", help="Give up waiting after this long [1m].")
@pass_node
def install(node: Node, only_print: bool, dry_run: bool, timeout: float) -> int:
    """Have systemd run the agent, now and after each boot. Once more, it starts the agent anew: after an upgrade.

    What was given as --root, --state and --config is what the unit gives the agent. No container is stopped.
    Exit code 0: the agent is ready; 1: it cannot be; 3: it was not ready in time.

    \b
    Examples:
      reconciler agent install
      reconciler --config /etc/edge.yaml agent install
      reconciler agent install --print
    """
    from reconciler.cli.install import Install

    made = Install(node)
    if only_print:
        return made.show()
    return made.plan() if dry_run else made.run(timeout)


@command.command("uninstall")
@click.option("--keep-volumes", is_flag=True, help="Keep the folder of volumes.")
@click.option("--yes", is_flag=True, help="Remove volumes that hold data.")
@click.option("--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up waiting after this long [5m].")
@pass_node
def uninstall(node: Node, keep_volumes: bool, yes: bool, timeout: float) -> int:
    """Stop the service, delete everything on this node, and remove its folders.

    Nothing is left but the configuration in /etc/reconciler, which nobody but you wrote. Where volumes hold data it
    wants to be told: --yes or --keep-volumes. It can be run again when something could not be removed.
    Exit code 0: gone; 1: refused, or what is left is stalled; 3: not in time.

    \b
    Examples:
      reconciler agent uninstall --keep-volumes
      reconciler agent uninstall --yes
    """
    from reconciler.cli.uninstall import Uninstall

    return Uninstall(node, keep_volumes=keep_volumes).run(yes=yes, timeout=timeout)
