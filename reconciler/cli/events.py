"""`reconciler events`: what happened, newest last."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from core.clock import timestamp
from reconciler.cli import completing
from reconciler.cli.context import Node, pass_node
from reconciler.cli.output import MACHINE, output_option, say_items
from reconciler.cli.selectors import Term, matches, parse_selector
from reconciler.cli.terminal import say, tell
from reconciler.cli.texts import since, table
from reconciler.model.identity import API_VERSION, Key
from reconciler.store.port import Event

HEAD = ("LAST", "TYPE", "OBJECT", "REASON", "COUNT", "MESSAGE")
WATCH_WIDTHS = (5, 7, 20, 16, 5, 0)
POLL_SECONDS = 0.5


@click.command("events")
@click.argument("key", required=False, metavar="[KIND/NAME]", shell_complete=completing.objects)
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Only events of objects with these labels.")
@click.option("-w", "--watch", is_flag=True, help="Go on, and print what happens.")
@output_option("json", "yaml")
@pass_node
def command(node: Node, key: str | None, selector: str, watch: bool, output: str | None) -> int:
    """What happened to all objects, or to one, newest last.

    \b
    Examples:
      reconciler events
      reconciler events container/web -w
    """
    wanted = Key.parse(key) if key else None
    return list_events(node, parse_selector(selector), watch=watch, output=output or "", of=wanted)


def list_events(node: Node, terms: tuple[Term, ...], *, watch: bool, output: str, of: Key | None = None) -> int:
    """Print events, and with `watch` go on printing."""

    def chosen(events: Iterable[Event]) -> list[Event]:
        return [one for one in events if of in (None, one.key) and matches(terms, one.labels)]

    store = node.store()
    found = list(store.events()) if store is not None else []
    if output in MACHINE:
        say_items([event_shape(one) for one in chosen(found)], output)
    elif chosen(found):
        widths = WATCH_WIDTHS if watch else ()
        say(table(HEAD, event_rows(chosen(found), node.clock.wall(), with_object=True), widths))
    elif not watch:
        tell("nothing found")
    while watch:
        sys.stdout.flush()
        while store is None and (store := node.store()) is None:
            node.clock.sleep(POLL_SECONDS)
        last = max((one.id for one in found), default=0)
        node.clock.sleep(POLL_SECONDS)
        found = list(store.events(last)) or found
        fresh = chosen(one for one in found if one.id > last)
        if fresh:
            rows = event_rows(fresh, node.clock.wall(), with_object=True)
            say("\n".join(table(HEAD, rows, WATCH_WIDTHS).splitlines()[1:]))
    return 0


def event_rows(events: Iterable[Event], now: float, *, with_object: bool) -> list[Sequence[Any]]:
    """The rows of a table of events."""
    return [
        (since(one.last, now), one.type, *((one.key,) if with_object else ()), one.reason, one.count, one.message)
        for one in events
    ]


def event_shape(event: Event) -> dict[str, Any]:
    """An event in the shape of all objects."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Event",
        "metadata": {"name": str(event.id), "labels": dict(event.labels)},
        "spec": {"object": str(event.key), "type": event.type, "reason": event.reason, "message": event.message},
        "status": {"count": event.count, "firstAt": timestamp(event.first), "lastAt": timestamp(event.last)},
    }
