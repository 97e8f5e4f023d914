"""`reconciler describe`: all that is known of one object, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from core.clock import timestamp
from reconciler.cli import completing
from reconciler.cli.columns import state
from reconciler.cli.context import Node, key_from, pass_node
from reconciler.cli.events import event_rows
from reconciler.cli.masks import masked
from reconciler.cli.terminal import INDENT, printable, say
from reconciler.cli.texts import since, table
from reconciler.model.objects import Object
from reconciler.store.port import Event

SEPARATE = ("conditions", "lastError", "nextRetryAt", "observedGeneration")
MOST_EVENTS = 20
LONGEST = 160


@click.command("describe")
@click.argument("kind", shell_complete=completing.kinds)
@click.argument("name", required=False, shell_complete=completing.names)
@pass_node
def command(node: Node, kind: str, name: str | None) -> int:
    """All about one object: where it came from, its conditions, what it waits for, what happened.

    \b
    Examples:
      reconciler describe container web
      reconciler describe image/web
    """
    key = key_from(kind, name)
    obj = node.wanted(key)
    store = node.store()
    events = [one for one in store.events() if one.key == key] if store is not None else []
    say(printable("\n".join(description(obj, events, node.clock.wall()))))
    return 0


def description(obj: Object, events: Sequence[Event], now: float) -> Iterator[str]:
    """The lines of the description."""
    yield from _about(obj, now)
    shape = masked(obj)
    yield from _section("Spec", tree(shape["spec"]))
    status = {name: value for name, value in shape["status"].items() if name not in SEPARATE}
    yield from _section("Status", tree(status))
    yield from _section("Conditions", _conditions(obj, now))
    yield from _section("Waits for", _waits(obj, now))
    rows = event_rows(events[-MOST_EVENTS:], now, with_object=False)
    head = ("LAST", "TYPE", "REASON", "COUNT", "MESSAGE")
    yield from _section("Events", table(head, rows).splitlines() if rows else ["none"])


def _about(obj: Object, now: float) -> Iterator[str]:
    facts = {
        "Name": obj.name,
        "Kind": obj.kind.value,
        "State": state(obj),
        "Manager": obj.manager,
        "Origin": "" if obj.origin is None else str(obj.origin),
        "Owners": ", ".join(sorted(map(str, obj.owners))),
        "Labels": ", ".join(f"{name}={value}" for name, value in sorted(obj.labels.items())),
        "Annotations": ", ".join(f"{name}={value}" for name, value in sorted(obj.annotations.items())),
        "Generation": f"{obj.generation} (seen: {obj.status.get('observedGeneration', 'not yet')})",
        "Created": f"{timestamp(obj.created)} ({since(obj.created, now)} ago)" if obj.created else "",
        "Deleted": f"{timestamp(obj.deleted)} ({since(obj.deleted, now)} ago)" if obj.deleted else "",
        "Finalizers": ", ".join(sorted(obj.finalizers)),
    }
    return (f"{name + ':':<13}{value}" for name, value in facts.items() if value)


def _section(name: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"{name}:"
        yield from (f"  {line}" for line in lines)


def _conditions(obj: Object, now: float) -> list[str]:
    rows = [
        (one["type"], one["status"], one["reason"], since(one["lastTransitionTime"], now), one["message"])
        for one in obj.status.get("conditions", ())
    ]
    return table(("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), rows).splitlines() if rows else ["none yet"]


def _waits(obj: Object, now: float) -> list[str]:
    lines = [
        f"{one['reason']}: {one['message']}"
        for one in obj.status.get("conditions", ())
        if one["type"] in ("Reconciling", "Stalled") and one["status"] == "True"
    ]
    if error := obj.status.get("lastError"):
        lines.append(f"last error: {error['phase']}: {error['category']}: {error['message']}")
        lines += [INDENT + error["hint"]] if error.get("hint") else []
    if due := obj.status.get("nextRetryAt"):
        lines.append(f"next try: {due}")
    return lines


def tree(value: Any) -> list[str]:
    """A value as indented lines, like YAML; long texts are cut."""
    if isinstance(value, Mapping):
        return [line for name, part in value.items() for line in _branch(f"{name}:", part)]
    if isinstance(value, list | tuple):
        return [line for part in value for line in _item(part)]
    return [_short(value)]


def _branch(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        return [name, *(f"  {line}" for line in tree(value))]
    return [f"{name} {_short(value)}"]


def _item(value: Any) -> list[str]:
    first, *rest = tree(value) or [_short(value)]
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join(str(value).split()) if not isinstance(value, Mapping | list | tuple) else "none"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
