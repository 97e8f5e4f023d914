"""`reconciler hold`: no new revision is applied on this node for a while."""

from __future__ import annotations

import click

from core.clock import timestamp
from core.errors import NotFound
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION
from reconciler.cli.terminal import say
from reconciler.model.identity import Kind


@click.command("hold")
@click.option("--for", "seconds", type=DURATION, metavar="2h", help="For so long.")
@click.option("--reason", default="", metavar="TEXT", help="Shown to whoever wonders.")
@click.option("--release", is_flag=True, help="End it now.")
@pass_node
def command(node: Node, seconds: float | None, reason: str, release: bool) -> int:
    """Apply no new revision of any source, and begin no rollback, until the time is over or --release.

    What is in force is kept so; sources are still fetched; `apply` by hand works as always.

    \b
    Examples:
      reconciler hold --for 2h --reason "measuring"
      reconciler hold --release
    """
    from reconciler.cli.source import ask

    if release == (seconds is not None):
        raise click.UsageError("Say how long (--for 2h), or --release.")
    store = node.store_to_write()
    found = next(iter(store.list(Kind.NODE)), None)
    if found is None:
        raise NotFound("no agent has run on this node yet, so there is nothing to hold", advice="Run: reconciler agent")
    if release:
        ask(node, store, found, {"hold": None})
        say("Released: new revisions are applied again.")
        return 0
    now = node.clock.wall()
    until = now + (seconds or 0.0)
    ask(node, store, found, {"hold": {"until": until, "reason": reason, "at": now}})
    say(f"Held until {timestamp(until)}: no new revision is applied on this node.")
    return 0
