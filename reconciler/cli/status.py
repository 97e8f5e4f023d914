"""`reconciler status`: the node on one screen."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import click

from core.values import dataclass
from reconciler.cli.columns import is_ready, message, state
from reconciler.cli.context import Node, pass_node
from reconciler.cli.terminal import LiveLines, is_terminal, paint, say
from reconciler.cli.texts import age, counted, table
from reconciler.model.identity import Kind
from reconciler.model.objects import Object

MOST_ROWS = 20
REFRESH_SECONDS = 0.5
NOBODY = "none: nothing restarts, probes or starts by itself; run: reconciler agent install"


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown: who is the engine (`""`: nobody), and the objects."""

    root: str
    engine: str
    objects: Sequence[Object]
    notices: Sequence[tuple[str, str]] = ()
    """What the node says of itself that a person should know: a condition's type, and its message."""

    @property
    def waiting(self) -> list[Object]:
        """The objects that are not what they should be."""
        return [obj for obj in self.objects if not is_ready(obj)]


@click.command("status")
@click.option("-w", "--watch", is_flag=True, help="Go on, and draw it anew when something changes.")
@click.option("--oneline", is_flag=True, help="One line, for prompts and scripts.")
@pass_node
def command(node: Node, watch: bool, oneline: bool) -> int:
    """The node on one screen: the engine, how many objects are ready, and what holds up those that are not.

    Exit code 0: all are ready; 1: some are not.

    \b
    Examples:
      reconciler status
      reconciler status --oneline
    """
    if watch:
        _watch(node, oneline=oneline)
    picture = look(node)
    say("\n".join([summary(picture)] if oneline else screen(picture)))
    return 1 if picture.waiting else 0


def look(node: Node) -> Picture:
    """The node as it is now."""
    store = node.store()
    objects = store.list() if store is not None else ()
    asked_for = [obj for obj in objects if obj.kind is not Kind.NODE]  # the node is what the screen is about
    notices = [notice for obj in objects if obj.kind is Kind.NODE for notice in notices_of(obj)]
    notices += asked_here(objects, node.clock.wall())
    return Picture(str(node.paths.root), engine_of(node), asked_for, notices)


def notices_of(node: Object) -> list[tuple[str, str]]:
    """The conditions of the node that are true and not on every object."""
    usual = ("Ready", "Reconciling", "Stalled")
    found = (one for one in node.status.get("conditions", ()) if one["status"] == "True" and one["type"] not in usual)
    return [(str(one["type"]), str(one["message"])) for one in found]


def asked_here(objects: Sequence[Object], now: float) -> Iterator[tuple[str, str]]:
    """What a person at the node asked of it and of its sources, and for how long: a hold, a suspension, a rollback."""
    words = {"hold": "Held", "suspend": "Suspended", "rollback": "RolledBack"}
    for obj in objects:
        for word in words if obj.kind in (Kind.NODE, Kind.SOURCE) else ():
            asked = obj.local.get(word)
            until = asked.get("until") if asked else None
            if asked and (until is None or until > now):
                what = asked.get("name") or ("no new revision is applied" if word == "hold" else "not fetched")
                parts = [f"{obj.key}: {what}", f"for {age(until - now)} more" if until is not None else ""]
                yield words[word], ", ".join(filter(None, [*parts, asked.get("reason")]))


def engine_of(node: Node) -> str:
    """Who is this node's engine, in words (`the agent with pid …`); empty when nobody is. Makes nothing."""
    from core.proc import boot_id
    from reconciler.engine.lock import Holder

    try:
        holder = Holder.parse((node.paths.state / "engine.lock").read_text("utf-8", "replace"))
    except FileNotFoundError:
        return ""
    return str(holder) if holder is not None and holder.process.alive(boot_id()) else ""


def summary(picture: Picture) -> str:
    """One line: `12/12 ready, agent running`, or with the first objects that are not."""
    ready = len(picture.objects) - len(picture.waiting)
    engine = "agent running" if picture.engine.startswith("the agent") else "no agent"
    names = ", ".join(f"{obj.key} {state(obj)}" for obj in picture.waiting[:3])
    more = f" and {len(picture.waiting) - 3} more" if len(picture.waiting) > 3 else ""
    told = "".join(f", {type_}" for type_, _ in picture.notices)
    return f"{ready}/{len(picture.objects)} ready, {engine}{told}" + (f": {names}{more}" if names else "")


def screen(picture: Picture) -> Iterator[str]:
    """The lines of the screen."""
    yield f"Node    {picture.root}"
    yield f"Engine  {picture.engine or NOBODY}"
    for type_, text in picture.notices:
        yield paint(f"{type_}: {text}", "yellow")
    for obj in picture.objects:
        if obj.kind is Kind.SOURCE:
            from reconciler.decide.source import short  # which who has none need not load

            counts = obj.status.get("objects", {"ready": 0, "total": 0})
            revision = short(str(obj.status.get("observedRevision", ""))) or "nothing applied"
            yield f"Source  {obj.name} at {revision}, {counts['ready']}/{counts['total']} ready: {state(obj)}"
    if not picture.objects:
        yield "Objects none"
        return
    total = Counter(obj.kind for obj in picture.objects)
    ready = Counter(obj.kind for obj in picture.objects if is_ready(obj))
    yield "Objects " + "  ".join(f"{kind.value.lower()} {ready[kind]}/{total[kind]}" for kind in Kind if total[kind])
    if not picture.waiting:
        yield paint("All ready.", "green")
        return
    yield ""
    rows = [(obj.key, state(obj), message(obj)) for obj in picture.waiting[:MOST_ROWS]]
    yield from table(("NOT READY", "STATUS", "WHY"), rows).splitlines()
    if (more := len(picture.waiting) - MOST_ROWS) > 0:
        yield f"… and {counted(more, 'object')} more: reconciler get all"


def _watch(node: Node, *, oneline: bool) -> None:
    """Draw until interrupted; in a pipe, print when something has changed."""
    live = LiveLines(sys.stdout) if is_terminal(sys.stdout) else None
    began, before = node.clock.monotonic(), [""]
    while True:
        picture = look(node)
        lines = [summary(picture)] if oneline else list(screen(picture))
        if live is not None:
            live.draw([*lines, "", f"watching for {age(node.clock.monotonic() - began)}; Ctrl-C ends it"])
        elif lines != before:
            say("\n".join(lines))
            sys.stdout.flush()
        before = lines
        node.clock.sleep(REFRESH_SECONDS)
