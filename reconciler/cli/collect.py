"""`reconciler gc`: what nobody needs goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.context import Node, pass_node
from reconciler.cli.output import output_option
from reconciler.cli.terminal import say, tell
from reconciler.cli.texts import amount, counted

if TYPE_CHECKING:
    from reconciler.model.objects import Object
    from reconciler.store.port import ObjectStore

TIMEOUT = 300.0


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--orphans", is_flag=True, help="End and remove containers that run here and no store remembers, too.")
@output_option("json")
@pass_node
def command(node: Node, dry_run: bool, orphans: bool, output: str | None) -> int:
    """Remove the blobs, snapshots and roots of machines that no object needs. Waits for the transfers under way.

    Kept is what images, snapshots, containers' roots and revisions that one may go back to need. The agent does it
    by itself every `gc.interval`.

    \b
    Examples:
      reconciler gc --dry-run
      reconciler gc
    """
    store = node.store()
    if store is None:
        say(json.dumps(_nothing()) if output else "Nothing to collect: there is no store.")
        return 0
    code = _end_orphans(node, store, dry_run=dry_run) if orphans else 0
    done = ask(node, store, "collect", {"dryRun": dry_run, "orphans": orphans})
    if output:
        say(json.dumps(done, indent=2))
    else:
        say("\n".join(report(done, dry_run=dry_run)))
    return code


def _nothing() -> dict[str, Any]:
    return {"blobs": [], "snapshots": [], "roots": [], "bytes": 0, "kept": {"blobs": 0, "snapshots": 0}}


def ask(node: Node, store: ObjectStore, verb: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Have the engine do it, and show what it waits for, or how far it is."""
    from reconciler.cli.asking import Asking
    from reconciler.wiring import ask as ask_engine

    shown = Asking(node.clock)
    try:
        return ask_engine(node.paths, store, verb, arguments, config=node.engine_config, tick=shown.tick)
    finally:
        shown.clear()


def report(done: Mapping[str, Any], *, dry_run: bool) -> Iterator[str]:
    """What went, and how much room that makes."""
    for one in done["snapshots"]:
        yield f"snapshot  {one['driver']} {one['chain']}  {amount(one['bytes'])}"
    for one in done["blobs"]:
        yield f"blob      {one['digest']}  {amount(one['bytes'])}"
    roots = done.get("roots", ())  # an older agent knows none
    for one in roots:
        yield f"root      {one['name']}  {amount(one['bytes'])}"
    parts = [counted(len(done["blobs"]), "blob"), counted(len(done["snapshots"]), "snapshot")]
    parts += [counted(len(roots), "root") + " of machines"] if roots else []
    parts.append(amount(done["bytes"]))
    kept = f"kept: {counted(done['kept']['blobs'], 'blob')}"
    yield f"{'Would remove' if dry_run else 'Removed'}: {', '.join(parts)}; {kept}."


def _end_orphans(node: Node, store: ObjectStore, *, dry_run: bool) -> int:
    from reconciler.cli.delete import finish, mark
    from reconciler.model.objects import ORPHAN

    orphans: list[Object] = [obj for obj in store.list() if obj.manager == ORPHAN]
    if not orphans or dry_run:
        tell(f"orphans: {', '.join(str(obj.key) for obj in orphans) or 'none'}")
        return 0
    keys = mark(node, store, orphans, purge=False)
    return finish(node, store, keys, len(orphans), TIMEOUT, node.clock.monotonic())
