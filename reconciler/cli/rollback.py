"""`reconciler rollback`: an older revision of a source, until the source moves on."""

from __future__ import annotations

import click

from core.errors import Invalid, NotFound
from reconciler.cli import completing
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION
from reconciler.cli.terminal import say
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.port import ObjectStore

ADVICE = "See what there is: reconciler history"


@click.command("rollback")
@click.argument("revision", required=False, shell_complete=completing.revisions)
@click.option("--source", "source_name", default="", metavar="NAME", help="Of this source [where there is only one].")
@click.option("--reason", default="", metavar="TEXT", help="Shown to whoever wonders.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is so [wait].")
@click.option("--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up waiting after this long [5m].")
@pass_node
def command(node: Node, revision: str | None, source_name: str, reason: str, wait: bool, timeout: float) -> int:
    """Apply an older revision of a source again, and stay there until the source has a newer one than now.

    REVISION is a name as `history` prints it, or the beginning of a commit; left out: the one before that in force.
    `source resume` ends it. Exit code 0: it is so; 1: refused or stalled; 3: not in time.

    \b
    Examples:
      reconciler rollback
      reconciler rollback edge-4 --reason "the new web does not start"
    """
    from reconciler.cli.source import NO_AGENT, ask, follow, has_agent

    store = node.store_to_write()
    target = chosen(store, revision, source_name)
    source = node.wanted(Key(Kind.SOURCE, str(target.spec["source"])))
    _check_kept(node, store, source, target)
    asked = {
        "number": target.spec["number"],
        "name": target.name,
        "revision": target.spec["revision"],
        "over": source.record.get("fetched", {}).get("revision", ""),
        "reason": reason,
        "at": node.clock.wall(),
    }
    ask(node, store, source, {"rollback": asked})
    if not has_agent(node):
        say(f"Accepted: {source.key} goes back to {target.name}.")
        say(NO_AGENT)
        return 0
    if not wait:
        say(f"Accepted: {source.key} goes back to {target.name}.")
        return 0
    return follow(node, store, source.key, timeout, lambda one: one.status.get("rolledBackTo") == target.name)


def _check_kept(node: Node, store: ObjectStore, source: Object, target: Object) -> None:
    from reconciler.store.revisions import Revisions

    Revisions(node.paths.root, store, 1).kept(source.key, int(target.spec["number"]))


def chosen(store: ObjectStore, revision: str | None, source_name: str) -> Object:
    """The Revision object that is meant; raises `NotFound` and `Invalid`."""
    every = [one for one in store.list(Kind.REVISION) if source_name in ("", one.spec["source"])]
    if revision is None:
        return _one_before(store, every)
    found = [one for one in every if one.name == revision.removeprefix("revision/")]
    if not found:
        digits = revision.removeprefix("folder:")
        found = [one for one in every if str(one.spec["revision"]).removeprefix("folder:").startswith(digits)]
        found = found[-1:] if len({one.spec["revision"] for one in found}) == 1 else found
    if not found:
        raise NotFound(f"no revision {revision} is kept", advice=ADVICE)
    if len(found) > 1:
        raise Invalid(f"{revision} may be {', '.join(one.name for one in found)}", advice="Name one of them.")
    return found[0]


def _one_before(store: ObjectStore, every: list[Object]) -> Object:
    sources = sorted({str(one.spec["source"]) for one in every})
    if len(sources) > 1:
        raise Invalid("there are several sources", advice=f"Say which: --source {'|'.join(sources)}")
    source = store.get(Key(Kind.SOURCE, sources[0])) if sources else None
    applied = source.record.get("applied", {}) if source is not None else {}
    before = [
        one for one in every if one.name != applied.get("name") and one.spec["revision"] != applied.get("revision")
    ]
    if not before:
        raise NotFound("there is no revision before the one in force", advice=ADVICE)
    return max(before, key=lambda one: int(one.spec["number"]))
