"""`reconciler history`: which revisions were applied, and how it went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click

from reconciler.cli import completing
from reconciler.cli.context import Node, pass_node
from reconciler.cli.terminal import say, tell
from reconciler.cli.texts import since, table
from reconciler.model.identity import Key, Kind, checked_name
from reconciler.model.objects import Object

HEAD = ("NAME", "SOURCE", "REVISION", "WHEN", "OBJECTS", "REMOVED", "RESULT")


class Row(NamedTuple):
    """A line of the history; `at` in seconds since 1970."""

    at: float
    name: str
    source: str
    revision: str
    objects: str
    removed: str
    result: str


@click.command("history")
@click.argument("source", required=False, shell_complete=completing.sources)
@pass_node
def command(node: Node, source: str | None) -> int:
    """Which revisions of a source (or of all) were applied or refused, oldest first.

    What a revision in force has, `rollback NAME` brings back as long as it is listed by a name.

    \b
    Examples:
      reconciler history
      reconciler history edge
    """
    store = node.store()
    sources = list(store.list(Kind.SOURCE)) if store is not None else []
    if source is not None:
        sources = [node.wanted(Key(Kind.SOURCE, checked_name(source.removeprefix("source/"))))]
    revisions = list(store.list(Kind.REVISION)) if store is not None else []
    rows = sorted(row for one in sources for row in rows_of(one, revisions))
    if not rows:
        tell("nothing was applied yet")
        return 0
    now = node.clock.wall()
    say(table(HEAD, [(row.name, row.source, row.revision, since(row.at, now), *row[4:]) for row in rows]))
    return 0


def rows_of(source: Object, revisions: Sequence[Object]) -> Iterator[Row]:
    """What one Source applied, and what it refused."""
    from reconciler.decide.source import short

    applied = source.record.get("applied", {})
    for one in revisions:
        if one.spec.get("source") == source.name:
            back = one.spec.get("rollbackTo")
            result = "in force" if applied.get("name") == one.name else "superseded"
            result += f" (rollback to {back})" if back else ""
            counts = str(one.spec["objects"]), str(one.spec["removed"])
            yield Row(one.created, one.name, source.name, short(one.spec["revision"]), *counts, result)
    for entry in source.record.get("failed", ()):
        words = f"refused: {entry['reason']}: {entry['message']}"
        yield Row(entry["at"], "-", source.name, short(entry["revision"]), "-", "-", words)
