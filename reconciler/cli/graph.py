"""`reconciler graph`: who reads and writes what, and the objects around one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence

import click

from reconciler.cli import completing
from reconciler.cli.context import Node, key_from, pass_node
from reconciler.cli.graphing import Edge, Writer, around, dot, edges, kinds_shape, nodes, quoted, tree
from reconciler.cli.output import say_one
from reconciler.cli.terminal import printable, say
from reconciler.cli.texts import table
from reconciler.model.identity import Key
from reconciler.model.objects import Object

HEAD = ("KIND", "COUNT", "WRITTEN BY", "STATUS BY", "READS", "MAKES")


@click.command("graph")
@click.argument("key", required=False, metavar="[KIND/NAME]", shell_complete=completing.objects)
@click.option("-o", "--output", type=click.Choice(("dot", "json")), help="Another form than text.")
@pass_node
def command(node: Node, key: str | None, output: str | None) -> int:
    """Who reads and writes what: kinds, their controllers, and who manages how many; or the objects around one.

    \b
    Examples:
      reconciler graph
      reconciler graph container/web
      reconciler graph container/web -o dot | dot -Tsvg > web.svg
    """
    store = node.store()
    objects = store.list() if store is not None else ()
    if key is None:
        _kinds(objects, output or "")
    else:
        _objects(node.wanted(key_from(key, None)), objects, output or "")
    return 0


def writers() -> list[Writer]:
    """The controllers, from their classes: each says which kind it writes, what it makes and reads."""
    from reconciler import controllers

    found = []
    for info in pkgutil.iter_modules(controllers.__path__):
        module = importlib.import_module(f"{controllers.__name__}.{info.name}")
        for name, one in vars(module).items():
            own = isinstance(one, type) and one.__module__ == module.__name__
            if own and all(hasattr(one, field) for field in ("kind", "creates", "reads")):
                found.append(Writer(name.removesuffix("Controller").lower(), one.kind, one.creates, one.reads))
    return found


def _kinds(objects: Sequence[Object], output: str) -> None:
    shapes = kinds_shape(writers(), objects)
    if output == "json":
        say_one({"kinds": shapes}, output)
    elif output == "dot":
        say(dot(_kinds_dot(shapes)))
    else:
        rows = [
            (
                one["kind"].lower(),
                one["count"],
                ", ".join(f"{manager} {count}" for manager, count in one["writtenBy"].items()),
                one["controller"],
                ", ".join(one["reads"]).lower(),
                ", ".join(one["makes"]).lower(),
            )
            for one in shapes
        ]
        say(table(HEAD, rows))


def _kinds_dot(shapes: Sequence[dict[str, object]]) -> Iterator[str]:
    for one in shapes:
        kind, controller = one["kind"], f"{one['controller']} controller"
        for manager in one["writtenBy"] if isinstance(one["writtenBy"], dict) else ():
            yield f'{quoted(manager)} [shape=ellipse]; {quoted(manager)} -> {quoted(kind)} [label="spec"];'
        if one["controller"]:
            yield f'{quoted(controller)} [shape=component]; {quoted(controller)} -> {quoted(kind)} [label="status"];'
            for word in ("reads", "makes"):
                others = one[word]
                for other in others if isinstance(others, list) else ():
                    ends = (other, controller) if word == "reads" else (controller, other)
                    yield f"{quoted(ends[0])} -> {quoted(ends[1])} [label={quoted(word)}];"


def _objects(obj: Object, objects: Sequence[Object], output: str) -> None:
    found = around(obj.key, edges(objects))
    shown = nodes(obj.key, found, {one.key: one for one in objects})
    if output == "json":
        links = [{"from": str(one.source), "to": str(one.target), "relation": one.word} for one in found]
        say_one({"object": str(obj.key), "objects": shown, "edges": links}, output)
    elif output == "dot":
        boxes = [f"{quoted(one['object'])} [label={quoted(one['object'] + chr(10) + one['state'])}];" for one in shown]
        say(dot([*boxes, *(f"{quoted(a)} -> {quoted(b)} [label={quoted(word)}];" for a, b, word in found)]))
    else:
        states = {Key.parse(one["object"]): one["state"] for one in shown}
        say(printable("\n".join(_text(obj, found, states))))


def _text(obj: Object, found: Sequence[Edge], states: dict[Key, str]) -> Iterator[str]:
    where = f", {obj.origin}" if obj.origin is not None else ""
    yield f"{obj.key}  {states[obj.key]}  ({obj.manager or 'nobody'}{where})"
    yield from tree(obj.key, found, states)
    yield from tree(obj.key, found, states, up=True)
